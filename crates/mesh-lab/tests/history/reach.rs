//! Which messages cannot have been lost, whatever the network did: pure, from what was done to it and when.
//!
//! A message is *held* by the broker that acknowledged it, and by each peer that must have heard it since: both ends
//! and what lies between were left alone for long enough. A broker that dies holds nothing any more, though it may
//! have saved more than that. While somebody holds a message, it must not be lost.

use std::collections::BTreeMap;
use std::time::Duration;

/// After a fault's end, a link is up again within this: both ends notice by their keepalive (5 s, and half of that
/// again) that it was broken, and try again after 1 to 5 s.
const LINK_RETURNS: Duration = Duration::from_secs(15);

/// What is sent over a link that is up arrives within this on a loaded machine.
const HEARD: Duration = Duration::from_secs(1);

/// A peer that is not the origin sends what another one lacks after 3 s, a second more for each one before it, and
/// again after 5 s.
const RELAYED: Duration = Duration::from_secs(12);

/// A fault that is over within this leads to nothing that is sent by others: they wait for three seconds.
const SHORT: Duration = Duration::from_millis(2_500);

/// For so long after a standstill what clients send that were there before it may count as sent before it.
const LATE: Duration = Duration::from_secs(6);

/// Who was disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A broker hung or was dead.
    Broker(usize),
    /// Something between the two was cut.
    Pair(usize, usize),
}

/// A fault.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    /// Whose.
    pub who: Who,
    /// From just before it was made.
    pub from: Duration,
    /// Until just after it was mended.
    pub until: Duration,
}

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Death {
    /// Before this it lived.
    pub from: Duration,
    /// After this it was dead. In between it may have acknowledged something.
    pub until: Duration,
    /// Which broker.
    pub broker: usize,
}

/// Everything that was done to the network.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// The faults.
    pub troubles: Vec<Trouble>,
    /// The ends of processes; each is part of a trouble too.
    pub deaths: Vec<Death>,
    /// How many brokers.
    pub brokers: usize,
}

impl Reach {
    /// Whether a message that `origin` acknowledged at `at` may be gone.
    pub fn may_be_lost(&self, origin: usize, at: Duration) -> bool {
        let mut holders = BTreeMap::from([(origin, at)]);
        // Who died has to hear it anew.
        let mut again = BTreeMap::new();
        let mut deaths = self.deaths.clone();
        deaths.sort();
        for death in deaths.into_iter().filter(|death| death.until >= at) {
            self.spread(&mut holders, &again, origin, death.from);
            holders.remove(&death.broker);
            again.insert(death.broker, death.until);
            if holders.is_empty() {
                return true;
            }
        }
        false
    }

    /// From when on, at the latest, a message counts as sent that `origin` acknowledged at `at`. Brokers may have stood
    /// still without a fault, too.
    pub fn counts_from(&self, origin: usize, at: Duration, stalls: &[Trouble]) -> Duration {
        let standstills = self.troubles.iter().chain(stalls).filter(|trouble| {
            trouble.who == Who::Broker(origin) && trouble.from <= at && at <= trouble.until + LATE
        });
        standstills.map(|trouble| trouble.from).min().unwrap_or(at)
    }

    /// Whether a message that was sent to `origin` at `sent` may come to `receiver` after one that was sent at `later`.
    pub fn may_be_overtaken(&self, origin: usize, receiver: usize, sent: Duration, later: Duration) -> bool {
        let concerned = |who: Who| match who {
            Who::Broker(broker) => broker == origin || broker == receiver,
            Who::Pair(one, other) => [(origin, receiver), (receiver, origin)].contains(&(one, other)),
        };
        origin != receiver
            && self.troubles.iter().any(|trouble| {
                let died = |death: &Death| {
                    trouble.who == Who::Broker(death.broker)
                        && death.from <= trouble.until
                        && trouble.from <= death.until
                };
                let is_short = trouble.until - trouble.from < SHORT && !self.deaths.iter().any(died);
                concerned(trouble.who)
                    && !is_short
                    && sent <= trouble.until + LINK_RETURNS
                    && trouble.from <= later + HEARD
            })
    }

    /// Adds everyone who must have heard it by `end`.
    fn spread(
        &self,
        holders: &mut BTreeMap<usize, Duration>,
        again: &BTreeMap<usize, Duration>,
        origin: usize,
        end: Duration,
    ) {
        loop {
            let heard = (0..self.brokers)
                .filter(|peer| !holders.contains_key(peer))
                .filter_map(|peer| {
                    let from = holders.iter().filter_map(|(holder, since)| {
                        let patience = if *holder == origin { HEARD } else { RELAYED };
                        let earliest = again.get(&peer).map_or(*since, |death| *since.max(death));
                        self.heard(*holder, peer, earliest, patience)
                    });
                    Some((from.min()?, peer))
                })
                .min();
            match heard {
                Some((at, peer)) if at <= end => drop(holders.insert(peer, at)),
                _ => return,
            }
        }
    }

