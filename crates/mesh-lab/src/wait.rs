//! Waiting for a condition, until a deadline, with a message that says what was missing.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Time between two looks at a condition.
const STEP: Duration = Duration::from_millis(10);

/// A condition did not come true in time.
#[derive(Debug, thiserror::Error)]
#[error("{what} did not happen within {deadline:?}; last seen: {last}")]
pub struct TimedOut {
    what: String,
    deadline: Duration,
    last: String,
}

/// Looks at `condition` again and again until it is `Ok`, whose value is returned.
///
/// The `Err` says what is still missing; the last one is part of the message at the deadline.
///
/// # Errors
///
/// [`TimedOut`] at the deadline.
pub async fn wait_until<T, E: Display>(
    what: &str,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let mut patience = Patience::new(what, deadline);
    loop {
        let look = tokio::time::timeout(patience.left(), condition()).await;
        if let Some(value) = patience.judge(look.ok()).await? {
            return Ok(value);
        }
    }
}

/// [`wait_until`] for a condition that borrows nothing mutably. Unlike that of an `AsyncFnMut`, the future of
/// such a condition is known to be `Send` wherever this is called from generic code.
pub(crate) async fn poll_until<T, E, F>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> Result<T, TimedOut>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let mut patience = Patience::new(what, deadline);
    loop {
        let look = tokio::time::timeout(patience.left(), condition()).await;
        if let Some(value) = patience.judge(look.ok()).await? {
            return Ok(value);
        }
    }
}

/// How long it is still worth looking, and what was seen last.
struct Patience<'a> {
    what: &'a str,
    deadline: Duration,
    start: Instant,
    last: String,
}

impl<'a> Patience<'a> {
    fn new(what: &'a str, deadline: Duration) -> Self {
        Self {
            what,
            deadline,
            start: Instant::now(),
            last: "nothing".to_owned(),
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_sub(self.start.elapsed())
    }

    /// The value of the look that was had, or a pause before the next; `look` is `None` if it took too long.
    async fn judge<T, E: Display>(&mut self, look: Option<Result<T, E>>) -> Result<Option<T>, TimedOut> {
        match look {
            Some(Ok(value)) => return Ok(Some(value)),
            Some(Err(missing)) => self.last = missing.to_string(),
            None => self.last += ", and then no answer",
        }
        if self.left() <= STEP {
            return Err(TimedOut {
                what: self.what.to_owned(),
                deadline: self.deadline,
                last: std::mem::take(&mut self.last),
            });
        }
        tokio::time::sleep(STEP).await;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_message_says_what_was_missing() {
        let mut looks = 0;
        let deadline = Duration::from_secs(5);
        let value = wait_until("three looks", deadline, async || {
            looks += 1;
            if looks == 3 {
                Ok(looks)
            } else {
                Err(format!("{looks} looks"))
            }
        });
        assert_eq!(value.await.unwrap(), 3);

        let error = wait_until("a miracle", Duration::from_millis(30), async || {
            Err::<(), _>("no miracle")
        });
        let error = error.await.unwrap_err().to_string();
        assert_eq!(
            error,
            "a miracle did not happen within 30ms; last seen: no miracle"
        );

        let never = wait_until("an answer", Duration::from_millis(30), async || {
            std::future::pending::<Result<(), String>>().await
        });
        assert!(never.await.unwrap_err().to_string().contains("no answer"));
    }
}
