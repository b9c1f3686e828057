//! The daemon `mesh-logs`: arguments, configuration, telemetry; the rest is in the library.

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mesh_runtime::{Config, ConfigArgs, EXIT_CONFIG, http, shutdown, telemetry};

/// Reads every log line of the mesh, once, into SQLite.
#[derive(Debug, Parser)]
#[command(name = "mesh-logs", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mesh-logs: {:#}", anyhow::Error::new(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-logs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&config.log, "mesh-logs")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = http::bind(config.logs.listen).await?;
        let signal = shutdown::requested();
        tracing::info!(address = %config.logs.listen, database = %config.logs.database.display(), "mesh-logs serves");
        let stop = async {
            match signal.await {
                Ok(signal) => tracing::info!(signal, "asked to end"),
                Err(error) => tracing::error!(%error, "cannot be told of signals"),
            }
        };
        mesh_logs::run(config, listener, stop).await
    })
}
