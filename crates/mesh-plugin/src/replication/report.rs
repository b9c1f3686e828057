//! What a broker tells each peer over the link that the peer fetches: what it has seen, and what of its own the
//! peer need not wait for.
//!
//! ```text
//! 1 19c8a3f2b10 19c8a3ffe01
//! void 7 1a-1c
//! seen broker2 19c8a3f0000 1-2f 31
//! ```
//!
//! The first line is the version, the boot of the sender, and its clock in milliseconds since 1970. `void` are numbers of that boot that no message has:
//! the receiver takes them as seen. Each `seen` line is an origin, one of its boots, and the numbers seen of it.
//! Numbers are hexadecimal, ranges ascend.

use std::fmt::Write;

use mesh_model::BrokerId;

use super::seen::{Ranges, Seen};
use crate::stamp::hexadecimal;

const VERSION: &str = "1";

/// So many ranges of one boot are told at most, the lowest. What is above counts as unseen by who reads this.
const MOST_RANGES: usize = 512;

/// A report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The boot of the broker that tells.
    pub epoch: u64,
    /// Its clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Numbers of that boot that will never come.
    pub void: Ranges,
    /// What it has seen.
    pub seen: Vec<(BrokerId, u64, Ranges)>,
}

/// Writes a report.
pub fn write(epoch: u64, wall_ms: u64, void: &Ranges, seen: &Seen) -> String {
    let mut text = format!("{VERSION} {epoch:x} {wall_ms:x}\n");
    if !void.is_empty() {
        text.push_str("void");
        ranges(&mut text, void);
    }
    for (origin, epoch, numbers) in seen.iter().filter(|(_, _, numbers)| !numbers.is_empty()) {
        // Writing to a String does not fail.
        let _ = write!(text, "seen {origin} {epoch:x}");
        ranges(&mut text, numbers);
    }
    text
}

fn ranges(text: &mut String, ranges: &Ranges) {
    for (first, last) in ranges.iter().take(MOST_RANGES) {
        let _ = if first == last {
            write!(text, " {first:x}")
        } else {
            write!(text, " {first:x}-{last:x}")
        };
    }
    text.push('\n');
}

impl Report {
    /// Reads a report; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut words = lines.next()?.split(' ');
        if words.next()? != VERSION {
            return None;
        }
        let mut report = Self {
            epoch: hexadecimal(words.next()?)?,
            wall_ms: hexadecimal(words.next()?)?,
            ..Self::default()
        };
        for line in lines {
            let mut words = line.split(' ');
            match words.next()? {
                "void" => report.void = parse_ranges(words)?,
                "seen" => {
                    let origin = words.next()?.parse().ok()?;
                    let epoch = hexadecimal(words.next()?)?;
                    report.seen.push((origin, epoch, parse_ranges(words)?));
                }
                // Later versions may tell more.
                _ => {}
            }
        }
        Some(report)
    }
}

fn parse_ranges<'a>(words: impl Iterator<Item = &'a str>) -> Option<Ranges> {
    let mut ranges = Ranges::default();
    for word in words {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let (first, last) = (hexadecimal(first)?, hexadecimal(last)?);
        if first > last {
            return None;
        }
        ranges.insert_range(first, last);
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn some() -> (Ranges, Seen) {
        let mut void = Ranges::default();
        void.insert_range(7, 7);
        void.insert_range(0x1a, 0x1c);
        let mut seen = Seen::default();
        let of = seen.of_mut(&"broker2".parse().unwrap(), 0x19c).unwrap();
        of.insert_range(1, 0x2f);
        of.insert(0x31);
        (void, seen)
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let (void, seen) = some();
        let text = write(0xabc, 0xdef, &void, &seen);
        assert_eq!(text, "1 abc def\nvoid 7 1a-1c\nseen broker2 19c 1-2f 31\n");
        let report = Report::parse(&text).unwrap();
        assert_eq!(
            (report.epoch, report.wall_ms, &report.void),
            (0xabc, 0xdef, &void)
        );
        let (_, epoch, numbers) = &report.seen[0];
        assert_eq!(
            (*epoch, Some(numbers)),
            (0x19c, seen.of(&report.seen[0].0, 0x19c))
        );
        let empty = write(1, 2, &Ranges::default(), &Seen::default());
        assert_eq!(
            Report::parse(&empty),
            Some(Report {
                epoch: 1,
                wall_ms: 2,
                ..Report::default()
            })
        );
    }

    #[test]
    fn what_is_above_the_limit_is_left_out() {
        let mut seen = Seen::default();
        let of = seen.of_mut(&"b".parse().unwrap(), 1).unwrap();
        (1..=MOST_RANGES as u64 + 9).for_each(|number| _ = of.insert(2 * number));
        let report = Report::parse(&write(1, 2, &Ranges::default(), &seen)).unwrap();
        assert_eq!(report.seen[0].2.count(), MOST_RANGES as u64);
        assert_eq!(report.seen[0].2.last(), Some(2 * MOST_RANGES as u64));
    }

    #[test]
    fn no_text_makes_it_panic() {
        let (void, seen) = some();
        let good = write(0xabc, 0xdef, &void, &seen).into_bytes();
        let mut random = Random::seeded(3);
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = b"0123456789abcdef -\nvsx\xff"[random.below(23)];
            }
            Report::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
