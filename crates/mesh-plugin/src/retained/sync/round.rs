//! One round with a peer, from the side of who asks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::wire::{Item, Saying};
use super::{Command, Finished, Now, Sync};
use crate::retained::index::{Index, Offer};
use crate::retained::{Expiry, Mark, State};

/// So many lists are asked for before the first is answered.
pub(super) const LISTS_AHEAD: usize = 8;
/// No more lists are asked for while so many values are still wanted.
const WANTS_ENOUGH: usize = 4_000;
/// So many values stand in one wish at most, since the broker reads them in one go.
const SLICE: usize = 200;
/// And so many bytes of topics, but for one.
const SLICE_BYTES: usize = 32 << 10;
/// So many wishes are sent before the first is answered.
pub(super) const SLICES_AHEAD: usize = 3;
/// Values that did not come as told are asked for so often.
const TRIES: u32 = 3;

/// A round that this broker has begun.
pub(super) struct Round {
    pub(super) peer: usize,
    pub(super) id: u32,
    began: Duration,
    pub(super) heard: Duration,
    settled: bool,
    /// Whether the peer has told what differs.
    answered: bool,
    /// What is still to be listed: buckets, and from where.
    lists: Vec<(u16, u64)>,
    lists_asked: usize,
    /// Values that are later at the peer.
    wants: VecDeque<Want>,
    /// Wishes that are not yet answered.
    asked: BTreeMap<u32, Vec<Want>>,
    /// What did not come as told.
    missed: Vec<Want>,
    tries: u32,
    next_slice: u32,
    fetched: u64,
    ended: u64,
}

#[derive(Debug, Clone)]
struct Want {
    topic: Box<str>,
    mark: Mark,
    expiry: Expiry,
}

impl Round {
    /// A round that begins now.
    pub(super) fn new(peer: usize, id: u32, now: Now) -> Self {
        Self {
            peer,
            id,
            began: now.up,
            heard: now.up,
            settled: false,
            answered: false,
            lists: Vec::new(),
            lists_asked: 0,
            wants: VecDeque::new(),
            asked: BTreeMap::new(),
            missed: Vec::new(),
            tries: 0,
            next_slice: 0,
            fetched: 0,
            ended: 0,
        }
    }
}

impl Sync {
    pub(super) fn answered(&mut self, round: &mut Round, saying: Saying, now: Now, index: &mut Index) {
        match saying {
            Saying::Differ { settled, buckets } => {
                round.settled = settled;
                round.answered = true;
                round.lists = buckets.into_iter().rev().map(|bucket| (bucket, 0)).collect();
            }
            Saying::Listed { bucket, next, items } => {
                round.lists_asked = round.lists_asked.saturating_sub(1);
                round.lists.extend(next.map(|next| (bucket, next)));
                for item in items {
                    if item.mark.state != State::Present {
                        round.ended += u64::from(self.ended(item, now, index));
                    } else if let Offer::Taken(_) = index.would(&item.topic, item.mark) {
                        round.wants.push_back(Want {
                            topic: item.topic,
                            mark: item.mark,
                            expiry: item.expiry,
                        });
                    } else {
                        // It may tell when the value expires.
                        learn(index, &item.topic, item.mark, item.expiry, now);
                    }
                }
            }
            Saying::Given { slice, items } => {
                let Some(wants) = round.asked.remove(&slice) else {
                    return;
                };
                for want in wants {
                    let other = items
                        .iter()
                        .any(|item| item.topic == want.topic && item.mark != want.mark);
                    match index.would(&want.topic, want.mark) {
                        Offer::Taken(_) if !other => round.missed.push(want),
                        Offer::Taken(_) => {}
                        Offer::Known | Offer::Stale => {
                            round.fetched += 1;
                            learn(index, &want.topic, want.mark, want.expiry, now);
                        }
                    }
                }
                for item in items {
                    if item.mark.state == State::Present {
                        learn(index, &item.topic, item.mark, item.expiry, now);
                    } else {
                        round.ended += u64::from(self.ended(item, now, index));
                    }
                }
            }
            Saying::Here { .. } | Saying::Ask { .. } | Saying::List { .. } | Saying::Want { .. } => {}
        }
    }

    /// A peer says that a value has ended. Whether that is news.
    fn ended(&mut self, item: Item, now: Now, index: &mut Index) -> bool {
        let second = match item.expiry {
            Expiry::At(second) => second.min(now.wall),
            _ => now.wall,
        };
        // What is forgotten here already must not come back from who has not forgotten it yet.
        let old = second < now.wall.saturating_sub(self.ttl);
        let news = !old && matches!(index.would(&item.topic, item.mark), Offer::Taken(_));
        if news {
            let expiry = Expiry::At(second);
            self.commands.push(Command::Ended(Item { expiry, ..item }));
        }
        news
    }

    /// Asks for what comes next. Whether the round is over.
    pub(super) fn go_on(&mut self, round: &mut Round, now: Now) -> bool {
        while round.lists_asked < LISTS_AHEAD
            && round.wants.len() < WANTS_ENOUGH
            && let Some((bucket, from)) = round.lists.pop()
        {
            round.lists_asked += 1;
            self.say(round.peer, round.id, &Saying::List { bucket, from });
        }
        let listed = round.answered && round.lists.is_empty() && round.lists_asked == 0;
        if listed && round.wants.is_empty() && round.asked.is_empty() && !round.missed.is_empty() {
            round.tries += 1;
            if round.tries == TRIES {
                self.peers[round.peer].failed(now.up);
                return true;
            }
            round.wants = std::mem::take(&mut round.missed).into();
        }
        // A small wish costs as much as a large one, so it waits for company.
        while round.asked.len() < SLICES_AHEAD
            && !round.wants.is_empty()
            && (round.wants.len() >= SLICE || listed || round.lists_asked == 0)
        {
            let wants = take_slice(&mut round.wants);
            let topics = wants.iter().map(|want| (want.topic.clone(), want.mark)).collect();
            let slice = round.next_slice;
            round.next_slice += 1;
            round.asked.insert(slice, wants);
            self.say(round.peer, round.id, &Saying::Want { slice, topics });
        }
        let over = listed && round.wants.is_empty() && round.asked.is_empty();
        if over {
            let (fetched, ended) = (round.fetched, round.ended);
            self.peers[round.peer].finished(now.up, fetched + ended > 0);
            self.commands.push(Command::Finished(Finished {
                peer: round.peer,
                took: now.up.saturating_sub(round.began),
                fetched,
                ended,
                settled: round.settled,
            }));
        }
        over
    }
}

/// If exactly this value is known here, then now also when it expires.
fn learn(index: &mut Index, topic: &str, mark: Mark, expiry: Expiry, now: Now) {
    if expiry != Expiry::Unknown && index.would(topic, mark) == Offer::Known {
        index.offer(topic, mark, expiry, now.wall);
    }
}

fn take_slice(wants: &mut VecDeque<Want>) -> Vec<Want> {
    let mut slice = Vec::new();
    let mut bytes = 0;
    while slice.len() < SLICE
        && let Some(want) = wants.front()
    {
        bytes += want.topic.len();
        if bytes > SLICE_BYTES && !slice.is_empty() {
            break;
        }
        slice.extend(wants.pop_front());
    }
    slice
}
