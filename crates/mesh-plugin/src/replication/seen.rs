//! Which messages were seen: sequence numbers, for each origin and each of its boots.
//!
//! Numbers mostly come in order, so that a set of them is one range that grows at its end. A message of QoS 2 gets
//! its number when it is published and travels when it is released, so numbers may come late: a window of the last
//! one would be wrong, and the set is kept whole. It is bounded: what a set cannot hold as ranges is closed from
//! below, and only the newest boots of an origin are kept.

use mesh_model::BrokerId;

/// A set has so many ranges at most. Gaps that never close are rare (a client that never releases a message), and
/// their origin tells which numbers never come (`void` in a report).
const MOST_RANGES: usize = 4096;

/// So many boots of one origin are kept.
const MOST_EPOCHS: usize = 4;

/// So many origins are kept: all brokers of a mesh, and some that once were.
const MOST_ORIGINS: usize = 256;

/// A set of numbers, as the ranges that it consists of: ascending, with a gap between each two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The ranges, ascending; both ends belong to a range.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The greatest number.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, last)| *last)
    }

    /// Whether `number` is one of these.
    pub fn contains(&self, number: u64) -> bool {
        match self.0.last() {
            Some((first, last)) if *first <= number => number <= *last,
            _ => {
                let at = self.0.partition_point(|(_, last)| *last < number);
                self.0.get(at).is_some_and(|(first, _)| *first <= number)
            }
        }
    }

    /// Adds one number. Whether it is new.
    pub fn insert(&mut self, number: u64) -> bool {
        if let Some((_, last)) = self.0.last_mut()
            && last.checked_add(1) == Some(number)
        {
            *last = number;
            return true;
        }
        let new = !self.contains(number);
        if new {
            self.insert_range(number, number);
        }
        new
    }

    /// Adds all numbers from `first` to `last`.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // Those that touch it become one with it.
        let from = self
            .0
            .partition_point(|(_, before)| *before < first.saturating_sub(1));
        let to = self
            .0
            .partition_point(|(after, _)| *after <= last.saturating_add(1));
        let (mut first, mut last) = (first, last);
        if from < to {
            first = first.min(self.0[from].0);
            last = last.max(self.0[to - 1].1);
        }
        self.0.splice(from..to, [(first, last)]);
        if self.0.len() > MOST_RANGES {
            let (first, _) = self.0.remove(0);
            self.0[0].0 = first;
        }
    }

    /// Takes out every number below `end` and returns them.
    pub fn take_below(&mut self, end: u64) -> Self {
        let mut taken = Self::default();
        if let Some(last) = end.checked_sub(1) {
            taken.insert_range(0, last);
            let mut rest = self.clone();
            rest.remove_all(&taken);
            self.remove_all(&rest);
            taken = std::mem::replace(self, rest);
        }
        taken
    }

    /// Adds all of `others`.
    pub fn insert_all(&mut self, others: &Self) {
        for (first, last) in others.iter() {
            self.insert_range(first, last);
        }
    }

    /// Takes out every number that is in `others`. Returns how many.
    pub fn remove_all(&mut self, others: &Self) -> u64 {
        let before = self.count();
        let mut rest = Vec::new();
        for (first, last) in self.iter() {
            let mut next = first;
            let at = others.0.partition_point(|(_, end)| *end < first);
            for (start, end) in others.0[at..].iter().take_while(|(start, _)| *start <= last) {
                if next < *start {
                    rest.push((next, start - 1));
                }
                next = next.max(end.saturating_add(1));
            }
            if next <= last {
                rest.push((next, last));
            }
        }
        self.0 = rest;
        before - self.count()
    }
}

/// The boots of one origin, ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    id: BrokerId,
    epochs: Vec<(u64, Ranges)>,
}

/// What was seen of all origins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen(Vec<Origin>);

impl Seen {
    /// Whether this message was seen. Of a boot that is older than all that are kept, everything was.
    pub fn contains(&self, origin: &BrokerId, epoch: u64, seq: u64) -> bool {
        let Some(origin) = self.0.iter().find(|known| known.id == *origin) else {
            return false;
        };
        // Mostly it is the newest.
        match origin.epochs.iter().rev().find(|(known, _)| *known <= epoch) {
            Some((known, ranges)) => *known == epoch && ranges.contains(seq),
            None => origin.epochs.len() == MOST_EPOCHS,
        }
    }

    /// The numbers that were seen of this boot.
    pub fn of(&self, origin: &BrokerId, epoch: u64) -> Option<&Ranges> {
        let origin = self.0.iter().find(|known| known.id == *origin)?;
        let found = origin.epochs.iter().find(|(known, _)| *known == epoch);
        found.map(|(_, ranges)| ranges)
    }

