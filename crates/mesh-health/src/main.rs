//! The daemon `mesh-health`: arguments, configuration, telemetry; the rest is in the library.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mesh_runtime::secrets::Secrets;
use mesh_runtime::{Config, ConfigArgs, EXIT_CONFIG, http, shutdown, telemetry};

/// Watches the brokers of the mesh, decides which one serves clients, and tells Nginx.
#[derive(Debug, Parser)]
#[command(name = "mesh-health", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mesh-health: {:#}", anyhow::Error::new(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-health: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&config.log, "mesh-health")?;
    let secrets = Secrets::load(&config.security.secrets_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = http::bind(config.health.listen).await?;
        let signal = shutdown::requested();
        tracing::info!(address = %config.health.listen, "mesh-health serves");
        let stop = async {
            match signal.await {
                Ok(signal) => tracing::info!(signal, "asked to end"),
                Err(error) => tracing::error!(%error, "cannot be told of signals"),
            }
        };
        mesh_health::run(config, secrets, listener, stop).await
    })
}
