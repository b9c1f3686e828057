//! What peers ask for, as much as one turn of the loop may cost.

use super::round::{LISTS_AHEAD, SLICES_AHEAD};
use super::wire::{Item, Saying};
use super::{Command, Sync, Wish};
use crate::retained::digest::BUCKETS;
use crate::retained::index::{Entry, Index};

/// So many entries stand in one answer at most.
const PAGE: usize = 512;
/// And so many bytes of topics, but for one.
const PAGE_BYTES: usize = 128 << 10;
/// So many requests of a peer wait at most; it sends no more than the constants above tell.
pub(super) const MOST_REQUESTS: usize = 4 * (LISTS_AHEAD + SLICES_AHEAD);
/// So many entries are listed in one turn of the loop.
const TURN: usize = 2 * PAGE;

impl Sync {
    /// Answers requests of peers, as much as one turn may cost.
    pub(super) fn answer(&mut self, index: &Index) {
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
