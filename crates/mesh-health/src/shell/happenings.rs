//! Everything that happens, for who listens, and what happened lately, for who comes back.
//!
//! Events are numbered from 1 in each run of the daemon. An id is `run.number`: whoever names the last id it had is told
//! what came after it, all of this run if that id is of an earlier one, and how many of these are no longer known.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use mesh_model::Event;
use tokio::sync::broadcast;

/// Events that are kept for who comes back, and that a listener may be behind.
const KEPT: usize = 1024;

/// An event with its number.
#[derive(Debug, Clone)]
pub struct Numbered {
    /// The number, from 1 at the start of the daemon.
    pub number: u64,
    /// The event.
    pub event: Event,
}

/// What happens; see the module.
#[derive(Debug, Clone)]
pub struct Happenings {
    run: Arc<str>,
    kept: Arc<Mutex<VecDeque<Arc<Numbered>>>>,
    live: broadcast::Sender<Arc<Numbered>>,
}

/// What somebody is told who follows.
#[derive(Debug)]
pub struct Following {
    /// The number up to which it had everything.
    pub after: u64,
    /// How many events came since that are no longer known.
    pub missed: u64,
    /// Those that came since and are.
    pub since: Vec<Arc<Numbered>>,
    /// What comes from now on.
    pub live: broadcast::Receiver<Arc<Numbered>>,
}

impl Happenings {
    /// Nothing has happened yet in this run, which is told from others by when it began.
    pub fn new(began: Timestamp) -> Self {
        Self {
            run: format!("{:x}", began.as_microsecond()).into(),
            kept: Arc::default(),
            live: broadcast::Sender::new(KEPT),
        }
    }

    /// Something happens.
    pub fn tell(&self, event: Event) {
        // What is inside is whole after every step, so a panic elsewhere spoils nothing.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.back().map_or(0, |last| last.number) + 1;
        if kept.len() == KEPT {
            kept.pop_front();
        }
        let numbered = Arc::new(Numbered { number, event });
        kept.push_back(Arc::clone(&numbered));
        // Without listeners it is told to nobody, which is no error.
        self.live.send(numbered).ok();
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Numbered>> {
        self.live.subscribe()
    }

    /// What came after the id `last`, and what happens from now on; without one, from now on only.
    pub fn follow(&self, last: Option<&str>) -> Following {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = kept.back().map_or(0, |newest| newest.number);
        let after = last.map_or(newest, |id| self.number_of(id).unwrap_or(0).min(newest));
        let first = kept.partition_point(|numbered| numbered.number <= after);
        let since: Vec<_> = kept.range(first..).cloned().collect();
        Following {
            after,
            missed: newest - after - since.len() as u64,
            since,
            live: self.live.subscribe(),
        }
    }

    /// The id of the event with this number.
    pub fn id(&self, number: u64) -> String {
        format!("{}.{number}", self.run)
    }

    /// The number in an id of this run.
    fn number_of(&self, id: &str) -> Option<u64> {
        let (run, number) = id.split_once('.')?;
        (*run == *self.run).then(|| number.parse().ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happenings(events: usize) -> Happenings {
        let happenings = Happenings::new(Timestamp::UNIX_EPOCH);
        let event: Event =
            serde_json::from_str(r#"{"at":"2026-11-23T03:00:00Z","name":"broker.dead"}"#).unwrap();
        for _ in 0..events {
            happenings.tell(event.clone());
        }
        happenings
    }

    fn numbers(following: &Following) -> Vec<u64> {
        following.since.iter().map(|numbered| numbered.number).collect()
    }

    #[test]
    fn who_comes_back_is_told_what_came_since() {
        let happenings = happenings(3);
        let all = [1, 2, 3];
        for (last, since) in [
            (None, &all[3..]),
            (Some("0.3"), &all[3..]),
            (Some("0.1"), &all[1..]),
            (Some("0.0"), &all[..]),
            // An earlier run, or nothing of ours.
            (Some("5.2"), &all[..]),
            (Some("x"), &all[..]),
        ] {
            let mut following = happenings.follow(last);
            assert_eq!(
                (numbers(&following).as_slice(), following.missed),
                (since, 0),
                "{last:?}"
            );
            assert!(following.live.try_recv().is_err(), "nothing is told twice");
        }
        assert_eq!(
            happenings.follow(Some("0.9")).after,
            3,
            "a number that was never told"
        );
    }

    #[test]
    fn what_is_forgotten_is_counted_and_what_comes_is_heard() {
        let happenings = happenings(KEPT + 10);
        let mut following = happenings.follow(Some("0.4"));
        assert_eq!((following.missed, following.since.len()), (6, KEPT));
        let event = following.since[0].event.clone();
        happenings.tell(event);
        assert_eq!(following.live.try_recv().unwrap().number, KEPT as u64 + 11);
    }
}
