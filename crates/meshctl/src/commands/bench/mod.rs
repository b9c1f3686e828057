//! `meshctl bench`: figures, each with its peers measured in the same run.

mod crash;
mod mesh;
mod networks;
mod report;
mod size;
mod speed;
mod usage;

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
}

/// Runs a bench on networks of its own, on loopback.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Mesh(args) => mesh::run(args).await,
    }
}
