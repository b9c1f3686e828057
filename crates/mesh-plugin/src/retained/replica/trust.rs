//! Whether this broker has what the others have, and what becomes of what it had before a long absence.

use std::time::Duration;

use super::{Action, Event, Replica, TURN};
use crate::retained::State;
use crate::retained::digest::BUCKETS;
use crate::retained::index::Index;
use crate::retained::sync::{Contact, Now};

/// Somebody who is not heard of for so long after the start is not there.
const ALONE: Duration = Duration::from_secs(5);
/// Peers that are heard but do not take part count as not there after this.
const DEAF: Duration = Duration::from_secs(30);

/// Values of a broker that was away for longer than deletions are remembered.
pub(super) enum Doubt {
    None,
    /// They count as nothing for now.
    Held(Index),
    /// It is decided; this is the next bucket.
    Settling {
        index: Index,
        bucket: usize,
        count: usize,
        drop: bool,
    },
}

impl Replica {
    /// Whether this broker is in sync.
    pub(super) fn judge(&mut self, now: Now, contacts: &[Contact]) {
        if contacts.is_empty() {
            return;
        }
        let met = contacts.contains(&Contact::Up);
        let heard = contacts.contains(&Contact::Half);
        if met != self.met {
            self.met = met;
            self.since = now.up;
            if met && self.in_sync {
                self.in_sync = false;
                self.actions.push_back(Action::Tell(Event::OutOfSync));
            }
        }
        let took = now.up.saturating_sub(self.since);
        // What was told in this turn is not even on its way.
        let removes = self
            .actions
            .iter()
            .any(|action| matches!(action, Action::Remove { .. }));
        let alone = !met && took >= if heard { DEAF } else { ALONE };
        let through = met
            && self.sync.is_through()
            && self.ended.is_empty()
            && self.unwanted.is_empty()
            && !self.storing;
        if self.in_sync || removes || !(alone || through) {
            return;
        }
        match std::mem::replace(&mut self.doubt, Doubt::None) {
            Doubt::None => {
                self.in_sync = true;
                self.actions.push_back(Action::Tell(Event::InSync(took)));
            }
            // Nobody could vouch for what there is: then what this broker has is as good as anything.
            Doubt::Held(index) => {
                self.doubt = Doubt::Settling {
                    index,
                    bucket: 0,
                    count: 0,
                    drop: false,
                }
            }
            settling @ Doubt::Settling { .. } => self.doubt = settling,
        }
    }

    /// Does something about the values that were in doubt.
    pub(super) fn settle(&mut self, now: Now) {
        let Doubt::Settling {
            index,
            bucket,
            count,
            drop,
        } = &mut self.doubt
        else {
            return;
        };
        let mut left = TURN;
        while left > 0 && *bucket < BUCKETS {
            for (topic, mark, expiry) in index.take_bucket(*bucket) {
                left = left.saturating_sub(1);
                let stored = mark.state == State::Present;
                if !*drop {
                    self.index.offer(&topic, mark, expiry, now.wall);
                }
                let known = self.index.get(&topic).map(|entry| entry.mark.state);
                let stays = known == Some(State::Present);
                *count += usize::from(stored && stays != *drop);
                if stored && !stays {
                    self.unwanted.push_back(topic);
                }
            }
            *bucket += 1;
        }
        if *bucket == BUCKETS {
            let event = if *drop {
                Event::Dropped(*count)
            } else {
                Event::Kept(*count)
            };
            self.actions.push_back(Action::Tell(event));
            self.doubt = Doubt::None;
            self.sync.set_settled(true);
        }
    }
}
