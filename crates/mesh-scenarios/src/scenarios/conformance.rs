//! What a client sees of MQTT, at a stock broker and through Nginx at the mesh. The mesh must not make a broker less
//! conformant: whatever differs is either in [`DIFFERENCES`], with its reason, or a failure.

mod checks;
mod client;

use mesh_lab::{Lab, LabOptions};

use super::Settings;
use super::ground::{Door, Ground};
use crate::story::Story;
use checks::CHECKS;

/// What differs, and why it may.
const DIFFERENCES: [(&str, &str); 3] = [
    (
        "limits told in CONNACK",
        "mosquitto.max_inflight_messages is 20,000 here, so that links never queue; a stock broker says 20",
    ),
    (
        "user properties",
        "the mesh appends its stamp, `mesh`, to what is retained or has QoS 1 or 2",
    ),
    (
        "publish without a subscriber",
        "links subscribe to everything, so there always is one",
    ),
];

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    story.say("starting a stock broker");
    let stock = Lab::start(LabOptions {
        brokers: 1,
        balancer: false,
        health: false,
        broker_conf: Some(std::sync::Arc::new(|config, _, id| {
            let broker = config.topology.brokers().iter().find(|broker| broker.id == *id);
            // The configuration is that of this lab, which has this broker.
            broker.map_or_else(String::new, |broker| {
                let (ip, port) = (broker.address.ip(), broker.address.port());
                let user = &config.mosquitto.user;
                format!("listener {port} {ip}\nallow_anonymous true\nuser {user}\nlog_dest stderr\n")
            })
        })),
        ready_topic: None,
        ..LabOptions::default()
    });
    let stock = stock.await?;
    let alone = stock.config().topology.ids().next().map(|id| stock.broker(id));
    let alone = alone.ok_or_else(|| anyhow::anyhow!("no broker"))?;
    let alone = Door::open(alone);
    let ground = Ground::enter(story, &settings).await?;
    let mesh = ground.door();
    story.say(format_args!(
        "{:<34} | {:<44} | through Nginx into the mesh",
        "check", "stock broker"
    ));
    for (name, check) in CHECKS {
        let (there, here) = tokio::join!(check(&alone), check(&mesh));
        let told = |seen: anyhow::Result<String>| seen.unwrap_or_else(|error| format!("failed: {error:#}"));
        let (there, here) = (told(there), told(here));
        story.say(format_args!("{name:<34} | {there:<44} | {here}"));
        let works = !there.starts_with("failed") && !here.starts_with("failed");
        match DIFFERENCES.iter().find(|(known, _)| *known == name) {
            Some((_, why)) => {
                story.check(
                    format!("{name}: works, and differs since {why}"),
                    works && there != here,
                    format_args!("{there:?} and {here:?}"),
                );
            }
            None => story.check(
                format!("{name}: the same"),
                works && there == here,
                format_args!("{there:?} and {here:?}"),
            ),
        }
    }
    stock.discard();
    ground.leave().await
}
