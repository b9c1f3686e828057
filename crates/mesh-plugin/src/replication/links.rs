//! The state of one peer, as the sender sees it: its link, and what it has told.

use std::collections::BTreeMap;

use mesh_model::BrokerId;

use super::seen::{Ranges, Seen};

/// The link that a peer fetches from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    /// Not subscribed.
    #[default]
    Down,
    /// What the peer lacks is sent to it from the log; `next` is the position of the next entry. What is published
    /// meanwhile waits in the log.
    Replaying {
        /// A position in the log of own messages.
        next: u64,
    },
    /// All of the log has been sent, but not yet left. What is published meanwhile is sent the same way, behind it.
    Closing,
    /// The broker routes to it.
    Live,
}

/// A peer.
#[derive(Debug, Default)]
pub struct Peer {
    /// Its link.
    pub link: Link,
    /// What it has told that it has seen, in whichever of its boots: what it had once, its clients have got.
    pub seen: Seen,
    /// Own numbers that left the log before the peer told that it had them.
    pub evicted: Ranges,
    /// Those of them that it certainly lacks, until it has taken that in.
    pub gone: Ranges,
    /// How many are certainly lost to it.
    pub lost: u64,
    /// What was sent again, by log and position, and when, in milliseconds since the start.
    pub repaired: BTreeMap<(bool, u64), u64>,
    /// So many of those may be on their way.
    pub repairs: usize,
    /// When it last told anything, in milliseconds since the start.
    pub reported_ms: Option<u64>,
    /// When a window was last opened for it although it told nothing, in milliseconds since the start.
    pub window_ms: u64,
    /// Messages that were sent from the log and that it has not reported.
    pub unconfirmed: usize,
    /// How it gets on with each boot of each origin.
    pub progress: Vec<Progress>,
    /// It was said that the log fills up for it.
    pub warned: bool,
    /// It was said that messages are lost to it.
    pub losing: bool,
}

/// How a peer gets on with the messages of one boot of one origin.
#[derive(Debug)]
pub struct Progress {
    origin: BrokerId,
    epoch: u64,
    /// How many of them it had at its last report.
    count: u64,
    /// Since when it has had so many, in milliseconds since the start.
    since_ms: u64,
    /// It stood still, and has been helped after each report since.
    helped: bool,
    /// It is being helped after this report.
    helping: bool,
}

/// A peer that was silent for so long begins anew: it may have been hung. In milliseconds.
const SILENCE_MS: u64 = 1_500;

impl Peer {
    /// A peer that has told nothing, to which so many repaired messages may be on their way at first.
    pub fn new(repairs: usize) -> Self {
        Self {
            repairs,
            ..Self::default()
        }
    }

    /// It tells what it has seen of one boot of one origin.
    pub fn told(&mut self, origin: &BrokerId, epoch: u64, numbers: &Ranges, now_ms: u64) {
        let Some(known) = self.seen.of_mut(origin, epoch) else {
            return;
        };
        for (first, last) in numbers.iter() {
            known.insert_range(first, last);
        }
        let count = known.count();
        let progress = self.progress_of(origin, epoch, now_ms);
        if progress.count != count {
            (progress.count, progress.since_ms) = (count, now_ms);
        }
    }

    /// Whether it has told for so long that it has got no further with these.
    pub fn is_stalled(&mut self, origin: &BrokerId, epoch: u64, grace_ms: u64, now_ms: u64) -> bool {
        now_ms >= self.progress_of(origin, epoch, now_ms).since_ms + grace_ms
    }

    /// Whether it needs help to get further with these, some of which it has lacked for longer than `grace_ms`. Once
    /// it did, it does until it lacks none of that age.
    pub fn needs_help(&mut self, origin: &BrokerId, epoch: u64, grace_ms: u64, now_ms: u64) -> bool {
        let stalled = self.is_stalled(origin, epoch, grace_ms, now_ms);
        let progress = self.progress_of(origin, epoch, now_ms);
        progress.helping |= progress.helped || stalled;
        progress.helping
    }

    /// A round of help begins.
    pub fn help(&mut self) {
        for progress in &mut self.progress {
            progress.helped = std::mem::take(&mut progress.helping);
        }
    }

    /// It has told something.
    pub fn heard(&mut self, now_ms: u64) {
        if self.reported_ms.is_none_or(|at| now_ms > at + SILENCE_MS) {
            for progress in &mut self.progress {
                progress.since_ms = now_ms;
            }
        }
        self.reported_ms = Some(now_ms);
    }

    fn progress_of(&mut self, origin: &BrokerId, epoch: u64, now_ms: u64) -> &mut Progress {
        let found = self
            .progress
            .iter()
            .position(|known| known.origin == *origin && known.epoch == epoch);
        let at = found.unwrap_or_else(|| {
            // Only the newest boot of an origin that is told matters much; that of others begins anew.
            self.progress.truncate(MOST_PROGRESS - 1);
            self.progress.insert(
                0,
                Progress {
                    origin: origin.clone(),
                    epoch,
                    count: 0,
                    since_ms: now_ms,
                    helped: false,
                    helping: false,
                },
            );
            0
        });
        &mut self.progress[at]
    }
}

/// The progress of so many boots is kept.
const MOST_PROGRESS: usize = 256;
