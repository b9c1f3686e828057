//! Makes Nginx run a plan, and watches that it does.
//!
//! Guarantees: `upstream.conf` is replaced as a whole or not at all, and only by what `nginx -t` accepted beside
//! the configuration that is in place; when Nginx does not run the new generation in time, the last good file is
//! back; only the generation that Nginx answers is believed. Killed at any instant, this program leaves a file that
//! Nginx takes, and at most one scratch folder and one temporary file, which its successor removes. All of it
//! happens in a task of its own, one installation after the other, so the core never waits for it.

mod install;

use std::path::PathBuf;
use std::time::Duration;

use mesh_model::Plan;
use mesh_render::{plan_of_upstream, upstream_conf};
use mesh_runtime::Config;
use mesh_runtime::atomic_file;
use rustix::process::Pid;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::nginx;
use super::probe::chain;
use super::{Reports, report};
use crate::core::Input;
use crate::core::rollout::{Found, Look};

/// Time between two looks at what Nginx runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a reload may take until only new workers accept connections; about 100 ms were seen.
const RELOAD: Duration = Duration::from_millis(400);

const UPSTREAM: &str = "upstream.conf";

const SCRATCH_PREFIX: &str = ".candidate-";

/// A plan to install.
#[derive(Debug, Clone)]
pub struct PlanOrder {
    /// The plan.
    pub plan: Plan,
    /// The number of the version of the state file that is to be written before.
    pub after: u64,
}

/// The one who talks to Nginx.
#[derive(Debug)]
pub struct Balancer {
    config: Config,
    reports: Reports,
    /// The number of the version of the state file that is written.
    kept: watch::Receiver<u64>,
    /// The content of `upstream.conf` that Nginx ran last.
    last_good: Option<String>,
    /// The plan that Nginx answered last.
    answered: Option<Plan>,
    /// Answers other than that, or none, in a row.
    surprises: u32,
    /// The master process that was seen last.
    master: Option<Pid>,
    /// Whether tests can be told where to log, once that is known.
    takes_error_log: OnceCell<bool>,
}

impl Balancer {
    /// A balancer as `config` describes it.
    pub fn new(config: Config, reports: Reports, kept: watch::Receiver<u64>) -> Self {
        Self {
            config,
            reports,
            kept,
            last_good: None,
            answered: None,
            surprises: 0,
            master: None,
            takes_error_log: OnceCell::new(),
        }
    }

    /// Tells what runs, then installs the plans that arrive, until `shutdown`. An installation that has begun is
    /// finished.
    pub async fn run(mut self, mut plans: mpsc::Receiver<PlanOrder>, shutdown: CancellationToken) {
        self.find().await;
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                plan = plans.recv() => match plan {
                    Some(order) => {
                        let outcome = self.install(&order).await;
                        report(&self.reports, Input::Installed(order.plan.generation, outcome)).await;
                        looks.reset();
                    }
                    None => return,
                },
                _ = looks.tick() => self.look().await,
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.config.balancer.dir.join(name)
    }

    fn upstream_path(&self) -> PathBuf {
        self.path(UPSTREAM)
    }

    /// Removes what a killed predecessor left.
    fn tidy(&self) {
        let entries = std::fs::read_dir(&self.config.balancer.dir)
            .into_iter()
            .flatten()
            .flatten();
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            if name.to_string_lossy().starts_with(SCRATCH_PREFIX)
                && let Err(error) = std::fs::remove_dir_all(&path)
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove what a predecessor left");
            }
        }
        if let Err(error) = atomic_file::tidy(&self.upstream_path()) {
            tracing::warn!(%error, "cannot remove what a predecessor left of upstream.conf");
        }
    }

    async fn find(&mut self) {
        self.tidy();
        let contents = std::fs::read_to_string(self.upstream_path()).ok();
        let on_disk = contents.as_deref().and_then(plan_of_upstream);
        let running = self.running(on_disk.as_ref()).await;
        let rendered = |plan: &Plan| upstream_conf(&self.config, plan).ok();
        let is_current = on_disk.as_ref().is_some_and(|plan| rendered(plan) == contents);
        // What runs was read from this file, unless the file was changed since.
        self.last_good = match &running {
            Some(plan) if on_disk.as_ref() != Some(plan) => rendered(plan).or(contents),
            _ => contents,
        };
        tracing::info!(
            generation = running.as_ref().map(|plan| plan.generation),
            on_disk = on_disk.as_ref().map(|plan| plan.generation),
            is_current,
            "found what the balancer runs"
        );
        self.answered = running.clone();
        self.master = nginx::master(&self.path("nginx.pid")).ok();
        let found = Found {
            running,
            on_disk,
            is_current,
        };
        report(&self.reports, Input::Found(found)).await;
    }

    /// What Nginx runs. Another plan than that on disk is not believed at once: a predecessor that was killed may have
    /// asked for a reload just before, and old workers tell the old plan until they stop.
    async fn running(&self, on_disk: Option<&Plan>) -> Option<Plan> {
        let deadline = Instant::now() + RELOAD;
        loop {
            let running = nginx::read_back(self.config.balancer.readback).await.ok()?;
            if on_disk.is_none_or(|plan| *plan == running) || Instant::now() >= deadline {
                return Some(running);
            }
            sleep(RELOAD / 20).await;
        }
    }

    /// Asks Nginx what it runs, and reports it. An answer that is new or missing is asked for twice: for about
    /// 100 ms after a reload old workers accept connections too, and a single failure may be a hiccup.
    async fn look(&mut self) {
        let (answer, is_certain) = match nginx::read_back(self.config.balancer.readback).await {
            Ok(plan) => {
                let is_expected = self.answered.as_ref() == Some(&plan);
                (Ok(plan), is_expected)
            }
            Err(failure) => (Err(failure.reason), failure.is_certain),
        };
        self.surprises = if is_certain { 0 } else { self.surprises + 1 };
        if self.surprises == 1 {
            return;
        }
        self.answered = answer.as_ref().ok().cloned();
        self.put_back_if_missing().await;
        let before = self.master;
        let master = nginx::master(&self.path("nginx.pid"));
        self.master = master.as_ref().ok().copied();
        let (unreachable, old_workers) = match master {
            Ok(master) => (started_again(before, master), nginx::old_workers(master)),
            Err(error) => (Some(chain(&error)), None),
        };
        let look = Look {
            answer,
            unreachable,
            old_workers,
        };
        report(&self.reports, Input::Looked(look)).await;
    }

    /// A deleted `upstream.conf` is noticed by nobody until Nginx starts again, and then it cannot.
    async fn put_back_if_missing(&self) {
        let (Some(contents), false) = (&self.last_good, self.upstream_path().exists()) else {
            return;
        };
        match self.write(contents.clone()).await {
            Ok(()) => tracing::warn!("upstream.conf was missing; the last good one is back"),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(error, "upstream.conf is missing and cannot be put back");
            }
        }
    }
}

/// Why what is known of Nginx no longer holds, if `now` is not the master process that was there `before`.
fn started_again(before: Option<Pid>, now: Pid) -> Option<String> {
    let before = before.filter(|before| *before != now)?;
    Some(format!(
        "Nginx was started again: process {} is gone, process {} runs instead",
        before.as_raw_nonzero(),
        now.as_raw_nonzero()
    ))
}
