//! What a message carries through the mesh: where and when it entered, and its place in the order there.
//!
//! A **stamp** is the value of one MQTT 5 user property, [`STAMP_PROPERTY`]:
//!
//! ```text
//! 2 broker1 PoAFoiG g 8RW.3 r1
//! │ │       │       │ │     └ flags: r retained, s sent on request; then the QoS
//! │ │       │       │ └ when, as a hybrid logical clock: milliseconds since the epoch, and the counter if it is not 0
//! │ │       │       └ sequence number, from 1 in each epoch
//! │ │       └ epoch: one for each boot of that broker, later ones are greater; about its milliseconds since 1970
//! │ └ the broker where the message entered the mesh
//! └ version of this format
//! ```
//!
//! Numbers are in base 64 ([`numbers`]), without leading zeros, so that equal stamps are equal texts; a time before its
//! epoch wraps around. Stamps are short because every broker checks them byte by byte. Of several properties of this name
//! the last one counts, and only where the message came over a link: whatever a client sends is followed by the stamp of
//! its broker. What cannot be read is no stamp.
//!
//! Version 1 had the same six words, but numbers in hexadecimal and the time in one, from 1970. Retained messages in
//! brokers' databases still carry it, so it is read; it is not written any more.

use std::{fmt, str};

use mesh_model::BrokerId;
pub use mesh_model::names::STAMP_PROPERTY;

mod clock;
mod numbers;

pub use clock::{Clock, Hlc, is_absurd};
pub(crate) use numbers::hexadecimal;

/// A stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The broker where the message entered.
    pub origin: BrokerId,
    /// The boot of that broker.
    pub epoch: u64,
    /// The number of the message in that epoch.
    pub seq: u64,
    /// When.
    pub time: Hlc,
    /// Whether it was published to be kept. What a plugin sends to one client loses MQTT's own flag.
    pub retain: bool,
    /// Whether this copy answers a request of its receiver, who may have seen the message before.
    pub requested: bool,
    /// The quality of service that it was published with.
    pub qos: u8,
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}

impl Stamp {
    /// The longest text of a stamp, in bytes.
    pub const LONGEST: usize = 96;

    /// Appends the stamp as text. By hand: every message pays for it, and `write!` takes five times as long.
    pub fn write(&self, text: &mut String) {
        let mut line = Line::default();
        line.push(b"2 ");
        line.push(self.origin.as_str().as_bytes());
        line.push(b" ");
        line.push_number(self.epoch);
        line.push(b" ");
        line.push_number(self.seq);
        line.push(b" ");
        line.push_number(self.time.ms().wrapping_sub(self.epoch));
        if self.time.counter() != 0 {
            line.push(b".");
            line.push_number(self.time.counter());
        }
        line.push(b" ");
        if self.retain {
            line.push(b"r");
        }
        if self.requested {
            line.push(b"s");
        }
        line.push(&[b'0' + self.qos]);
        text.push_str(line.text());
    }

    /// Reads a stamp of any version; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, text) = text.split_at_checked(2)?;
        // Ids are short: to search by hand is faster.
        let end = text.bytes().position(|byte| byte == b' ')?;
        let (origin, rest) = (&text[..end], &text.as_bytes()[end + 1..]);
        let (epoch, seq, time, flags) = match version {
            "2 " => numbers_of_2(rest)?,
            "1 " => numbers_of_1(rest)?,
            _ => return None,
        };
        let (retain, flags) = flag(flags, b'r');
        let (requested, flags) = flag(flags, b's');
        let [digit @ b'0'..=b'2'] = flags else {
            return None;
        };
        if seq == 0 {
            return None;
        }
        Some(Self {
            origin: origin.parse().ok()?,
            epoch,
            seq,
            time,
            retain,
            requested,
            qos: digit - b'0',
        })
    }
}

/// Epoch, sequence number, time, and what is left behind them.
type Numbers<'a> = (u64, u64, Hlc, &'a [u8]);

fn numbers_of_2(mut rest: &[u8]) -> Option<Numbers<'_>> {
    let (epoch, b' ') = numbers::take(&mut rest)? else {
        return None;
    };
    let (seq, b' ') = numbers::take(&mut rest)? else {
        return None;
    };
    let (since, behind) = numbers::take(&mut rest)?;
    let counter = match behind {
        b' ' => 0,
        b'.' => match numbers::take(&mut rest)? {
            (counter, b' ') if counter != 0 => counter,
            _ => return None,
        },
        _ => return None,
    };
    let time = Hlc::new(epoch.wrapping_add(since), counter)?;
    Some((epoch, seq, time, rest))
}

fn numbers_of_1(rest: &[u8]) -> Option<Numbers<'_>> {
    let mut words = str::from_utf8(rest).ok()?.split(' ');
    let mut number = || hexadecimal(words.next()?);
    let (epoch, seq, time) = (number()?, number()?, Hlc(number()?));
    let flags = words.next()?.as_bytes();
    words.next().is_none().then_some((epoch, seq, time, flags))
}

