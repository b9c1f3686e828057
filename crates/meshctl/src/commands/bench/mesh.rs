//! `meshctl bench mesh`: the mesh, a star of five stock brokers and a single stock broker, interleaved.

use std::io::Write;
use std::process::ExitCode;

use super::crash::{self, Crashes};
use super::networks::{self, Kind};
use super::path::Path;
use super::report::{LatencyRow, Report, SpeedRow};
use super::say;
use super::size::{self, SIZES};
use super::speed::{Burst, Latency, Load, burst, latency};

/// Flags of `meshctl bench mesh`.
#[derive(Debug, clap::Args)]
pub struct MeshArgs {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,

    /// Few repetitions: under a minute and a half, and less certain
    #[arg(long)]
    quick: bool,

    /// Only throughput and CPU
    #[arg(long)]
    speed: bool,

    /// So many rounds, in each of which every network is measured once (default: 15, with --quick 2)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
}

/// How much is measured.
struct Effort {
    rounds: usize,
    messages: u32,
    latency_messages: u32,
    kills: u32,
    sizes: &'static [usize],
}

const FULL: Effort = Effort {
    rounds: 15,
    messages: 15_000,
    latency_messages: 500,
    kills: 20,
    sizes: &SIZES,
};
const QUICK: Effort = Effort {
    rounds: 2,
    messages: 10_000,
    latency_messages: 1000,
    kills: 3,
    sizes: &[3, 5],
};

/// Messages that each size of mesh is given.
const SIZE_MESSAGES: u32 = 10_000;

/// Messages a second while latency is measured: far below what any of the networks can do.
const LATENCY_RATE: f64 = 1000.0;

/// Runs the bench. The exit code is 1 if a message was missing or came twice.
pub async fn run(args: MeshArgs) -> anyhow::Result<ExitCode> {
    let effort = if args.quick { QUICK } else { FULL };
    let rounds = args.rounds.map_or(effort.rounds, usize::from);
    let mut report = Report::default();
    let kinds = [
        Kind::Mesh,
        Kind::Star,
        Kind::Single,
        Kind::StockFan,
        Kind::Unstamped,
    ];
    say("starting two meshes, a star and a fan of five brokers, and a single one");
    let mut labs = Vec::new();
    for kind in kinds {
        labs.push((kind, networks::start(kind, 5).await?));
    }
    for load in Load::ALL {
        let mut bursts: Vec<Vec<Burst>> = vec![Vec::new(); labs.len()];
        for round in 1..=rounds {
            say(&format!("throughput, {load}: round {round} of {rounds}"));
            for place in order(round, labs.len()) {
                bursts[place].push(burst(&labs[place].1, load, effort.messages).await?);
            }
        }
        report.speed.push(SpeedRow::new(load, &kinds, &bursts));
    }
    if args.speed {
        for (_, lab) in labs {
            lab.stop().await?;
        }
        return finish(&report, args.json);
    }
    for path in Path::ALL {
        for load in Load::ALL.into_iter().filter(|load| !load.retained) {
            let mut latencies: Vec<Vec<Latency>> = vec![Vec::new(); 2];
            for round in 1..=rounds {
                say(&format!("latency {path}, {load}: round {round} of {rounds}"));
                let (from, to) = path.ends(round, 5);
                for place in order(round, latencies.len()) {
                    latencies[place].push(
                        latency(
                            &labs[place].1,
                            load,
                            from,
                            to,
                            effort.latency_messages,
                            LATENCY_RATE,
                        )
                        .await?,
                    );
                }
            }
            report
                .latency
                .push(LatencyRow::new(path, load, &latencies[0], &latencies[1]));
        }
    }
    let (_, mesh) = &labs[0];
    report.crashes = crash::run(mesh, effort.kills, |kill| {
        say(&format!(
            "killing the primary under load: {kill} of {}",
            effort.kills
        ));
    })
    .await?;
    for (_, lab) in labs {
        lab.stop().await?;
    }
    let alone = size::alone().await?;
    for brokers in effort.sizes {
        say(&format!("a mesh of {brokers}"));
        report
            .sizes
            .push(size::run(*brokers, SIZE_MESSAGES, alone).await?);
    }
    finish(&report, args.json)
}

/// In which order `count` networks take their turns: in each round another one is the first, and when all were, it goes
/// backwards, so that none always comes behind the same one.
fn order(round: usize, count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.rotate_left(round % count);
    if (round / count) % 2 == 1 {
        places.reverse();
    }
    places
}

fn finish(report: &Report, json: bool) -> anyhow::Result<ExitCode> {
    say("");
    if json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(report)?)?;
    } else {
        writeln!(std::io::stdout(), "{report}")?;
    }
    Ok(if lost(report) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn lost(report: &Report) -> bool {
    let Crashes { missing, twice, .. } = report.crashes;
    let speed = report
        .speed
        .iter()
        .flat_map(|row| &row.networks)
        .any(|n| n.missing + n.twice > 0);
    let sizes = report.sizes.iter().any(|size| size.missing + size.twice > 0);
    missing + twice > 0 || speed || sizes
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn every_network_is_as_often_first_as_last() {
        for count in [2, 5] {
            let rounds: Vec<Vec<usize>> = (0..2 * count).map(|round| order(round, count)).collect();
            for place in 0..count {
                assert_eq!(rounds.iter().filter(|places| places[0] == place).count(), 2);
                assert_eq!(
                    rounds.iter().filter(|places| places[count - 1] == place).count(),
                    2
                );
            }
        }
        assert_eq!(order(0, 5), [0, 1, 2, 3, 4]);
        assert_eq!(order(5, 5), [4, 3, 2, 1, 0]);
    }
}
