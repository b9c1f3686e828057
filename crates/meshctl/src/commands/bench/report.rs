//! The figures of `meshctl bench mesh`, as JSON and as tables.
//!
//! Absolute figures depend on the machine, so each comes with the ratio to its peer. A ratio is the median of
//! the ratios of each round, in which all networks were measured one after the other, with what it is sure within.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::crash::{Crashes, RATE};
use super::middle::Middle;
use super::networks::Kind;
use super::path::Path;
use super::size::Size;
use super::speed::{Burst, Latency, Load};

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Throughput and CPU, by load.
    pub speed: Vec<SpeedRow>,
    /// Latency, by path and load.
    pub latency: Vec<LatencyRow>,
    /// The primary killed under load.
    pub crashes: Crashes,
    /// Meshes of several sizes.
    pub sizes: Vec<Size>,
}

/// One load on all networks.
#[derive(Debug, Serialize)]
pub struct SpeedRow {
    /// The load.
    pub load: Load,
    /// The networks, the mesh first.
    pub networks: Vec<NetworkSpeed>,
    /// The mesh over the star, which has no plugin and fewer links.
    pub mesh_to_star: Ratio,
    /// The mesh over the same brokers and links without the plugin: the cost of the plugin alone.
    pub mesh_to_stock_fan: Ratio,
    /// The mesh over the one without stamps: the cost of everything but split horizon.
    pub mesh_to_unstamped: Ratio,
}

/// One network over another.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratio {
    /// Of messages a second.
    pub throughput: Middle,
    /// Of CPU for a delivery.
    pub cpu: Option<Middle>,
}

impl Ratio {
    /// Medians of the ratios of each round.
    fn new(bursts: &[Burst], peers: &[Burst]) -> Self {
        let pairs = || bursts.iter().zip(peers);
        Self {
            throughput: Middle::of(pairs().map(|(burst, peer)| burst.per_s / peer.per_s)),
            cpu: Middle::of_known(
                pairs().map(|(burst, peer)| Some(burst.cpu_us_per_delivery? / peer.cpu_us_per_delivery?)),
            ),
        }
    }
}

/// One network under one load.
#[derive(Debug, Serialize)]
pub struct NetworkSpeed {
    /// Which.
    pub kind: Kind,
    /// Median of messages a second.
    pub per_s: f64,
    /// Median of the CPU of all brokers together for one delivery, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// Deliveries that did not happen, in all rounds.
    pub missing: u64,
    /// Deliveries too many, in all rounds.
    pub twice: u64,
}

impl SpeedRow {
    /// From the rounds of each network, in the order of `kinds`.
    pub fn new(load: Load, kinds: &[Kind], bursts: &[Vec<Burst>]) -> Self {
        let networks = kinds.iter().zip(bursts).map(|(kind, rounds)| NetworkSpeed {
            kind: *kind,
            per_s: median(rounds.iter().map(|burst| burst.per_s)),
            cpu_us_per_delivery: Middle::of_known(rounds.iter().map(|burst| burst.cpu_us_per_delivery))
                .map(|middle| middle.median),
            missing: rounds.iter().map(|burst| burst.missing).sum(),
            twice: rounds.iter().map(|burst| burst.twice).sum(),
        });
        let of = |kind| {
            let place = kinds.iter().position(|candidate| *candidate == kind);
            place.map_or(&[][..], |place| &bursts[place])
        };
        Self {
            load,
            networks: networks.collect(),
            mesh_to_star: Ratio::new(of(Kind::Mesh), of(Kind::Star)),
            mesh_to_stock_fan: Ratio::new(of(Kind::Mesh), of(Kind::StockFan)),
            mesh_to_unstamped: Ratio::new(of(Kind::Mesh), of(Kind::Unstamped)),
        }
    }
}

/// One path under one load.
#[derive(Debug, Serialize)]
pub struct LatencyRow {
    /// The way.
    pub path: Path,
    /// The load.
    pub load: Load,
    /// Medians of the mesh's rounds.
    pub mesh: Latency,
    /// Medians of the star's rounds.
    pub star: Latency,
    /// p50 of the mesh over that of the star.
    pub p50_to_star: Middle,
    /// p99 of the mesh over that of the star.
    pub p99_to_star: Middle,
}

