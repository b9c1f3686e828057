//! The daemon `mesh-dashboard`: arguments, configuration, telemetry; the rest is in the library.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mesh_runtime::{Config, ConfigArgs, EXIT_CONFIG, http, shutdown, telemetry};

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
    let config = match args.config.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mesh-dashboard: {:#}", anyhow::Error::new(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match start(&config, args.assets) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-dashboard: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: &Config, assets: Option<PathBuf>) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&config.log, "mesh-dashboard")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = http::bind(config.dashboard.listen).await?;
        let signal = shutdown::requested();
        tracing::info!(address = %config.dashboard.listen, "mesh-dashboard serves");
        let stop = async {
            match signal.await {
                Ok(signal) => tracing::info!(signal, "asked to end"),
                Err(error) => tracing::error!(%error, "cannot be told of signals"),
            }
        };
        mesh_dashboard::run(config, assets, listener, stop).await
    })
}
