//! When a round with a peer is due.

use std::collections::VecDeque;
use std::time::Duration;

use super::Saying;

/// A round in which nothing is heard for so long has failed.
pub(super) const STALLED: Duration = Duration::from_secs(10);
/// A digest may differ for so long before a round is due: messages are on their way all the time.
const DIFFERS: Duration = Duration::from_secs(3);
/// The first wait after a round that failed or found nothing. It doubles up to [`WAIT_MOST`].
const WAIT: Duration = Duration::from_secs(1);
const WAIT_MOST: Duration = Duration::from_secs(60);

/// How often a peer is told the digest.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(1);

/// How it stands with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contact {
    /// Nothing gets through.
    #[default]
    Down,
    /// Messages get through in one direction only, or not yet in both.
    Half,
    /// Messages get through in both directions.
    Up,
}

/// What is remembered of a peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    up: bool,
    /// The digest of its stored values that it told last.
    pub(super) digest: Option<u128>,
    /// When it is told ours again.
    pub(super) tell: Duration,
    /// A round has ended well since it is up.
    through: bool,
    /// Since when its digest is another one.
    differs: Option<Duration>,
    /// No round before that, and how long the next wait is.
    wait: Option<(Duration, Duration)>,
    /// What it has asked and was not yet answered.
    pub(super) requests: VecDeque<(u32, Saying)>,
}

impl Peer {
    pub(super) fn look(&mut self, contact: Contact, own: u128, now: Duration) {
        let up = contact == Contact::Up;
        if self.up != up {
            *self = Self {
                up,
                ..Self::default()
            };
        }
        if self.digest.is_none_or(|digest| digest == own) {
            self.differs = None;
            if self.through {
                self.wait = None;
            }
        } else if self.differs.is_none() {
            self.differs = Some(now);
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn is_through(&self) -> bool {
        self.through
    }

    pub(super) fn is_due(&self, now: Duration) -> bool {
        let differs = self
            .differs
            .is_some_and(|since| now.saturating_sub(since) > DIFFERS);
        let waits = self.wait.is_some_and(|(until, _)| now < until);
        self.up && (!self.through || differs) && !waits
    }

    pub(super) fn failed(&mut self, now: Duration) {
        let step = self.wait.map_or(WAIT, |(_, step)| (2 * step).min(WAIT_MOST));
        self.wait = Some((now + step, step));
    }

    /// A round has ended well; whether it changed anything.
    pub(super) fn finished(&mut self, now: Duration, changed: bool) {
        self.through = true;
        // Differences that stay are looked into more and more rarely: with much traffic there always are some.
        self.differs = None;
        if changed {
            self.wait = None;
        } else {
            self.failed(now);
        }
    }
}
