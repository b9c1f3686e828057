//! Sources that break off are tried again: soon after they gave lines, else more and more slowly.

use std::sync::Arc;
use std::time::Duration;

use super::intake::Intake;
use super::status::Status;

/// The first pause before the next attempt, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// The attempts to read one source.
#[derive(Debug)]
pub struct Attempts {
    status: Arc<Status>,
    pause: Duration,
    /// Lines at the end of the last attempt.
    lines: u64,
}

impl Attempts {
    /// For the source of `intake`.
    pub fn new(intake: &Intake, status: Arc<Status>) -> Self {
        Self {
            status,
            pause: PAUSES.0,
            lines: intake.state.lines,
        }
    }

    /// Tells why the last attempt ended, and waits until it is time for the next.
    pub async fn failed(&mut self, intake: &Intake, error: String) {
        tracing::warn!(
            source = intake.state.name,
            error,
            "a source broke off; it is tried again"
        );
        self.status.failed(&intake.state, error);
        // What it has given shows that it works.
        let has_worked = intake.state.lines > std::mem::replace(&mut self.lines, intake.state.lines);
        self.pause = if has_worked {
            PAUSES.0
        } else {
            (self.pause * 2).min(PAUSES.1)
        };
        tokio::time::sleep(self.pause).await;
    }
}