    /// The set of this boot, to be added to. `None` if it is older than all that are kept, or one origin too many.
    pub fn of_mut(&mut self, origin: &BrokerId, epoch: u64) -> Option<&mut Ranges> {
        let at = match self.0.iter().position(|known| known.id == *origin) {
            Some(at) => at,
            None if self.0.len() >= MOST_ORIGINS => return None,
            None => {
                self.0.push(Origin {
                    id: origin.clone(),
                    epochs: Vec::new(),
                });
                self.0.len() - 1
            }
        };
        let epochs = &mut self.0[at].epochs;
        let mut at = epochs.partition_point(|(known, _)| *known < epoch);
        if epochs.get(at).is_none_or(|(known, _)| *known != epoch) {
            if epochs.len() == MOST_EPOCHS {
                if at == 0 {
                    return None;
                }
                epochs.remove(0);
                at -= 1;
            }
            epochs.insert(at, (epoch, Ranges::default()));
        }
        Some(&mut epochs[at].1)
    }

    /// Every set, with its origin and boot.
    pub fn iter(&self) -> impl Iterator<Item = (&BrokerId, u64, &Ranges)> {
        self.0.iter().flat_map(|origin| {
            let epochs = origin.epochs.iter();
            epochs.map(|(epoch, ranges)| (&origin.id, *epoch, ranges))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::Random;

    fn as_ranges(numbers: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *number => *last = *number,
                _ => ranges.push((*number, *number)),
            }
        }
        ranges
    }

    #[test]
    fn it_is_what_a_plain_set_of_numbers_is() {
        for seed in 0..200 {
            let mut random = Random::seeded(seed);
            let (mut ranges, mut numbers) = (Ranges::default(), BTreeSet::new());
            for _ in 0..200 {
                let number = 1 + random.below(120) as u64;
                match random.below(12) {
                    0 => {
                        let last = number + random.below(9) as u64;
                        ranges.insert_range(number, last);
                        numbers.extend(number..=last);
                    }
                    1 => {
                        let end = random.below(30) as u64;
                        let taken = ranges.take_below(end);
                        let rest = numbers.split_off(&end);
                        assert_eq!(taken.iter().collect::<Vec<_>>(), as_ranges(&numbers));
                        numbers = rest;
                    }
                    2 => {
                        let mut others = Ranges::default();
                        for _ in 0..random.below(6) {
                            let first = random.below(130) as u64;
                            others.insert_range(first, first + random.below(12) as u64);
                        }
                        let before = numbers.len();
                        numbers.retain(|number| !others.contains(*number));
                        assert_eq!(ranges.remove_all(&others), (before - numbers.len()) as u64);
                    }
                    _ => assert_eq!(ranges.insert(number), numbers.insert(number), "seed {seed}"),
                }
                assert_eq!(
                    ranges.iter().collect::<Vec<_>>(),
                    as_ranges(&numbers),
                    "seed {seed}"
                );
                assert_eq!(ranges.count(), numbers.len() as u64);
                assert_eq!(ranges.last(), numbers.last().copied());
                let number = random.below(140) as u64;
                assert_eq!(ranges.contains(number), numbers.contains(&number));
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_numbers_too() {
        let mut ranges = Ranges::default();
        assert!(ranges.insert(u64::MAX) && !ranges.insert(u64::MAX));
        assert!(ranges.insert(0) && !ranges.insert(0));
        ranges.insert_range(1, u64::MAX - 1);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, u64::MAX)]);
    }

    #[test]
    fn too_many_gaps_close_from_below() {
        let mut ranges = Ranges::default();
        for number in 0..MOST_RANGES as u64 + 2 {
            ranges.insert(10 + 2 * number);
        }
        assert_eq!(ranges.0.len(), MOST_RANGES);
        assert!(ranges.contains(11) && ranges.contains(13) && !ranges.contains(15));
    }

    #[test]
    fn boots_are_apart_and_only_the_newest_are_kept() {
        let origin: BrokerId = "b1".parse().unwrap();
        let mut seen = Seen::default();
        assert!(!seen.contains(&origin, 1, 1));
        for epoch in [3, 1, 4, 2] {
            assert!(seen.of_mut(&origin, epoch).unwrap().insert(epoch));
        }
        assert!(seen.contains(&origin, 1, 1) && !seen.contains(&origin, 2, 1));
        assert!(seen.of_mut(&origin, 9).unwrap().insert(1));
        assert!(seen.contains(&origin, 1, 7), "older than all that are kept");
        assert!(seen.of_mut(&origin, 1).is_none());
        assert!(!seen.contains(&origin, 5, 1) && seen.contains(&origin, 9, 1));
        let epochs: Vec<u64> = seen.iter().map(|(_, epoch, _)| epoch).collect();
        assert_eq!(epochs, [2, 3, 4, 9]);
    }
}
