//! `meshctl`: what an operator of the mesh types.

mod ask;
mod commands;
mod find;
mod mosquitto_conf;
mod own_directives;
mod password_file;
mod takeover;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mesh_render::RenderError;
use mesh_runtime::{ConfigError, EXIT_CONFIG};

use commands::{
    balancer, bench, chaos, check, db, diff, import, incidents, lab, logs, operate, render, status, user,
};

/// Operate a network of Mosquitto brokers that act as one.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole network on this machine, and break it
    Lab(lab::LabArgs),
    /// Show who serves, who is well, and whether messages pass
    Status(status::StatusArgs),
    /// Show the faults of late, and how long each step took
    Incidents(incidents::IncidentsArgs),
    /// Show the topics on which two brokers retain different values; exit code 1 if there are any
    Diff(diff::DiffArgs),
    /// Search every log line of the network, and follow new ones
    Logs(logs::LogsArgs),
    /// Look after the database of log lines
    Db(db::DbArgs),
    /// Send the clients back to the most preferred broker
    Failback(operate::FailbackArgs),
    /// Have a broker take no new clients and hand over those it has
    Drain(operate::RetireArgs),
    /// Have a broker serve nobody
    Disable(operate::RetireArgs),
    /// Let a broker serve again
    Enable(operate::EnableArgs),
    /// Say who may connect: users and their passwords
    User(user::UserArgs),
    /// Run Nginx as mesh.toml says, as its unit does
    Balancer(balancer::BalancerArgs),
    /// Measure it on this machine, with its peers in the same run
    Bench(bench::BenchArgs),
    /// Break a lab again and again under hundreds of clients, and say what became of every message
    Chaos(chaos::ChaosArgs),
    /// Say whether mesh.toml is right; exit code 64 if not
    Check(check::CheckArgs),
    /// Take over the configuration of a Mosquitto, with its users and retained messages, and say what became of it
    Import(import::ImportArgs),
    /// Write the configuration of every broker and of Nginx
    Render(render::RenderArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Lab(args) => lab::run(args).await,
        Command::Status(args) => status::run(args).await,
        Command::Incidents(args) => incidents::run(args).await,
        Command::Diff(args) => diff::run(args).await,
        Command::Logs(args) => logs::run(args).await,
        Command::Db(args) => db::run(args).await,
        Command::Failback(args) => operate::failback(args).await,
        Command::Drain(args) => operate::drain(args).await,
        Command::Disable(args) => operate::disable(args).await,
        Command::Enable(args) => operate::enable(args).await,
        Command::User(args) => user::run(args),
        Command::Balancer(args) => balancer::run(&args),
        Command::Bench(args) => bench::run(args).await,
        Command::Chaos(args) => chaos::run(args).await,
        Command::Check(args) => check::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Render(args) => render::run(&args),
    };
    match result {
        Ok(code) => code,
        // Whoever read our output has seen enough, e.g. `meshctl status | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshctl: {error:#}");
            if error.is::<ConfigError>() || error.is::<RenderError>() {
                EXIT_CONFIG.into()
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kinds = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    kinds
        .map(std::io::Error::kind)
        .any(|kind| kind == std::io::ErrorKind::BrokenPipe)
}
