//! Reads every log line of the mesh, once, into SQLite.
//!
//! [`core`] knows what lines mean and touches nothing; [`shell`] reads files, journals and topics, and writes the
//! database. This module puts them together: sources hand chunks of lines to one pipeline over a short channel. While
//! the pipeline cannot store, the channel is full and sources read no more.

pub mod core;
pub mod shell;

use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use mesh_runtime::Config;
use mesh_runtime::config::SourceKind;
use mesh_runtime::notify;
use mesh_runtime::secrets::Secrets;
use mesh_runtime::shutdown::Tasks;
use mesh_store::{Reader, Writer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::core::Tracker;
use shell::gather::Gatherer;
use shell::pipeline::{Pipeline, in_full};
use shell::status::Status;
use shell::{api, feed, files, journal, mqtt};

/// Chunks between the sources and the pipeline. Most have some hundred lines.
const CHANNEL: usize = 8;

/// Reads the sources of `config` into its database, and answers on `listener`, until `shutdown` completes.
///
/// # Errors
///
/// If the database cannot be written, if it turns out to be damaged (the next start begins a new one), or if a part of
/// the daemon ends that must not.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let logs = config.logs.clone();
    let (mut writer, opened) = Writer::open(&logs.database).await?;
    if let Some(aside) = &opened.set_aside {
        let aside = aside.display().to_string();
        tracing::error!(
            aside,
            "the database was damaged; it was set aside and a new one begun"
        );
    }
    let (open, proxied, next_id) = writer.open_sessions().await?;
    let tracker = Tracker::new(
        &config.topology,
        config.balancer.proxy_bind,
        open,
        proxied,
        next_id,
    );
    let reader = Reader::open(&logs.database).await?;
    let status = Arc::new(Status::default());
    let pipeline = Pipeline::new(writer, &logs, Arc::clone(&status)).await?;
    let gatherer = Gatherer::new(tracker, logs.batch_delay, Arc::clone(&status));
    let (orders, ordered) = mpsc::channel(CHANNEL);
    let (work, to_do) = mpsc::channel(1);

    let mut tasks = Tasks::new();
    let token = tasks.token();
    let (damaged, mut damage) = oneshot::channel();
    let until = token.clone();
    tasks.spawn("pipeline", async move {
        if let Err(error) = pipeline.run(to_do, until).await {
            // Nobody waits for it any more when the program ends anyway.
            damaged.send(error).ok();
        }
    });
    tasks.spawn("gatherer", gatherer.run(ordered, work, token.clone()));
    tasks.spawn(
        "api",
        serve(listener, api::router(Arc::clone(&status)), token.clone()),
    );
    for source in &logs.sources {
        let (source, orders, status) = (source.clone(), orders.clone(), Arc::clone(&status));
        match source.kind.clone() {
            SourceKind::File(_) => {}
            SourceKind::Journal(command) => {
                let reading = journal::run(source, command, orders, status);
                tasks.spawn("journal", until_cancelled(token.clone(), reading));
            }
            SourceKind::Mqtt(address) => {
                let secrets = Secrets::load(&config.security.secrets_dir)?;
                let reading = mqtt::run(source, address, secrets, orders, status);
                tasks.spawn("mqtt", until_cancelled(token.clone(), reading));
            }
        }
    }
    let feeding = feed::run(config.health.listen, orders.clone(), Arc::clone(&status), reader);
    tasks.spawn("feed", until_cancelled(token.clone(), feeding));
    let (for_files, files_status, until) = (logs.clone(), Arc::clone(&status), token.clone());
    let reading = tokio::task::spawn_blocking(move || files::run(&for_files, &orders, &files_status, &until));
    tasks.spawn("files", async move {
        if let Err(error) = reading.await {
            tracing::error!(%error, "reading files failed");
        }
    });
    tasks.spawn("service", notify::tell(move || how_it_goes(&status), token));

    let ended = tasks.work_until(shutdown).await;
    if let Ok(error) = damage.try_recv() {
        return Err(error)
            .context("the database is damaged; at the next start it is set aside and a new one begun");
    }
    Ok(ended?)
}

async fn until_cancelled(token: CancellationToken, work: impl Future<Output = ()>) {
    token.run_until_cancelled(work).await;
}

async fn serve(listener: TcpListener, router: axum::Router, token: CancellationToken) {
    let served = mesh_runtime::http::serve(listener, router, token).await;
    if let Err(error) = served {
        tracing::error!(error = in_full(&error), "the API ended");
    }
}

/// How it goes, for the service manager.
fn how_it_goes(status: &Status) -> String {
    match status.stall() {
        Some(stall) => format!("sources wait: {}", stall.error),
        None => {
            let lines: u64 = status.sources().iter().map(|source| source.stored.lines).sum();
            format!("{lines} lines stored")
        }
    }
}
