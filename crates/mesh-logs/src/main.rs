//! The daemon `mesh-logs`: arguments; the rest is in the library.

use std::process::ExitCode;

use clap::Parser;
use mesh_runtime::{Config, ConfigArgs, daemon};

/// Reads every log line of the mesh, once, into SQLite.
#[derive(Debug, Parser)]
#[command(name = "mesh-logs", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let listen = |config: &Config| config.logs.listen;
    daemon::main("mesh-logs", &args.config, listen, mesh_logs::run)
}
