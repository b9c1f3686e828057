//! The daemon `mesh-health`: arguments; the rest is in the library.

use std::process::ExitCode;

use clap::Parser;
use mesh_runtime::secrets::Secrets;
use mesh_runtime::{Config, ConfigArgs, daemon};

/// Watches the brokers of the mesh, decides which one serves clients, and tells Nginx.
#[derive(Debug, Parser)]
#[command(name = "mesh-health", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let listen = |config: &Config| config.health.listen;
    daemon::main(
        "mesh-health",
        &args.config,
        listen,
        async |config, listener, stop| {
            let secrets = Secrets::load(&config.security.secrets_dir)?;
            mesh_health::run(config, secrets, listener, stop).await
        },
    )
}
