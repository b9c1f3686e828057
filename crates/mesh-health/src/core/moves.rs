//! Which of Nginx's sessions are to be closed, when, and how many at a time.
//!
//! A session stays at its broker whatever Nginx's configuration says later, so clients of a broker that hangs would
//! wait there for ever. Guarantees: only brokers that the core names are emptied; one order a broker at a time; a
//! broker is looked at again until no session is left, since for some 100 ms after a reload old workers may open new
//! ones; what fails is tried again, ever more rarely.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mesh_model::BrokerId;

use super::{Closed, Moment};

/// The second and the third look come this long after the one before; all later ones as the third.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(450)];

/// A broker that has been emptied and still shall not serve is looked at this often: where every other broker
/// refuses, Nginx by itself sends clients there.
const STRAYS_EVERY: Duration = Duration::from_secs(5);

/// A slice of a draining broker's sessions is closed about this often.
const SLICE_EVERY: Duration = Duration::from_secs(1);

const FIRST_RETRY: Duration = Duration::from_secs(1);
const SLOWEST_RETRY: Duration = Duration::from_secs(30);

/// How fast a broker is to be emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// All sessions at once.
    AtOnce,
    /// In slices over this time.
    Over(Duration),
}

/// What a report means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// For the first time no session is left.
    pub emptied: bool,
    /// No session is left, and none came back: the number that was closed in all.
    pub finished: Option<u64>,
}

#[derive(Debug, Clone)]
struct Move {
    pace: Pace,
    /// When the first order went out.
    begun: Option<Moment>,
    next: Moment,
    looks: usize,
    failures: u32,
    closed: u64,
    left: Option<u64>,
    emptied: bool,
    finished: bool,
}

/// The brokers that are being emptied.
#[derive(Debug, Default)]
pub struct Moves {
    moves: BTreeMap<BrokerId, Move>,
    /// Brokers with an order that has not been reported, also where nobody waits for it any longer.
    under_way: BTreeSet<BrokerId>,
    may_move: bool,
    error: Option<String>,
}

impl Moves {
    /// Exactly the brokers in `wanted` are to be emptied. Nothing happens while `may_move` is false.
    pub fn settle(&mut self, wanted: &BTreeMap<BrokerId, Pace>, may_move: bool, now: Moment) {
        self.may_move = may_move;
        self.moves.retain(|id, _| wanted.contains_key(id));
        for (id, pace) in wanted {
            let begin = || Move {
                pace: *pace,
                begun: None,
                next: now,
                looks: 0,
                failures: 0,
                closed: 0,
                left: None,
                emptied: false,
                finished: false,
            };
            let known = self.moves.entry(id.clone()).or_insert_with(begin);
            if std::mem::replace(&mut known.pace, *pace) != *pace {
                known.next = known.next.min(now);
            }
        }
        if self.moves.is_empty() {
            self.error = None;
        }
    }

    /// What is to be closed now: whose sessions, and at most how many.
    pub fn next_order(&mut self, now: Moment) -> Option<(BrokerId, Option<u32>)> {
        if !self.may_move {
            return None;
        }
        let under_way = &mut self.under_way;
        let mut moves = self.moves.iter_mut();
        let (id, order) = moves.find(|(id, m)| m.next <= now && !under_way.contains(*id))?;
        under_way.insert(id.clone());
        let begun = *order.begun.get_or_insert(now);
        Some((id.clone(), order.slice(begun, now)))
    }

    /// When [`Self::next_order`] has something.
    pub fn deadline(&self) -> Option<Moment> {
        let open = self.moves.iter().filter(|(id, _)| !self.under_way.contains(*id));
        open.map(|(_, m)| m.next).min().filter(|_| self.may_move)
    }

    /// An order ended. `None` if nobody waits for it any longer.
    pub fn moved(&mut self, id: &BrokerId, result: Result<Closed, String>, now: Moment) -> Option<Progress> {
        self.under_way.remove(id);
        let order = self.moves.get_mut(id)?;
        match result {
            Ok(closed) => {
                self.error = None;
                Some(order.went_well(closed, now))
            }
            Err(error) => {
                self.error = Some(error);
                let delay = FIRST_RETRY.saturating_mul(1 << order.failures.min(10));
                order.failures += 1;
                order.next = now + delay.min(SLOWEST_RETRY);
                Some(Progress::default())
            }
        }
    }

    /// Sessions that are still to be moved off `id`.
    pub fn left(&self, id: &BrokerId) -> Option<u64> {
        self.moves.get(id)?.left
    }

