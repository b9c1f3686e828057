//! Finds and fetches what differs between this broker and its peers, in rounds.
//!
//! In a **round** this broker asks one peer. It sends the digests of its buckets, is told which differ, has those
//! listed in pages, takes over deletions at once, and asks for the values that are later at the peer, some hundred
//! at a time. The values come over the link like any retained message, and are judged like one. Only the side that
//! asks changes: the peer finds out in a round of its own what it lacks.
//!
//! A round is due when a link to a peer has come up, and when a peer's digest has been another one for a while. One
//! round runs at a time, so that a fresh broker does not fetch everything from everyone. Nothing is relied on: what
//! is lost on the way makes the round stall, and it is begun again later.
//!
//! Who asks remembers everything, who answers nothing but what is being read for a peer. Both do only so much at a
//! time; how much stands in the constants.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::digest::BUCKETS;
use super::index::{Entry, Index, Offer};
use super::{Expiry, Mark, State};
use crate::replication;

pub use peer::Contact;
use peer::Peer;
pub use wire::{Item, Saying};

mod peer;
#[cfg(test)]
mod tests;
mod wire;

/// So many entries stand in one answer at most.
const PAGE: usize = 512;
/// And so many bytes of topics, but for one.
const PAGE_BYTES: usize = 128 << 10;
/// So many lists are asked for before the first is answered.
const LISTS_AHEAD: usize = 8;
/// No more lists are asked for while so many values are still wanted.
const WANTS_ENOUGH: usize = 4_000;
/// So many values stand in one wish at most, since the broker reads them in one go.
const SLICE: usize = 200;
/// And so many bytes of topics, but for one.
const SLICE_BYTES: usize = 32 << 10;
/// So many wishes are sent before the first is answered.
const SLICES_AHEAD: usize = 3;
/// So many requests of a peer wait at most; it sends no more than the constants above tell.
const MOST_REQUESTS: usize = 4 * (LISTS_AHEAD + SLICES_AHEAD);
/// So many entries are listed in one turn of the loop.
const TURN: usize = 2 * PAGE;
/// Values that did not come as told are asked for so often.
const TRIES: u32 = 3;

/// The time, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since the broker started.
    pub up: Duration,
    /// In seconds since 1970.
    pub wall: u32,
}

impl From<replication::Now> for Now {
    fn from(now: replication::Now) -> Self {
        Self {
            up: Duration::from_millis(now.up_ms),
            wall: u32::try_from(now.wall_ms / 1000).unwrap_or(u32::MAX),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Say this to a peer.
    Say(usize, Vec<u8>),
    /// A peer told that this has ended.
    Ended(Item),
    /// Read these values from this broker, for a wish of a peer.
    Read(Wish, Vec<(Box<str>, Mark)>),
    /// A round has ended well.
    Finished(Finished),
}

/// A wish of a peer, which has to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wish {
    /// Whose.
    pub peer: usize,
    round: u32,
    slice: u32,
}

/// A round that has ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// With whom.
    pub peer: usize,
    /// How long it took.
    pub took: Duration,
    /// How many values were fetched.
    pub fetched: u64,
    /// How many deletions were taken over.
    pub ended: u64,
    /// Whether the peer vouches for what it has.
    pub settled: bool,
}

/// A round that this broker has begun.
struct Round {
    peer: usize,
    id: u32,
    began: Duration,
    heard: Duration,
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

/// Rounds with all peers.
pub struct Sync {
    peers: Vec<Peer>,
    round: Option<Round>,
    next_round: u32,
    /// How long what has ended is remembered, in seconds.
    ttl: u32,
    /// Whether this broker vouches for what it has.
    settled: bool,
    commands: Vec<Command>,
}

impl Sync {
    /// No round with any of so many peers yet. `first_round` tells the rounds of this boot from those of others.
    pub fn new(peers: usize, ttl: u32, first_round: u32) -> Self {
        Self {
            peers: (0..peers).map(|_| Peer::default()).collect(),
            round: None,
            next_round: first_round,
            ttl,
            settled: true,
            commands: Vec::new(),
        }
    }

    /// Whether this broker vouches for what it has: it was not away for so long that it may hold what was deleted.
    pub fn set_settled(&mut self, settled: bool) {
        self.settled = settled;
    }

    /// Whether a round has ended well with each peer that is there, and somebody is.
    pub fn is_through(&self) -> bool {
        let mut there = self.peers.iter().filter(|peer| peer.is_up()).peekable();
        there.peek().is_some() && there.all(Peer::is_through)
    }

    /// Whether a round runs, or a peer waits for an answer.
    pub fn is_busy(&self) -> bool {
        self.round.is_some() || self.peers.iter().any(|peer| !peer.requests.is_empty())
    }

    /// What is to be done since the last time.
    pub fn take_commands(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.commands)
    }

