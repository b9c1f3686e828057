//! Ending a program: stop the intake, wait for the work until a deadline, and name what was left.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

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
}
