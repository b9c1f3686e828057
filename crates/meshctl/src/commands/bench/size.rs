//! What a larger mesh costs.

use serde::Serialize;

use super::networks::{self, Kind};
use super::speed::{Load, burst};
use super::usage;

/// The sizes that are tried.
pub const SIZES: [usize; 4] = [3, 5, 8, 12];

/// A mesh of one size.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Size {
    /// Brokers.
    pub brokers: usize,
    /// Links in all.
    pub links: usize,
    /// CPU of all brokers together for one delivery to one of five subscribers, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// Memory of one broker with its links, in KiB.
    pub memory_kib: Option<u64>,
    /// What one link adds to the memory of the two brokers at its ends together, in KiB.
    pub memory_kib_per_link: Option<f64>,
    /// Deliveries that did not happen.
    pub missing: u64,
    /// Deliveries too many.
    pub twice: u64,
}

/// Starts, measures and ends a mesh of `brokers`. `alone` is the memory of a broker without links, in bytes.
pub async fn run(brokers: usize, messages: u32, alone: Option<u64>) -> anyhow::Result<Size> {
    let lab = networks::start(Kind::Mesh, brokers).await?;
    let memory = usage::memory(&lab);
    let burst = burst(&lab, Load::ALL[0], messages).await?;
    lab.stop().await?;
    // Each of its peers has a link out of a broker and one into it; each link has two ends.
    let per_link = |memory: u64, alone: u64| (memory as f64 - alone as f64) / (brokers as f64 - 1.0) / 1024.0;
    Ok(Size {
        brokers,
        links: brokers * (brokers - 1),
        cpu_us_per_delivery: burst.cpu_us_per_delivery,
        memory_kib: memory.map(|bytes| bytes / 1024),
        memory_kib_per_link: memory.zip(alone).map(|(memory, alone)| per_link(memory, alone)),
        missing: burst.missing,
        twice: burst.twice,
    })
}

/// The memory of a broker with the plugin and without links, in bytes.
pub async fn alone() -> anyhow::Result<Option<u64>> {
    let lab = networks::start(Kind::Mesh, 1).await?;
    let memory = usage::memory(&lab);
    lab.stop().await?;
    Ok(memory)
}