    /// The loop has turned. `contacts` tells how it stands with each peer.
    pub fn tick(&mut self, now: Now, contacts: &[Contact], index: &Index) {
        let own = index.digests().present();
        for (peer, contact) in self.peers.iter_mut().zip(contacts) {
            peer.look(*contact, own, now.up);
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].is_up() && now.up >= self.peers[peer].tell {
                self.peers[peer].tell = now.up + peer::TOLD_EVERY;
                self.say(peer, 0, &Saying::Here { digest: own });
            }
        }
        if let Some(round) = &self.round {
            let peer = &mut self.peers[round.peer];
            if !peer.is_up() {
                self.round = None;
            } else if now.up.saturating_sub(round.heard) > peer::STALLED {
                peer.failed(now.up);
                self.round = None;
            }
        }
        if self.round.is_none()
            && let Some(peer) = self.peers.iter().position(|peer| peer.is_due(now.up))
        {
            self.begin(peer, now, index);
        }
        self.answer(index);
    }

    fn begin(&mut self, peer: usize, now: Now, index: &Index) {
        let id = self.next_round;
        self.next_round = self.next_round.wrapping_add(1);
        self.round = Some(Round {
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
        });
        let digests = index.digests().buckets().to_vec();
        self.say(peer, id, &Saying::Ask { digests });
    }

    fn say(&mut self, peer: usize, round: u32, saying: &Saying) {
        self.commands.push(Command::Say(peer, saying.encode(round)));
    }

    /// A peer has sent a value that was asked for.
    pub fn heard_of(&mut self, peer: usize, now: Now) {
        if let Some(round) = self.round.as_mut().filter(|round| round.peer == peer) {
            round.heard = now.up;
        }
    }

    /// A peer has said this.
    pub fn hear(&mut self, peer: usize, payload: &[u8], now: Now, index: &mut Index) {
        let Some((id, saying)) = Saying::decode(payload) else {
            return;
        };
        match saying {
            Saying::Here { digest } => self.peers[peer].digest = Some(digest),
            Saying::Ask { digests } => {
                let own = index.digests().buckets().iter();
                let differ = own
                    .zip(&digests)
                    .enumerate()
                    .filter(|(_, (own, theirs))| own != theirs);
                let buckets = differ.map(|(bucket, _)| bucket as u16).collect();
                // Whatever it still waited for it does not any more.
                self.peers[peer].requests.clear();
                let settled = self.settled;
                self.say(peer, id, &Saying::Differ { settled, buckets });
            }
            Saying::List { .. } | Saying::Want { .. } => {
                let requests = &mut self.peers[peer].requests;
                if requests.len() < MOST_REQUESTS {
                    requests.push_back((id, saying));
                }
            }
            Saying::Differ { .. } | Saying::Listed { .. } | Saying::Given { .. } => {
                // Taken out, so that it can be changed while commands are added.
                let Some(mut round) = self.round.take() else {
                    return;
                };
                if (round.peer, round.id) == (peer, id) {
                    round.heard = now.up;
                    self.answered(&mut round, saying, now, index);
                    if self.go_on(&mut round, now) {
                        return;
                    }
                }
                self.round = Some(round);
            }
        }
    }

    fn answered(&mut self, round: &mut Round, saying: Saying, now: Now, index: &mut Index) {
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
    fn go_on(&mut self, round: &mut Round, now: Now) -> bool {
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

    /// Answers requests of peers, as much as one turn may cost.
    fn answer(&mut self, index: &Index) {
        let mut left = TURN;
        let mut idle = 0;
        // Each peer in turn, so that one that asks much does not keep the others waiting.
        let mut peers = (0..self.peers.len()).cycle();
        while left > 0
            && idle < self.peers.len()
            && let Some(peer) = peers.next()
        {
            let Some((round, saying)) = self.peers[peer].requests.pop_front() else {
                idle += 1;
                continue;
            };
            idle = 0;
            match saying {
                Saying::List { bucket, from } => {
                    let (items, next) = page(index, bucket, from);
                    left = left.saturating_sub(items.len().max(1));
                    self.say(peer, round, &Saying::Listed { bucket, next, items });
                }
                Saying::Want { slice, topics } => {
                    left = left.saturating_sub(topics.len());
                    let wish = Wish { peer, round, slice };
                    self.commands.push(Command::Read(wish, topics));
                }
                _ => {}
            }
        }
    }

    /// All values of a wish are on their way but for those in `items`; see [`Saying::Given`].
    pub fn given(&mut self, wish: Wish, items: Vec<Item>) {
        let slice = wish.slice;
        self.say(wish.peer, wish.round, &Saying::Given { slice, items });
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

/// What is in a bucket from a place on, as much as fits into an answer, and where to go on.
fn page(index: &Index, bucket: u16, from: u64) -> (Vec<Item>, Option<u64>) {
    let mut most = PAGE;
    loop {
        let (entries, next) = index.list(usize::from(bucket) % BUCKETS, from, most);
        let items: Vec<_> = entries.map(item).collect();
        let bytes: usize = items.iter().map(|item| item.topic.len()).sum();
        if bytes <= PAGE_BYTES || most == 1 {
            return (items, next);
        }
        most /= 2;
    }
}

fn item(entry: Entry<'_>) -> Item {
    Item {
        topic: entry.topic.into(),
        mark: entry.mark,
        expiry: entry.expiry,
    }
}
