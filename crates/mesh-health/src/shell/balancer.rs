//! Makes Nginx run a plan, and watches that it does.
//!
//! Guarantees: `upstream.conf` is replaced as a whole or not at all, and only by what `nginx -t` accepted beside
//! the configuration that is in place; when Nginx does not run the new generation in time, the last good file is
//! back; only the generation that Nginx answers is believed. Killed at any instant, this program leaves a file that
//! Nginx takes, and at most one scratch folder and one temporary file, which its successor removes. All of it
//! happens in a task of its own, one installation after the other, so the core never waits for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_model::Plan;
use mesh_render::{RenderError, nginx_conf, parse_read_back, upstream_conf};
use mesh_runtime::Config;
use mesh_runtime::atomic_file::{self, WriteError};
use rustix::process::Pid;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::nginx::{self, NginxError, first_complaint};
use super::probe::chain;
use super::{Reports, memory, report};
use crate::core::Input;
use crate::core::rollout::{Found, Look, Outcome};

/// Time between two looks at what Nginx runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Time between two looks while a reload is awaited.
const AWAIT_EVERY: Duration = Duration::from_millis(5);

const FILE_MODE: u32 = 0o644;

const UPSTREAM: &str = "upstream.conf";

const SCRATCH_PREFIX: &str = ".candidate-";

