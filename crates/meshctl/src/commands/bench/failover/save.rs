//! The primary writes a large state to disk while every core is busy: it is slow, and it is well.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use mesh_lab::fleet::LogMarks;
use mesh_lab::{Lab, wait_until};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::Publish;
use mesh_runtime::mqtt::{Connection, Identity, Packet};
use tokio::time::sleep;

use super::effort::Effort;
use super::faults::{Outcome, note_failover};
use super::rig::Rig;
use super::systems::System;

/// Bytes of one retained message.
const PAYLOAD: usize = 100_000;

/// Busy threads for each core.
const BUSY: usize = 2;

/// How long is watched after a save: longer than the checks of any system take to fail.
const SETTLE: Duration = Duration::from_millis(700);

const DEADLINE: Duration = Duration::from_secs(60);

/// Publishes `megabytes` of retained messages and waits until every broker has them.
pub async fn fill(lab: &Lab, megabytes: usize) -> anyhow::Result<()> {
    let messages = megabytes * 1_000_000 / PAYLOAD;
    let ids: Vec<_> = lab.config().topology.ids().collect();
    let mut connection = connect(lab.broker(ids[0])).await?;
    for number in 0..messages {
        let mut message = Publish::new(
            format!("bench/retained/{number}"),
            QoS::AtLeastOnce,
            vec![b'.'; PAYLOAD],
            None,
        );
        message.pkid = 1;
        message.retain = true;
        connection.send(&Packet::Publish(message)).await?;
        while !matches!(connection.receive().await?, Packet::PubAck(_)) {}
    }
    let last = format!("bench/retained/{}", messages.saturating_sub(1));
    for id in ids {
        wait_until(&format!("the retained state at {id}"), DEADLINE, async || {
            let seen = async {
                let mut connection = connect(lab.broker(id)).await?;
                connection.subscribe(&[&last], QoS::AtMostOnce).await?;
                while !matches!(connection.receive().await?, Packet::Publish(_)) {}
                anyhow::Ok(())
            };
            match tokio::time::timeout(Duration::from_secs(1), seen).await {
                Ok(seen) => seen.map_err(|error| error.to_string()),
                Err(_elapsed) => Err("it is not there".to_owned()),
            }
        })
        .await?;
    }
    Ok(())
}

async fn connect(address: SocketAddr) -> anyhow::Result<Connection> {
    let identity = Identity {
        client_id: "bench-retained".to_owned(),
        login: None,
        keep_alive_s: 60,
    };
    Ok(Connection::open(address, &identity).await?.0)
}

/// Saves again and again under saturated CPU.
pub async fn run(lab: &Lab, system: System, effort: &Effort, name: &str) -> anyhow::Result<Outcome> {
    let mut rig = Rig::start(lab, system, effort.sessions, name).await?;
    let mut outcome = Outcome {
        false_failovers: Some(0),
        ..Outcome::default()
    };
    let busy = Busy::start();
    let start = Instant::now();
    for _ in 0..effort.saves {
        // Whoever was moved has a new primary.
        (rig.primary, rig.backup) = system.order(lab).await?;
        let marks = LogMarks::now(lab);
        let file = lab.log_dir(rig.primary.as_str()).join("mosquitto.db");
        let before = modified(&file);
        let saving = Instant::now();
        lab.save(rig.primary.as_str())?;
        wait_until("a save", DEADLINE, async || match modified(&file) {
            now if now == before => Err("the file is the old one"),
            _ => Ok(()),
        })
        .await
        .with_context(|| format!("{} does not save", rig.primary))?;
        outcome.saves.push(saving.elapsed());
        sleep(SETTLE).await;
        outcome.back.push(Some(rig.service.longest_gap(saving)));
        note_failover(&mut outcome, &rig, &marks, saving)?;
    }
    drop(busy);
    outcome.stuck = rig.sessions - rig.fleet.wait_answering(effort.cap).await;
    outcome.note_sessions(&rig, start, 0, |_| true);
    rig.finish().await?;
    Ok(outcome)
}

fn modified(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|file| file.modified()).ok()
}

/// Threads that do nothing, as fast as they can; they end when this is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores * BUSY {
            let over = Arc::clone(&over);
            std::thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Self(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