impl LatencyRow {
    /// From the rounds of both networks.
    pub fn new(path: Path, load: Load, mesh: &[Latency], star: &[Latency]) -> Self {
        let medians = |rounds: &[Latency]| Latency {
            p50_us: median(rounds.iter().map(|latency| latency.p50_us)),
            p99_us: median(rounds.iter().map(|latency| latency.p99_us)),
        };
        let pairs = || mesh.iter().zip(star);
        Self {
            path,
            load,
            mesh: medians(mesh),
            star: medians(star),
            p50_to_star: Middle::of(pairs().map(|(mesh, star)| mesh.p50_us / star.p50_us)),
            p99_to_star: Middle::of(pairs().map(|(mesh, star)| mesh.p99_us / star.p99_us)),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Middle::of(values).median
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Throughput: one publisher on the first broker, five subscribers, one a broker where there are five\n"
        )?;
        writeln!(f, "{}\n", self.speed_table())?;
        writeln!(
            f,
            "The mesh to its peers: to the star; to the fan, which is the mesh without the plugin and with messages on\n\
             the links from the first broker only; and to a mesh whose plugin only keeps messages from looping\n\
             (medians of all rounds; in brackets, within what they are certain at 95 %, or of less than six rounds the\n\
             least and the greatest)\n"
        )?;
        writeln!(f, "{}\n", self.ratio_table())?;
        if self.latency.is_empty() {
            return Ok(());
        }
        writeln!(f, "Latency at 1,000 messages a second, in microseconds\n")?;
        writeln!(f, "{}\n", self.latency_table())?;
        let Crashes {
            kills,
            acknowledged,
            missing,
            twice,
        } = self.crashes;
        writeln!(
            f,
            "Primary killed (SIGKILL) {kills} times under {RATE} QoS 1 messages a second: {acknowledged} \
             acknowledged, {missing} of them missing at another broker, {twice} twice\n"
        )?;
        writeln!(f, "Meshes of several sizes, QoS 0, 64 bytes, five subscribers\n")?;
        write!(f, "{}", self.size_table())
    }
}

impl Report {
    fn speed_table(&self) -> Table {
        let mut table = table(["LOAD", "NETWORK", "MSG/S", "CPU US/DELIVERY", "MISSING", "TWICE"]);
        for row in &self.speed {
            for network in &row.networks {
                table.add_row([
                    row.load.to_string(),
                    network.kind.to_string(),
                    figure(Some(network.per_s), 0),
                    figure(network.cpu_us_per_delivery, 2),
                    network.missing.to_string(),
                    network.twice.to_string(),
                ]);
            }
        }
        table
    }

    fn ratio_table(&self) -> Table {
        let mut table = table(["LOAD", "PEER", "MSG/S", "CPU US/DELIVERY"]);
        for row in &self.speed {
            let peers = [
                (Kind::Star, row.mesh_to_star),
                (Kind::StockFan, row.mesh_to_stock_fan),
                (Kind::Unstamped, row.mesh_to_unstamped),
            ];
            for (kind, Ratio { throughput, cpu }) in peers {
                table.add_row([
                    row.load.to_string(),
                    kind.to_string(),
                    throughput.to_string(),
                    cpu.map_or("?".to_owned(), |cpu| cpu.to_string()),
                ]);
            }
        }
        table
    }

    fn latency_table(&self) -> Table {
        let mut table = table([
            "PATH",
            "QOS",
            "BYTES",
            "MESH P50",
            "P99",
            "STAR P50",
            "P99",
            "P50 TO STAR",
            "P99 TO STAR",
        ]);
        for row in &self.latency {
            table.add_row([
                row.path.to_string(),
                row.load.qos.to_string(),
                row.load.payload.to_string(),
                figure(Some(row.mesh.p50_us), 0),
                figure(Some(row.mesh.p99_us), 0),
                figure(Some(row.star.p50_us), 0),
                figure(Some(row.star.p99_us), 0),
                row.p50_to_star.to_string(),
                row.p99_to_star.to_string(),
            ]);
        }
        table
    }

    fn size_table(&self) -> Table {
        let mut table = table([
            "BROKERS",
            "LINKS",
            "CPU US/DELIVERY",
            "KIB/BROKER",
            "KIB/LINK",
            "MISSING",
            "TWICE",
        ]);
        for size in &self.sizes {
            table.add_row([
                size.brokers.to_string(),
                size.links.to_string(),
                figure(size.cpu_us_per_delivery, 2),
                figure(size.memory_kib.map(|kib| kib as f64), 0),
                figure(size.memory_kib_per_link, 0),
                size.missing.to_string(),
                size.twice.to_string(),
            ]);
        }
        table
    }
}

/// A table without lines, its columns to the right.
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number with `decimals` places; `?` for unknown.
pub(super) fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or("?".to_owned(), |value| format!("{value:.decimals$}"))
}