fn flag(text: &[u8], name: u8) -> (bool, &[u8]) {
    match text.split_first() {
        Some((first, rest)) if *first == name => (true, rest),
        _ => (false, text),
    }
}

/// The text of a stamp in the making.
struct Line {
    bytes: [u8; Stamp::LONGEST],
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; Stamp::LONGEST],
            length: 0,
        }
    }
}

impl Line {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn push_number(&mut self, number: u64) {
        self.length += numbers::write(number, &mut self.bytes[self.length..]);
    }

    fn text(&self) -> &str {
        // All of it is ASCII.
        str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn stamp() -> Stamp {
        Stamp {
            origin: "broker1".parse().unwrap(),
            epoch: 0x19c_8a3f_2b10,
            seq: 42,
            time: Hlc(0x19c_8a3f_b1f0_0003),
            retain: true,
            requested: false,
            qos: 1,
        }
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        assert_eq!(stamp().to_string(), "2 broker1 PoAFoiG g 8RW.3 r1");
        for (retain, requested, qos) in [(false, false, 0), (true, true, 2), (false, true, 1)] {
            for time in [0, 1, u64::MAX, stamp().epoch << 16, stamp().epoch << 16 | 0xffff] {
                let stamp = Stamp {
                    retain,
                    requested,
                    qos,
                    time: Hlc(time),
                    ..stamp()
                };
                assert_eq!(Stamp::parse(&stamp.to_string()), Some(stamp));
            }
        }
    }

    #[test]
    fn what_a_database_still_holds_is_read() {
        let first = "1 broker1 19c8a3f2b10 2a 19c8a3fb1f00003 r1";
        assert_eq!(Stamp::parse(first), Some(stamp()));
    }

    #[test]
    fn the_longest_stamp_is_not_too_long() {
        let longest = Stamp {
            origin: "b".repeat(32).parse().unwrap(),
            epoch: u64::MAX,
            seq: u64::MAX,
            time: Hlc(0xffff),
            requested: true,
            ..stamp()
        };
        assert!(longest.to_string().len() <= Stamp::LONGEST);
        let far = Stamp {
            epoch: 1 << 48,
            time: Hlc(0xffff),
            ..longest
        };
        assert!(far.to_string().len() <= Stamp::LONGEST);
        assert_eq!(Stamp::parse(&far.to_string()), Some(far));
    }

    #[test]
    fn anything_else_is_no_stamp() {
        for text in [
            "",
            " ",
            "1",
            "2",
            "2é",
            "3 broker1 1 1 1 r1",
            "1 Broker1 1 1 1 r1",
            "1 broker1 01 1 1 r1",
            "1 broker1 1 0 1 r1",
            "1 broker1 1 +1 1 r1",
            "1 broker1 1 1 A r1",
            "1 broker1 1 1 1.1 r1",
            "1 broker1 1 1 10000000000000000 r1",
            "1 broker1 1 1 1 r3",
            "1 broker1 1 1 1 r",
            "1 broker1 1 1 1 sr1",
            "1 broker1 1 1 1 rr1",
            "1 broker1 1 1 1 1 ",
            "1 broker1 1 1 1 1 more",
            "1  broker1 1 1 1 1",
            "1 broker1 1 1 1 11",
            "1 broker1  1 1 1",
            "2 Broker1 1 1 1 r1",
            "2 broker1 01 1 1 r1",
            "2 broker1 1 0 1 r1",
            "2 broker1 1 +1 1 r1",
            "2 broker1 1 1 1.0 r1",
            "2 broker1 1 1 1.01 r1",
            "2 broker1 1 1 1. r1",
            "2 broker1 1 1 .1 r1",
            "2 broker1 1 1 1.1.1 r1",
            "2 broker1 1 1.1 1 r1",
            // A counter of more than 16 bits, and a time of more than 48.
            "2 broker1 1 1 1.G00 r1",
            "2 broker1 1 1 __________ r1",
            "2 broker1 1 1 1 r3",
            "2 broker1 1 1 1 r",
            "2 broker1 1 1 1 sr1",
            "2 broker1 1 1 1 1 ",
            "2 broker1 1 1 1 1 more",
            "2  broker1 1 1 1 1",
        ] {
            assert_eq!(Stamp::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic_and_what_it_takes_it_writes_again() {
        let mut random = Random::seeded(7);
        let good = stamp().to_string();
        let mut taken = 0;
        for _ in 0..100_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => bytes[at] = random.below(256) as u8,
                    1 => _ = bytes.remove(at),
                    _ => bytes.insert(at, b" 0123456789abcdefrs_.Z"[random.below(22)]),
                }
            }
            let text = String::from_utf8_lossy(&bytes);
            if let Some(stamp) = Stamp::parse(&text) {
                assert_eq!(stamp.to_string(), text);
                taken += 1;
            }
            let noise: Vec<u8> = (0..random.below(60)).map(|_| random.below(256) as u8).collect();
            Stamp::parse(&String::from_utf8_lossy(&noise));
        }
        assert!(taken > 10_000, "only {taken} were stamps");
    }
}
