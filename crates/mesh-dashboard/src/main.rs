//! The daemon `mesh-dashboard`: arguments; the rest is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mesh_runtime::{Config, ConfigArgs, daemon};

/// Serves the page that shows the network.
#[derive(Debug, Parser)]
#[command(name = "mesh-dashboard", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,

    /// Serve the page's files from this folder instead of those inside the program, to work on them
    #[arg(long, value_name = "DIR")]
    assets: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let listen = |config: &Config| config.dashboard.listen;
    daemon::main(
        "mesh-dashboard",
        &args.config,
        listen,
        async |config, listener, stop| mesh_dashboard::run(&config, args.assets, listener, stop).await,
    )
}
