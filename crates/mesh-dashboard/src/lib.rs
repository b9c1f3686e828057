//! The page: shows the network live, and afterwards what happened.
//!
//! It only reads and asks. [`feed`] follows mesh-health and holds what is known; [`routes`] tell it, as JSON and as a
//! stream; [`assets`] are the page itself; [`security`] decides who may have any of it. Whatever is away, the page says
//! so and goes on with the rest: nothing of MQTT depends on this program.

pub mod archive;
pub mod assets;
pub mod feed;
pub mod metrics;
pub mod openapi;
mod problem;
pub mod routes;
pub mod security;
pub mod wire;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use axum::http::HeaderValue;
use mesh_runtime::Config;
use mesh_runtime::notify;
use mesh_runtime::secrets::{self, Secrets};
use mesh_runtime::shutdown::Tasks;
use tokio::net::TcpListener;

use crate::archive::Archive;
use crate::assets::Assets;
use crate::feed::upstream::Upstream;
use crate::feed::{Feed, follower, tail};
use crate::metrics::Counters;
use crate::routes::App;
use crate::routes::flow::Flow;
use crate::security::Guard;

/// What the page shows to mesh-health, if that asks for operators: whoever has logged in to the page is one.
fn operator(config: &Config) -> anyhow::Result<Option<HeaderValue>> {
    let security = &config.security;
    if !security.operators_only || config.dashboard.token_file.is_none() {
        return Ok(None);
    }
    let operator = secrets::operator(&security.secrets_dir)?;
    let mut shown = HeaderValue::from_str(&format!("Bearer {operator}"))?;
    shown.set_sensitive(true);
    Ok(Some(shown))
}

/// Serves the page for the network of `config` on `listener` until `shutdown` completes.
///
/// # Errors
///
/// If the token or what operators show cannot be read, or if a part of the daemon ends that must not, or does not end when
/// asked to.
pub async fn run(
    config: &Config,
    assets: Option<PathBuf>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut tasks = Tasks::new();
    let token = tasks.token();
    let counters = Arc::new(Counters::default());
    let feed = Arc::new(Feed::new(config.dashboard.max_streams, Arc::clone(&counters)));
    let told = Arc::clone(&feed);
    let upstream = Upstream::new(config.health.listen, operator(config)?);
    let (hints, hinted) = tokio::sync::mpsc::channel(256);
    let follower = follower::Follower::new(Arc::clone(&feed), upstream.clone());
    tasks.spawn("follower", follower.run(hinted, token.clone()));
    tasks.spawn(
        "listener",
        follower::listen(upstream.clone(), hints, token.clone()),
    );
    let archive = Arc::new(Archive::new(config.logs.database.clone()));
    tasks.spawn(
        "tail",
        tail::watch(Arc::clone(&feed), Arc::clone(&archive), token.clone()),
    );

    let secrets = Secrets::load(&config.security.secrets_dir)
        .inspect_err(|error| tracing::warn!(%error, "no test messages can be sent from the page"));
    let app = App {
        feed,
        upstream,
        archive,
        brokers: config.topology.ids().cloned().collect(),
        counters,
        assets: Arc::new(Assets::new(assets)),
        flow: Arc::new(Flow::new(config, secrets.ok())),
        shutdown: token.clone(),
    };
    let guard = Guard::load(&config.dashboard).context("cannot protect the page")?;
    let router = routes::router(app, guard);
    tasks.spawn("page", {
        let token = token.clone();
        async move {
            let served = mesh_runtime::http::serve(listener, router, token).await;
            if let Err(error) = served {
                tracing::error!(%error, "the page cannot be served");
            }
        }
    });

    let how_it_goes = move || format!("{} event streams", told.open_streams());
    tasks.spawn("service", notify::tell(how_it_goes, token));
    Ok(tasks.work_until(shutdown).await?)
}