    /// When at the latest `peer` has what `holder` has had since `since`.
    fn heard(&self, holder: usize, peer: usize, since: Duration, patience: Duration) -> Option<Duration> {
        let concerned = || {
            self.troubles.iter().filter(|trouble| match trouble.who {
                Who::Broker(broker) => broker == holder || broker == peer,
                Who::Pair(one, other) => [(holder, peer), (peer, holder)].contains(&(one, other)),
            })
        };
        let starts = concerned().map(|trouble| (trouble.until + LINK_RETURNS).max(since));
        let is_calm = |start: Duration| {
            let (from, until) = (start.saturating_sub(LINK_RETURNS), start + patience);
            concerned().all(|trouble| trouble.until <= from || trouble.from > until)
        };
        let start = starts.chain([since]).filter(|start| is_calm(*start)).min()?;
        Some(start + patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn reach(troubles: &[(Who, u64, u64)], deaths: &[(u64, usize)]) -> Reach {
        let trouble = |(who, from, until): &(Who, u64, u64)| Trouble {
            who: *who,
            from: s(*from),
            until: s(*until),
        };
        let death = |(at, broker): &(u64, usize)| Death {
            from: s(*at),
            until: s(*at) + Duration::from_millis(10),
            broker: *broker,
        };
        Reach {
            troubles: troubles.iter().map(trouble).collect(),
            deaths: deaths.iter().map(death).collect(),
            brokers: 3,
        }
    }

    #[test]
    fn what_a_peer_has_heard_survives_its_origin() {
        let dies = |at| (Who::Broker(0), at, at + 2);
        // Heard by both peers a second later, and by nobody if the broker dies before.
        assert!(!reach(&[dies(10)], &[(10, 0)]).may_be_lost(0, s(5)));
        assert!(reach(&[dies(10)], &[(10, 0)]).may_be_lost(0, s(10)));
        // Cut off from both peers, or from one.
        let cut = |peer| (Who::Pair(peer, 0), 4, 30);
        assert!(reach(&[dies(10), cut(1), cut(2)], &[(10, 0)]).may_be_lost(0, s(5)));
        assert!(!reach(&[dies(10), cut(1)], &[(10, 0)]).may_be_lost(0, s(5)));
    }

    #[test]
    fn a_peer_that_heard_it_may_die_after_it_has_told_the_rest() {
        let troubles = |second| {
            [
                (Who::Broker(0), 10, 12),
                (Who::Broker(1), second, second + 1),
                (Who::Pair(0, 2), 2, 60),
            ]
        };
        // Broker 2 is cut off from the origin and learns it from broker 1, whose death is early or late.
        assert!(reach(&troubles(11), &[(10, 0), (11, 1)]).may_be_lost(0, s(5)));
        assert!(!reach(&troubles(40), &[(10, 0), (40, 1)]).may_be_lost(0, s(5)));
        assert!(!reach(&[], &[]).may_be_lost(2, s(0)));
    }

    #[test]
    fn a_peer_that_died_does_not_hold_what_it_heard_before() {
        let troubles = [
            (Who::Broker(1), 10, 11),
            (Who::Broker(0), 13, 14),
            (Who::Pair(0, 2), 0, 60),
        ];
        // Broker 1 heard it at once, died, and had no time to hear it again before the origin died.
        assert!(reach(&troubles, &[(10, 1), (13, 0)]).may_be_lost(0, s(5)));
    }

    #[test]
    fn a_message_is_overtaken_only_where_others_help() {
        let long = reach(&[(Who::Pair(0, 1), 10, 14)], &[]);
        assert!(long.may_be_overtaken(0, 1, s(9), s(10)) && long.may_be_overtaken(1, 0, s(28), s(28)));
        assert!(!long.may_be_overtaken(0, 1, s(8), s(8)) && !long.may_be_overtaken(0, 1, s(30), s(31)));
        assert!(!long.may_be_overtaken(0, 2, s(11), s(12)) && !long.may_be_overtaken(0, 0, s(11), s(12)));
        let short = [(Who::Broker(1), 10, 12)];
        assert!(!reach(&short, &[]).may_be_overtaken(0, 1, s(9), s(11)));
        assert!(reach(&short, &[(10, 1)]).may_be_overtaken(0, 1, s(9), s(11)));
    }

    #[test]
    fn what_is_read_after_a_standstill_may_count_as_sent_before_it() {
        let hung = reach(&[(Who::Broker(0), 10, 12), (Who::Broker(0), 19, 20)], &[]);
        for (at, from) in [(9, 9), (11, 10), (12, 10), (18, 10), (19, 19), (26, 19), (27, 27)] {
            assert_eq!(hung.counts_from(0, s(at), &[]), s(from), "{at}");
        }
        assert_eq!(hung.counts_from(1, s(11), &[]), s(11));
        assert_eq!(reach(&[], &[]).counts_from(0, s(18), &hung.troubles), s(10));
    }

    #[test]
    fn a_link_that_was_broken_needs_time_to_return() {
        let cut = |peer| (Who::Pair(0, peer), 0, 5);
        let troubles = |death| [cut(1), cut(2), (Who::Broker(0), death, death + 1)];
        assert!(reach(&troubles(19), &[(19, 0)]).may_be_lost(0, s(6)));
        assert!(!reach(&troubles(22), &[(22, 0)]).may_be_lost(0, s(6)));
    }
}
