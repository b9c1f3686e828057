//! What the service manager is told: that the start is over, how it goes, that the core's loop turns, and that the
//! end has begun.
//!
//! Guarantees: `READY=1` is said once, and only when there is a verdict on every broker; the watchdog is fed by
//! nobody but the core's own loop, so a loop that is stuck starves it. While a verdict is missing the start is
//! prolonged for as long as the loop turns: one broker that cannot be judged is no reason to be killed.

use std::time::Duration;

use mesh_model::{HealthStatus, Snapshot};
use mesh_runtime::notify::{Notifier, State};

use crate::core::Moment;

/// How often the start is prolonged, and a sentence that has changed may be told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// By how much the start is prolonged.
const MORE_TIME: Duration = Duration::from_secs(15);

/// What has been told so far.
#[derive(Debug)]
pub struct Service {
    notifier: Notifier,
    ready: bool,
    fed: Moment,
    spoke: Option<Moment>,
    sentence: String,
    failing: bool,
}

impl Service {
    /// The service manager that the environment of this process names, if it names one.
    pub fn from_env() -> Self {
        let notifier = Notifier::from_env().unwrap_or_else(|error| {
            tracing::warn!(%error, "the service manager cannot be told anything");
            Notifier::default()
        });
        Self::new(notifier)
    }

    fn new(notifier: Notifier) -> Self {
        Self {
            notifier,
            ready: false,
            fed: Moment::START,
            spoke: None,
            sentence: String::new(),
            failing: false,
        }
    }

    /// The core's loop turned and believes `snapshot`.
    pub fn turned(&mut self, now: Moment, snapshot: &Snapshot) {
        if !self.notifier.is_heard() {
            return;
        }
        let mut states = Vec::new();
        let is_time = self.spoke.is_none_or(|spoke| now.since(spoke) >= TELL_EVERY);
        let turns_ready = !self.ready && waiting_for(snapshot).is_empty();
        if turns_ready {
            self.ready = true;
            states.push(State::Ready);
        } else if !self.ready && is_time {
            states.push(State::ExtendTimeout(MORE_TIME));
        }
        if let Some(period) = self.notifier.watchdog()
            && (turns_ready || now.since(self.fed) >= period / 2)
        {
            self.fed = now;
            states.push(State::Watchdog);
        }
        let sentence = sentence(snapshot);
        let has_news = sentence != self.sentence && (is_time || turns_ready);
        if has_news {
            states.push(State::Status(&sentence));
        }
        if states.is_empty() {
            return;
        }
        let sent = self.notifier.send(&states);
        if is_time || turns_ready {
            self.spoke = Some(now);
        }
        match sent {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "the service manager does not take what it is told");
                }
                // What was lost is said again.
                self.ready &= !turns_ready;
                return;
            }
        }
        if has_news {
            self.sentence = sentence;
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        let states = [State::Stopping, State::Status("ending")];
        if let Err(error) = self.notifier.send(&states) {
            tracing::warn!(%error, "the service manager was not told of the end");
        }
    }
}

/// The brokers on which there is no verdict yet.
fn waiting_for(snapshot: &Snapshot) -> Vec<&str> {
    let brokers = snapshot.brokers.iter();
    let unknown = brokers.filter(|broker| broker.health == HealthStatus::Unknown);
    unknown.map(|broker| broker.id.as_str()).collect()
}

/// How it goes, for `systemctl status`.
fn sentence(snapshot: &Snapshot) -> String {
    let waiting = waiting_for(snapshot);
    if !waiting.is_empty() {
        return format!("no verdict yet on {}", waiting.join(", "));
    }
    let all = snapshot.brokers.len();
    let is_healthy = |health: HealthStatus| health == HealthStatus::Healthy;
    let healthy = snapshot.brokers.iter().filter(|b| is_healthy(b.health)).count();
    let mut text = format!(
        "{}: {} serves, {healthy} of {all} brokers healthy, generation {}",
        snapshot.state, snapshot.primary, snapshot.generation
    );
    if let Some(error) = &snapshot.balancer.error {
        text = format!("{text}; {error}");
    }
    text
}
