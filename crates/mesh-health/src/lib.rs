//! Watches the brokers, decides which one serves, and tells Nginx.
//!
//! [`core`] decides and touches nothing; [`shell`] touches the world and decides nothing. This module puts them
//! together.

pub mod core;
pub mod shell;

use std::future::Future;
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use mesh_runtime::Config;
use mesh_runtime::secrets::{self, Secrets};
use mesh_runtime::shutdown::Tasks;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::core::Core;
use shell::announce::Announcer;
use shell::balancer::Balancer;
use shell::clock::{Clock, Jitter};
use shell::driver::{Driver, Hands};
use shell::guard::Guard;
use shell::mover::Mover;
use shell::probe::Login;
use shell::wire::{self, Wall};
use shell::{api, memory, monitor, probe};

/// Watches the brokers of `config` and serves the API on `listener` until `shutdown` completes.
///
/// # Errors
///
/// If what operators show cannot be read, if the webhook cannot be used, or if a part of the daemon ends that must not, or
/// does not end when asked to.
pub async fn run(
    config: Config,
    secrets: Secrets,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let security = &config.security;
    let operator = security
        .operators_only
        .then(|| secrets::operator(&security.secrets_dir));
    let guard = Guard {
        listen: config.health.listen,
        operator: operator.transpose()?.map(Arc::from),
    };
    let health = config.health.clone();
    let topology = config.topology.clone();
    let memory_path = config.state_file();
    let kept = memory::load(&memory_path);
    let wall = Wall::new(&kept);
    let at = Timestamp::now();
    let clock = Clock::start(wire::age(&kept, at));
    let first_plan = mesh_render::first_plan(&config);
    let core = Core::new(topology.clone(), health.clone(), first_plan, clock.now());
    let core = core.recalling(wire::recalled(kept.clone(), clock.now(), at));
    let (reports, inputs) = mpsc::channel(1024);
    let (asks, asked) = mpsc::channel(16);
    let (orders, plans) = mpsc::channel(4);
    let (moves, moves_ordered) = mpsc::unbounded_channel();
    let (memory, versions) = watch::channel((0, Arc::new(kept)));
    let (written, is_written) = watch::channel(0);
    let hands = Hands {
        plans: orders,
        moves,
        memory,
        kept: is_written.clone(),
    };
    let driver = Driver::new(core, topology.clone(), health.max_loop_lag, clock, hands, wall);
    let outlets = driver.outlets();
    let snapshots = outlets.snapshots.subscribe();
    let login = Login {
        password: secrets.health,
        nonce: format!("{}-{:08x}", std::process::id(), Jitter::new().draw() as u32),
    };

    let mut tasks = Tasks::new();
    let token = tasks.token();
    for announcer in Announcer::all(&config.announce, &outlets)? {
        tasks.spawn("announcer", announcer.run(token.clone()));
    }
    let router = api::router(guard, outlets, asks, clock, token.clone());
    tasks.spawn("api", serve(listener, router, token.clone()));
    tasks.spawn("core", driver.run(inputs, asked, token.clone()));
    let keeping = memory::keep(memory_path, versions, written, token.clone());
    tasks.spawn("memory", keeping);
    let mover = Mover::new(&config, reports.clone(), snapshots);
    tasks.spawn("mover", mover.run(moves_ordered, token.clone()));
    let balancer = Balancer::new(config, reports.clone(), is_written);
    tasks.spawn("balancer", balancer.run(plans, token.clone()));
    for broker in topology.brokers() {
        let asking = probe::run(broker.clone(), health.clone(), login.clone(), reports.clone());
        tasks.spawn(
            "probe",
            token.clone().run_until_cancelled_owned(asking).discarded(),
        );
        let watching = monitor::run(
            broker.clone(),
            health.clone(),
            login.clone(),
            clock,
            reports.clone(),
        );
        tasks.spawn(
            "monitor",
            token.clone().run_until_cancelled_owned(watching).discarded(),
        );
    }
    drop(reports);

    Ok(tasks.work_until(shutdown).await?)
}

async fn serve(listener: TcpListener, router: axum::Router, token: tokio_util::sync::CancellationToken) {
    let served = mesh_runtime::http::serve(listener, router, token).await;
    if let Err(error) = served.context("the API cannot be served") {
        tracing::error!(error = format!("{error:#}"), "the API ended");
    }
}

/// Drops what a future completes with.
trait Discarded: Future {
    fn discarded(self) -> impl Future<Output = ()>;
}

impl<F: Future> Discarded for F {
    async fn discarded(self) {
        self.await;
    }
}
