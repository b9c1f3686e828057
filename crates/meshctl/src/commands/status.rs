//! `meshctl status`: what mesh-health knows, as a table, as JSON, or again and again.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use jiff::{SignedDuration, Timestamp};
use mesh_model::{AdminState, BrokerSnapshot, HealthStatus, LinkState, Snapshot};

use crate::ask;
use crate::find::NetworkArgs;

/// Flags of `meshctl status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// Print the answer of GET /v1/status as it is
    #[arg(long)]
    json: bool,

    /// Print it again each second until interrupted
    #[arg(long)]
    watch: bool,
}

const EVERY: Duration = Duration::from_secs(1);

/// With fewer messages on their way a link is as it should be.
const WORTH_SAYING: u64 = 1000;

/// Shows the status. The exit code is 0 if there is one, whatever it says.
pub async fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let config = args.network.load()?;
    loop {
        let answer = ask::get(config.health.listen, "/v1/status").await;
        let text = match answer.and_then(|body| if args.json { Ok(body) } else { table(&body) }) {
            Ok(text) => text,
            Err(error) if args.watch => format!("{error:#}"),
            Err(error) => return Err(error),
        };
        show(text.trim_end(), args.watch)?;
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn show(text: &str, watch: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if watch && out.is_terminal() {
        // Clear the screen and go home: ECMA-48, ED and CUP.
        write!(out, "\x1b[2J\x1b[H")?;
    }
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// The snapshot in `body` for human eyes.
fn table(body: &str) -> anyhow::Result<String> {
    let snapshot: Snapshot = serde_json::from_str(body).context("mesh-health's answer is not a status")?;
    let mut text = headline(&snapshot);
    text += &format!("\n\n{}\n", broker_table(&snapshot));
    text += &links(&snapshot);
    Ok(text)
}

fn headline(snapshot: &Snapshot) -> String {
    let healthy = snapshot
        .brokers
        .iter()
        .filter(|broker| broker.health == HealthStatus::Healthy)
        .count();
    let backup = snapshot
        .backup
        .as_ref()
        .map_or("none".to_owned(), ToString::to_string);
    let balancer = match (&snapshot.balancer.error, snapshot.balancer.confirmed) {
        (Some(error), _) => error.clone(),
        (None, true) => format!("runs generation {}", snapshot.generation),
        (None, false) => format!("does not yet run generation {}", snapshot.generation),
    };
    let mut text = format!(
        "{}: {healthy} of {} brokers healthy, primary {}, backup {backup}\nbalancer: {balancer}",
        snapshot.state,
        snapshot.brokers.len(),
        snapshot.primary,
    );
    if let Some(error) = &snapshot.balancer.move_error {
        text += &format!("\nsessions cannot be moved off a broker: {error}");
    }
    text
}

/// Why a broker is as it is, and what the operator wants of it.
fn remarks(broker: &BrokerSnapshot) -> String {
    let admin = match (broker.admin, broker.sessions_left) {
        (AdminState::Enabled, _) => None,
        (AdminState::Draining, Some(left)) => Some(format!("draining, {left} sessions left")),
        (admin, _) => Some(admin.to_string()),
    };
    let in_sync = broker.retained.as_ref().and_then(|retained| retained.in_sync);
    let lacks = (in_sync == Some(false)).then(|| "not in sync".to_owned());
    let all = [admin, broker.reason.clone(), lacks];
    all.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn broker_table(snapshot: &Snapshot) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "BROKER", "ADDRESS", "ROLE", "HEALTH", "SINCE", "RTT MS", "CLIENTS", "IN/S", "OUT/S", "RETAINED",
        "REASON",
    ]);
    for index in 5..10 {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for broker in &snapshot.brokers {
        table.add_row([
            broker.id.to_string(),
            broker.address.to_string(),
            broker.role.map_or("-".to_owned(), |role| role.to_string()),
            broker.health.to_string(),
            age(snapshot.at, broker.since),
            figure(broker.rtt_ms, 2),
            whole(broker.clients),
            figure(broker.in_per_s, 1),
            figure(broker.out_per_s, 1),
            whole(broker.retained.as_ref().map(|retained| retained.count)),
            remarks(broker),
        ]);
    }
    table
}

fn links(snapshot: &Snapshot) -> String {
    let count = |state| snapshot.links.iter().filter(|link| link.state == state).count();
    let mut slowest: Option<f64> = None;
    for latency in snapshot.links.iter().filter_map(|link| link.latency_ms) {
        slowest = Some(slowest.map_or(latency, |slowest| slowest.max(latency)));
    }
    let mut text = format!(
        "\nlinks: {} up, {} down, {} unknown, slowest {} ms\n",
        count(LinkState::Up),
        count(LinkState::Down),
        count(LinkState::Unknown),
        figure(slowest, 2),
    );
    for link in snapshot.links.iter().filter(|link| link.state == LinkState::Down) {
        text += &format!("  down: {} → {}\n", link.from, link.to);
    }
    for link in &snapshot.links {
        let (backlog, lost) = (link.backlog.unwrap_or(0), link.lost.unwrap_or(0));
        if backlog > WORTH_SAYING || lost > 0 {
            text += &format!(
                "  {} → {}: {backlog} messages wait, {lost} lost\n",
                link.from, link.to
            );
        }
    }
    text
}

/// A count; `?` for unknown.
fn whole(value: Option<u64>) -> String {
    value.map_or("?".to_owned(), |value| value.to_string())
}

/// A number with `decimals` places; `?` for unknown.
fn figure(value: Option<f64>, decimals: usize) -> String {
    value.map_or("?".to_owned(), |value| format!("{value:.decimals$}"))
}

/// How long before `now` `then` was, in whole seconds.
fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    format!("{:#}", SignedDuration::from_secs(seconds))
}
