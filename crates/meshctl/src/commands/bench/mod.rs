//! `meshctl bench`: figures, each with its peers measured in the same run.

mod crash;
mod dashboard;
mod failover;
mod logs;
mod mesh;
mod middle;
mod networks;
mod path;
mod report;
mod retained;
mod size;
mod speed;
mod times;
mod usage;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Subcommand;

/// Flags of `meshctl bench`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The mesh against a star of stock brokers and a single one: speed, cost, loss
    Mesh(mesh::MeshArgs),
    /// Very many retained messages: memory, restart, a broker that joins with nothing
    Retained(retained::RetainedArgs),
    /// Brokers that die, hang or vanish, behind mesh-health, HAProxy and Nginx alone
    Failover(failover::FailoverArgs),
    /// Log lines into the database and out of it, beside plain inserts and rsyslog
    Logs(logs::LogsArgs),
    /// The page: how soon a browser shows what happens, and what the server costs
    Dashboard(dashboard::DashboardArgs),
}

/// Runs a bench on networks of its own, on loopback.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Mesh(args) => mesh::run(args).await,
        Command::Retained(args) => retained::run(args).await,
        Command::Failover(args) => failover::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Dashboard(args) => dashboard::run(args).await,
    }
}

/// One line of progress on standard error: the same line again and again on a terminal.
fn say(text: &str) {
    let mut err = std::io::stderr().lock();
    // Progress that cannot be shown is no reason to stop measuring.
    if err.is_terminal() {
        write!(err, "\r\x1b[K{text}").and_then(|()| err.flush()).ok();
    } else if !text.is_empty() {
        writeln!(err, "{text}").ok();
    }
}