/// Why a plan was not installed.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("the plan cannot be rendered")]
    Render(#[from] RenderError),
    #[error("cannot make a scratch copy of the configuration in balancer.dir")]
    Scratch(#[source] std::io::Error),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Nginx(#[from] NginxError),
    #[error("Nginx does not run generation {wanted} after {patience:?}: {reason}")]
    NotConfirmed {
        wanted: u64,
        patience: Duration,
        reason: String,
    },
    #[error("writing a file was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

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
        let running = nginx::read_back(self.config.balancer.readback).await.ok();
        let contents = std::fs::read_to_string(self.upstream_path()).ok();
        let on_disk = contents.as_deref().and_then(plan_of_file);
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

    async fn install(&mut self, order: &PlanOrder) -> Outcome {
        let started = Instant::now();
        match self.try_install(order).await {
            Ok(()) => {
                let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
                tracing::info!(
                    generation = order.plan.generation,
                    elapsed_ms,
                    "the balancer runs the plan"
                );
                Outcome::Confirmed
            }
            // The file is good and nobody runs who could refuse it.
            Err(InstallError::Nginx(error @ NginxError::NotRunning(_))) => Outcome::Written(chain(&error)),
            Err(error) => {
                let mut reason = chain(&error);
                if let Err(error) = self.restore().await {
                    reason = format!(
                        "{reason}; the last good file could not be put back: {}",
                        chain(&error)
                    );
                }
                Outcome::Rejected(reason)
            }
        }
    }

    async fn try_install(&mut self, order: &PlanOrder) -> Result<(), InstallError> {
        let plan = &order.plan;
        let contents = upstream_conf(&self.config, plan)?;
        self.test_aside(&contents).await?;
        // Killed once the plan is in place, this program must know afterwards whose sessions are still to be moved.
        // The state file was written while Nginx tested the plan, so this seldom takes any time.
        memory::written(self.kept.clone(), order.after).await;
        self.write(contents.clone()).await?;
        self.test(&self.path("nginx.conf")).await?;
        let master = nginx::master(&self.path("nginx.pid"))?;
        let log_end = std::fs::metadata(self.path("error.log")).map_or(0, |log| log.len());
        nginx::reload(master)?;
        report(&self.reports, Input::Reloaded(plan.generation)).await;
        self.confirm(plan, log_end).await?;
        self.last_good = Some(contents);
        self.answered = Some(plan.clone());
        Ok(())
    }

    /// Tests `contents` in a copy of the configuration folder.
    async fn test_aside(&self, contents: &str) -> Result<(), InstallError> {
        // Beside the real one, where the right user may write and nothing else cleans up.
        let scratch = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            .tempdir_in(&self.config.balancer.dir)
            .map_err(InstallError::Scratch)?;
        let mut config = self.config.clone();
        config.balancer.dir = scratch.path().to_owned();
        let conf = scratch.path().join("nginx.conf");
        std::fs::write(&conf, nginx_conf(&config)?).map_err(InstallError::Scratch)?;
        std::fs::write(scratch.path().join(UPSTREAM), contents).map_err(InstallError::Scratch)?;
        let tested = self.test(&conf).await;
        Ok(tested.map_err(|error| error.instead_of(scratch.path(), &self.config.balancer.dir))?)
    }

    /// Has Nginx test `conf`, logging beside it.
    async fn test(&self, conf: &Path) -> Result<(), NginxError> {
        let program = &self.config.balancer.program;
        let takes_error_log = self
            .takes_error_log
            .get_or_init(|| nginx::takes_error_log(program));
        let error_log = takes_error_log.await.then(|| conf.with_file_name("error.log"));
        nginx::test(program, conf, error_log.as_deref()).await
    }

    async fn write(&self, contents: String) -> Result<(), InstallError> {
        let path = self.upstream_path();
        let write = move || atomic_file::write(&path, contents.as_bytes(), FILE_MODE);
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(InstallError::Interrupted)??;
        Ok(())
    }

    async fn confirm(&self, plan: &Plan, log_end: u64) -> Result<(), InstallError> {
        let patience = self.config.balancer.reload_timeout;
        let deadline = Instant::now() + patience;
        let not_confirmed = |reason| InstallError::NotConfirmed {
            wanted: plan.generation,
            patience,
            reason,
        };
        loop {
            // Old workers answer as well until they stop to accept, so only the right answer counts.
            let reason = match nginx::read_back(self.config.balancer.readback).await {
                Ok(running) if running == *plan => return Ok(()),
                Ok(other) => format!("it answers generation {}", other.generation),
                Err(failure) => failure.reason,
            };
            if Instant::now() >= deadline {
                return Err(not_confirmed(self.complaint_since(log_end).unwrap_or(reason)));
            }
            sleep(AWAIT_EVERY).await;
        }
    }

    /// What Nginx has logged as the reason since its log had `log_end` bytes.
    fn complaint_since(&self, log_end: u64) -> Option<String> {
        use std::io::{Read, Seek, SeekFrom};
        let mut log = std::fs::File::open(self.path("error.log")).ok()?;
        log.seek(SeekFrom::Start(log_end)).ok()?;
        let mut text = Vec::new();
        log.take(256 * 1024).read_to_end(&mut text).ok()?;
        first_complaint(&String::from_utf8_lossy(&text))
    }

    /// Puts the last good file back, and has Nginx read it in case it took a part of the other.
    async fn restore(&self) -> Result<(), InstallError> {
        let Some(contents) = self.last_good.clone() else {
            return Ok(());
        };
        let path = self.upstream_path();
        if std::fs::read(&path).is_ok_and(|now| now == contents.as_bytes()) {
            return Ok(());
        }
        self.write(contents).await?;
        match nginx::master(&self.path("nginx.pid")) {
            Ok(master) => Ok(nginx::reload(master)?),
            Err(_) => Ok(()),
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

/// The plan whose read-back an `upstream.conf` holds.
fn plan_of_file(contents: &str) -> Option<Plan> {
    let line = contents
        .lines()
        .find_map(|line| line.trim().strip_prefix("return \""))?;
    let (answer, _) = line.split_once("\\n")?;
    parse_read_back(answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_found_in_a_rendered_file() {
        let text = "server {\n    listen 127.0.0.1:1;\n    return \"gen=4 primary=b standbys=a,c\\n\";\n}\n";
        let plan = plan_of_file(text).unwrap();
        assert_eq!(
            (plan.generation, plan.primary.as_str(), plan.standbys.len()),
            (4, "b", 2)
        );
        assert_eq!(plan_of_file("upstream mqtt {}"), None);
    }
}