    /// Why the last attempt failed.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

impl Move {
    fn slice(&self, begun: Moment, now: Moment) -> Option<u32> {
        let Pace::Over(time) = self.pace else {
            return None;
        };
        let Some(left) = self.left else {
            // Counting comes first.
            return Some(0);
        };
        let rest = (begun + time).since(now);
        let slices = rest.div_duration_f64(slice_every(time)).floor() as u64;
        // In the last slice goes all that is left.
        (slices > 0).then(|| u32::try_from(left.div_ceil(slices + 1)).unwrap_or(u32::MAX))
    }

    fn went_well(&mut self, closed: Closed, now: Moment) -> Progress {
        self.failures = 0;
        self.closed += closed.closed;
        self.left = Some(closed.left);
        self.looks += 1;
        let is_quiet = closed.closed == 0 && closed.left == 0;
        if self.finished {
            if is_quiet {
                self.next = now + STRAYS_EVERY;
                return Progress::default();
            }
            self.finished = false;
            self.looks = 1;
        }
        let emptied = closed.left == 0 && !std::mem::replace(&mut self.emptied, closed.left == 0);
        self.next = now
            + match self.pace {
                Pace::Over(time) if closed.left > 0 => slice_every(time),
                _ => LOOK_AGAIN[(self.looks - 1).min(LOOK_AGAIN.len() - 1)],
            };
        let finished = is_quiet && self.looks > LOOK_AGAIN.len();
        self.finished = finished;
        let total = finished.then(|| std::mem::take(&mut self.closed));
        if finished {
            self.next = now + STRAYS_EVERY;
        }
        Progress {
            emptied,
            finished: total,
        }
    }
}

fn slice_every(time: Duration) -> Duration {
    (time / 10).min(SLICE_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> BrokerId {
        format!("b{n}").parse().unwrap()
    }

    /// Empties `b1` of `sessions` at `pace`; returns the orders with the milliseconds at which they came.
    fn empty(pace: Pace, mut sessions: u64) -> (Vec<(u64, Option<u32>)>, u64) {
        let mut moves = Moves::default();
        let wanted = BTreeMap::from([(id(1), pace)]);
        let mut orders = Vec::new();
        for ms in 0..200_000 {
            let now = Moment::after_start(Duration::from_millis(ms));
            moves.settle(&wanted, true, now);
            let Some((_, at_most)) = moves.next_order(now) else {
                assert!(moves.deadline().is_none_or(|due| due > now));
                continue;
            };
            orders.push((ms, at_most));
            let closed = at_most.map_or(sessions, u64::from).min(sessions);
            sessions -= closed;
            let report = Closed {
                closed,
                left: sessions,
            };
            if let Some(total) = moves.moved(&id(1), Ok(report), now).unwrap().finished {
                assert_eq!(moves.deadline(), Some(now + STRAYS_EVERY));
                return (orders, total);
            }
        }
        panic!("never finished: {orders:?}");
    }

    #[test]
    fn a_demoted_broker_is_emptied_at_once_and_looked_at_again() {
        let expected = vec![(0, None), (50, None), (500, None)];
        assert_eq!(empty(Pace::AtOnce, 2000), (expected, 2000));
    }

    #[test]
    fn a_draining_broker_is_emptied_in_even_slices_within_its_time() {
        let (orders, total) = empty(Pace::Over(Duration::from_secs(10)), 100);
        assert_eq!(total, 100);
        assert_eq!(orders[0], (0, Some(0)), "counting comes first");
        let sizes: Vec<u32> = orders[1..].iter().filter_map(|(_, size)| *size).collect();
        assert!(
            sizes.len() >= 8 && sizes.iter().all(|size| *size <= 11),
            "{orders:?}"
        );
        let (last, _) = orders.last().unwrap();
        assert!(*last <= 11_500, "{orders:?}");
    }

    #[test]
    fn what_fails_is_tried_again_ever_more_rarely_and_nobody_else_is_touched() {
        let mut moves = Moves::default();
        let wanted = BTreeMap::from([(id(1), Pace::AtOnce)]);
        moves.settle(&wanted, false, Moment::START);
        assert_eq!((moves.next_order(Moment::START), moves.deadline()), (None, None));
        moves.settle(&wanted, true, Moment::START);
        let mut now = Moment::START;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(moves.next_order(now), Some((id(1), None)));
            assert_eq!(moves.next_order(now), None, "one order at a time");
            moves.moved(&id(1), Err("not permitted".to_owned()), now);
            assert_eq!(moves.deadline(), Some(now + Duration::from_secs(seconds)));
            now = now + Duration::from_secs(seconds);
        }
        assert_eq!(moves.error(), Some("not permitted"));
        moves.settle(&BTreeMap::new(), true, now);
        assert_eq!((moves.next_order(now), moves.error()), (None, None));
    }
}
