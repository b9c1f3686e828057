//! The primary is killed under load, again and again: is anything missing that it acknowledged?

use std::time::Duration;

use mesh_lab::Lab;
use mesh_lab::load::{Pace, Publication, Publisher, Subscriber};
use mesh_runtime::mqtt::mqttbytes::QoS;
use serde::Serialize;

/// Messages a second.
pub const RATE: f64 = 5000.0;

/// How long the load runs before the kill.
const BEFORE_KILL: Duration = Duration::from_millis(400);

/// Nothing more comes if nothing has come for this long.
const SILENCE: Duration = Duration::from_millis(500);

const DEADLINE: Duration = Duration::from_secs(30);

/// What all kills together showed.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Crashes {
    /// How often the primary was killed.
    pub kills: u32,
    /// QoS 1 messages that it had acknowledged.
    pub acknowledged: u64,
    /// Of these, how many a subscriber on another broker never got.
    pub missing: u64,
    /// How many that subscriber got more than once.
    pub twice: u64,
}

/// Kills the first broker `kills` times under load; `progress` is called after each.
pub async fn run(lab: &Lab, kills: u32, mut progress: impl FnMut(u32)) -> anyhow::Result<Crashes> {
    let ids: Vec<_> = lab.config().topology.ids().cloned().collect();
    let (primary, other) = (&ids[0], &ids[1]);
    let mut crashes = Crashes::default();
    for kill in 1..=kills {
        let mut subscriber =
            Subscriber::start(lab.broker(other), "bench-sub", "bench/crash", QoS::AtLeastOnce).await?;
        let mut publisher = Publisher::connect(lab.broker(primary), "bench-pub").await?;
        let publication = Publication {
            retain: false,
            topic: "bench/crash".to_owned(),
            qos: QoS::AtLeastOnce,
            payload: 64,
            messages: 1_000_000,
            pace: Pace::PerSecond(RATE),
        };
        let kill_later = async {
            tokio::time::sleep(BEFORE_KILL).await;
            lab.kill(primary.as_str()).await
        };
        let (published, killed) = tokio::join!(publisher.run(&publication), kill_later);
        killed?;
        anyhow::ensure!(published.is_err(), "the publisher outlived its broker");
        subscriber.wait_for_silence(SILENCE, DEADLINE).await;
        let received = subscriber.finish().await;
        for (number, acknowledged) in publisher.acknowledged().iter().enumerate() {
            let times = received.times.get(number).copied().unwrap_or(0);
            crashes.acknowledged += u64::from(*acknowledged);
            crashes.missing += u64::from(*acknowledged && times == 0);
        }
        crashes.twice += received.duplicates();
        crashes.kills += 1;
        lab.restart(primary.as_str()).await?;
        lab.links_carry("$mesh/bench/", DEADLINE).await?;
        progress(kill);
    }
    Ok(crashes)
}
