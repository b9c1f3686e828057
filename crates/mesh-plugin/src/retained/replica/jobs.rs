//! What is read from the store: values for peers, and values of which is not known when they expire.

use std::collections::HashMap;
use std::time::Duration;

use super::{Action, Found, Replica};
use crate::retained::sync::{Item, Now, Wish};
use crate::retained::{Expiry, Mark, State};

/// How often a part of the index is looked at, and how large a part.
pub(super) const SWEEP_EVERY: Duration = Duration::from_millis(100);
const SWEEP: usize = 2_000;
/// So many new values are read each time to learn when they expire…
const FRESH: usize = 100;
/// … and so often others that are found in the index, if there are no new ones, and so many.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(2);
const PROBE: usize = 200;
/// So many bytes are read for that in a microsecond, at most.
const PROBE_BYTES: usize = 4;
/// A job of the reader that is not done after this is given up.
const JOB_LOST: Duration = Duration::from_secs(60);
/// More deletions than this are forgotten before their time.
const MOST_ENDED: u64 = 1_000_000;

pub(super) struct Job {
    wish: Option<Wish>,
    /// When it was given, the broker had stored all that it is known to have.
    sure: bool,
    began: Duration,
    /// What was known of each topic when it was asked for, and what the peer believed.
    topics: HashMap<Box<str>, (Option<Mark>, Mark)>,
    items: Vec<Item>,
}

impl Replica {
    pub(super) fn sweep(&mut self, now: Now) {
        // Deletions of a million topics are forgotten sooner, so that a client cannot fill the memory with them.
        let ttl = u64::from(self.ttl) * MOST_ENDED / (self.index.ended() as u64).max(MOST_ENDED);
        let ttl = u32::try_from(ttl).unwrap_or(self.ttl);
        let is_probing = self.jobs.values().any(|job| job.wish.is_none());
        // What is still to be stored would be read as it was before.
        let probes = now.up >= self.no_probe_before && !is_probing && !self.storing;
        let mut unknown = if probes {
            self.index.take_fresh(FRESH)
        } else {
            Vec::new()
        };
        let looks = probes && unknown.is_empty() && now.up >= self.next_probe;
        let most = if looks { PROBE } else { 0 };
        let swept = self.index.sweep(now.wall, ttl, SWEEP, most);
        if !swept.unknown.is_empty() {
            self.next_probe = now.up + PROBE_EVERY;
            unknown = swept.unknown;
        }
        if !unknown.is_empty() {
            let topics = unknown.into_iter().map(|topic| (topic.name, topic.mark));
            self.read(None, topics.collect(), now);
        }
        self.jobs
            .retain(|_, job| now.up.saturating_sub(job.began) < JOB_LOST);
    }

    pub(super) fn read(&mut self, wish: Option<Wish>, topics: Vec<(Box<str>, Mark)>, now: Now) {
        let mut job = Job {
            wish,
            sure: !self.storing,
            began: now.up,
            topics: HashMap::with_capacity(topics.len()),
            items: Vec::new(),
        };
        let mut names = Vec::with_capacity(topics.len());
        for (topic, wished) in topics {
            let known = self.index.get(&topic);
            match known.map(|entry| (entry.mark, entry.expiry)) {
                // There is nothing to read.
                Some((mark, expiry)) if mark.state != State::Present => {
                    job.items.push(Item { topic, mark, expiry })
                }
                known => {
                    names.push(topic.clone());
                    job.topics.insert(topic, (known.map(|(mark, _)| mark), wished));
                }
            }
        }
        if names.is_empty() {
            if let Some(wish) = wish {
                self.sync.given(wish, job.items);
            }
            return;
        }
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.insert(id, job);
        self.actions.push_back(Action::Read(id, names));
    }

    /// The reader has found a value; `now` is not before that, so that nothing is taken to expire too early.
    pub fn found(&mut self, job: u64, found: Found, now: Now) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        let Some((known, wished)) = job.topics.remove(&found.topic) else {
            return;
        };
        let mark = Mark::present(found.version);
        let expiry = match found.expires_in {
            None => Expiry::Never,
            Some(seconds) => Expiry::At(now.wall.saturating_add(seconds)),
        };
        match known {
            // The store is right, unless something else has been stored since.
            Some(known) if known != mark && job.sure && !self.awaited.is(&found.topic, known) => {
                self.index.correct(&found.topic, known, mark, expiry, now.wall);
            }
            _ if self
                .index
                .get(&found.topic)
                .is_none_or(|entry| entry.mark == mark) =>
            {
                self.index.offer(&found.topic, mark, expiry, now.wall);
            }
            _ => {}
        }
        let Some(wish) = job.wish else {
            let pause = Duration::from_micros((found.packet.len() / PROBE_BYTES) as u64);
            self.no_probe_before = self.no_probe_before.max(now.up) + pause;
            return;
        };
        if mark >= wished {
            self.actions.push_back(Action::Send(wish.peer, found.packet));
        }
        if mark != wished || expiry != Expiry::Never {
            job.items.push(Item {
                topic: found.topic,
                mark,
                expiry,
            });
        }
    }

    /// The reader has done a job: there is nothing at the topics that it has not found. Or it could not.
    pub fn read_done(&mut self, id: u64, done: bool) {
        let now = self.now;
        let Some(mut job) = self.jobs.remove(&id) else {
            return;
        };
        if !done {
            // The peer will ask again.
            return;
        }
        for (topic, (known, _)) in std::mem::take(&mut job.topics) {
            let is_stored = |known: &Mark| known.state == State::Present && !self.awaited.is(&topic, *known);
            if let Some(known) = known.filter(|known| is_stored(known) && job.sure) {
                let gone = Mark::gone(known.version);
                if self.index.correct(&topic, known, gone, Expiry::Unknown, now.wall) {
                    self.actions
                        .push_back(Action::Keep(topic.clone(), gone, now.wall));
                }
            }
            if let Some(entry) = self.index.get(&topic) {
                let (mark, expiry) = (entry.mark, entry.expiry);
                job.items.push(Item { topic, mark, expiry });
            }
        }
        if let Some(wish) = job.wish {
            self.sync.given(wish, job.items);
        }
    }
}
