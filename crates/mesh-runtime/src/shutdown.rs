//! Ending a program: stop the intake, wait for the work until a deadline, and name what was left.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// How long the work may take to end after it was asked to.
const DEADLINE: Duration = Duration::from_secs(5);

/// A part of a program that ends when it must not, or does not when it should.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// It ended.
    #[error("the task {0} ended by itself")]
    Ended(&'static str),
    /// They did not.
    #[error("did not end within {DEADLINE:?}: {}", .0.join(", "))]
    Left(Vec<&'static str>),
}

/// Completes at the first SIGTERM or SIGINT and says which.
///
/// # Errors
///
/// If the operating system refuses to tell us of signals.
pub async fn requested() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

/// The tasks of a program, by name, and the token that asks all of them to end.
#[derive(Debug, Default)]
pub struct Tasks {
    token: CancellationToken,
    names: BTreeMap<Id, &'static str>,
    set: JoinSet<()>,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token on which every task ends.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts `task`, which must end when the token is cancelled.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let handle = self.set.spawn(task);
        self.names.insert(handle.id(), name);
    }

    /// Lets all tasks work until `shutdown` completes, then asks them to end and waits for that.
    ///
    /// # Errors
    ///
    /// If a task ends before, and all others with it, or if one does not end within five seconds and has to be aborted.
    pub async fn work_until(mut self, shutdown: impl Future<Output = ()>) -> Result<(), TasksError> {
        let ended = tokio::select! {
            () = shutdown => None,
            name = self.any_ended() => Some(name),
        };
        let left = self.finish(DEADLINE).await;
        match ended {
            Some(name) => Err(TasksError::Ended(name)),
            None if left.is_empty() => Ok(()),
            None => Err(TasksError::Left(left)),
        }
    }

    /// Completes when any task ends, with its name: before shutdown that is a defect, after it is progress.
    /// Pending for ever if there is no task.
    pub async fn any_ended(&mut self) -> &'static str {
        match self.set.join_next_with_id().await {
            Some(Ok((id, ()))) => self.forget(id),
            Some(Err(error)) => {
                let name = self.forget(error.id());
                tracing::error!(task = name, %error, "a task failed");
                name
            }
            None => std::future::pending().await,
        }
    }

    /// Asks all tasks to end, waits for at most `deadline`, aborts the rest and returns the names of those.
    pub async fn finish(mut self, deadline: Duration) -> Vec<&'static str> {
        self.token.cancel();
        let all = async {
            while !self.set.is_empty() {
                self.any_ended().await;
            }
        };
        if tokio::time::timeout(deadline, all).await.is_ok() {
            return Vec::new();
        }
        self.set.shutdown().await;
        self.names.into_values().collect()
    }

    fn forget(&mut self, id: Id) -> &'static str {
        self.names.remove(&id).unwrap_or("unnamed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_in_time_is_aborted_and_named() {
        let mut tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn("obedient", async move { token.cancelled().await });
        tasks.spawn("stubborn", std::future::pending());
        assert_eq!(tasks.finish(Duration::from_secs(5)).await, ["stubborn"]);
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_when_it_is_asked_to_and_it_is_told_when_a_part_ends_before() {
        let mut tasks = Tasks::new();
        let token = tasks.token();
        tasks.spawn("obedient", async move { token.cancelled().await });
        let later = tokio::time::sleep(Duration::from_secs(1));
        assert!(tasks.work_until(later).await.is_ok());
        let mut tasks = Tasks::new();
        tasks.spawn("short", async {});
        let error = tasks.work_until(std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "the task short ended by itself");
    }
}
