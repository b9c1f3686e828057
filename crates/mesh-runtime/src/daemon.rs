//! What the `main` of every daemon does: configuration, telemetry, a place to answer, signals, and the exit code.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::config::{Config, ConfigArgs, EXIT_CONFIG};
use crate::{http, shutdown, telemetry};

/// Threads of a daemon, beside those for what blocks.
const THREADS: usize = 2;

/// Completes when the daemon is asked to end.
pub type Requested = WaitForCancellationFutureOwned;

/// Runs the daemon `name` until SIGTERM or SIGINT: loads the configuration that `args` name, begins logging, listens at
/// the address that `listen` takes from the configuration, and has `run` do the rest.
///
/// The exit code is 0, [`EXIT_CONFIG`] for a wrong configuration, or 1; why, standard error tells.
pub fn main(
    name: &'static str,
    args: &ConfigArgs,
    listen: fn(&Config) -> SocketAddr,
    run: impl AsyncFnOnce(Config, TcpListener, Requested) -> anyhow::Result<()>,
) -> ExitCode {
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{name}: {:#}", anyhow::Error::new(error));
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    match start(name, config, listen, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(
    name: &'static str,
    config: Config,
    listen: fn(&Config) -> SocketAddr,
    run: impl AsyncFnOnce(Config, TcpListener, Requested) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _telemetry = telemetry::init(&config.log, name)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let address = listen(&config);
        let listener = http::bind(address).await?;
        tracing::info!(%address, "{name} serves");
        let asked = CancellationToken::new();
        tokio::spawn(tell(asked.clone()));
        run(config, listener, asked.cancelled_owned()).await
    })
}

/// Cancels `asked` at the first signal to end.
async fn tell(asked: CancellationToken) {
    match shutdown::requested().await {
        Ok(signal) => tracing::info!(signal, "asked to end"),
        Err(error) => tracing::error!(%error, "cannot be told of signals"),
    }
    asked.cancel();
}
