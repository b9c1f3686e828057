//! One installation: rendered, tried beside what is in place, written, tried again, read by Nginx, read back; or undone.

use std::path::Path;
use std::time::Duration;

use mesh_model::Plan;
use mesh_render::{RenderError, nginx_conf, upstream_conf};
use mesh_runtime::atomic_file::{self, WriteError};
use tokio::time::{Instant, sleep};

use super::{Balancer, PlanOrder, SCRATCH_PREFIX, UPSTREAM};
use crate::core::Input;
use crate::core::rollout::Outcome;
use crate::shell::nginx::{self, NginxError, first_complaint};
use crate::shell::probe::chain;
use crate::shell::{memory, report};

/// Time between two looks while a reload is awaited.
const AWAIT_EVERY: Duration = Duration::from_millis(5);

const FILE_MODE: u32 = 0o644;

/// Why a plan was not installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
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

impl Balancer {
    /// Makes Nginx run the plan, or leaves all as it was.
    pub(super) async fn install(&mut self, order: &PlanOrder) -> Outcome {
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

    pub(super) async fn write(&self, contents: String) -> Result<(), InstallError> {
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
