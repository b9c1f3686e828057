//! Very many sessions at once: who is sent to the wrong broker, and how soon all leave a hung one.

use std::time::{Duration, Instant};

use mesh_lab::Lab;
use mesh_lab::fleet::LogMarks;
use serde::Serialize;

use super::effort::Effort;
use super::rig::Rig;
use super::systems::System;

/// How long a crowd may take to come back: some need a second or third SYN, for queues of that length are full.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the crowd of one system lived through. Times in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Crowd {
    /// The system.
    pub system: System,
    /// How many sessions.
    pub sessions: usize,
    /// Of all reconnecting at once with every broker well, how many were not sent to the primary.
    pub misplaced: usize,
    /// How long it took until all were connected again.
    pub reconnected_ms: f64,
    /// From the primary's hang until new clients were served elsewhere; `None` if never.
    pub service_back_ms: Option<f64>,
    /// From the hang until the last session was closed; `None` if some never were.
    pub closed_ms: Option<f64>,
    /// From the service being back until the last session was closed; 0 if all were closed by then.
    pub closed_after_switch_ms: Option<f64>,
    /// Sessions that nobody closed.
    pub not_closed: usize,
    /// From the hang until the last session had an answering broker again; `None` if some never had.
    pub all_back_ms: Option<f64>,
    /// Sessions without an answering broker at the end.
    pub stuck: usize,
    /// How many sessions each broker had after that.
    pub landed: std::collections::BTreeMap<mesh_model::BrokerId, usize>,
}

/// Lets a crowd reconnect at once, then hangs its broker.
pub async fn run(lab: &Lab, system: System, effort: &Effort, name: &str) -> anyhow::Result<Crowd> {
    let rig = Rig::start(lab, system, effort.crowd, name).await?;
    let marks = LogMarks::now(lab);
    let all_at_once = Instant::now();
    rig.fleet.reconnect();
    let connected = rig.fleet.wait_connected(DEADLINE).await;
    anyhow::ensure!(
        connected == effort.crowd,
        "{system}: only {connected} of {} sessions could reconnect",
        effort.crowd
    );
    let reconnected = all_at_once.elapsed();
    let on_primary = rig.fleet.landed(&marks)?.get(&rig.primary).copied();
    let hung = Instant::now();
    lab.hang(rig.primary.as_str()).await?;
    let cap = effort.patience(system);
    let back = rig.service.back(hung, cap).await;
    let left = if back.is_some() { DEADLINE } else { Duration::ZERO };
    let answering = rig.fleet.wait_answering(left).await;
    let since = rig.fleet.since(hung);
    let closed = since.closed.iter().max().copied();
    let closed = closed.filter(|_| since.closed.len() == effort.crowd);
    let all_back = since.outages.iter().max().copied();
    let all_back = all_back.filter(|_| answering == effort.crowd && since.outages.len() == effort.crowd);
    let landed = rig.fleet.landed(&marks)?;
    lab.resume(rig.primary.as_str()).await?;
    let crowd = Crowd {
        system,
        sessions: effort.crowd,
        misplaced: effort.crowd - on_primary.unwrap_or_default(),
        reconnected_ms: ms(reconnected),
        service_back_ms: back.map(ms),
        closed_ms: closed.map(ms),
        closed_after_switch_ms: closed
            .zip(back)
            .map(|(closed, back)| ms(closed.saturating_sub(back))),
        not_closed: effort.crowd - since.closed.len(),
        all_back_ms: all_back.map(ms),
        stuck: effort.crowd - answering,
        landed,
    };
    rig.finish().await?;
    Ok(crowd)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
