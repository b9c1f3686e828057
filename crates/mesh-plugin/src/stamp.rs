//! What a message carries through the mesh: where and when it entered, and its place in the order there.
//!
//! A **stamp** is the value of one MQTT 5 user property, [`STAMP_PROPERTY`]:
//!
//! ```text
//! 1 broker1 19c8a3f2b10 2a 19c8a3f2b1f00003 r1
//! │ │       │           │  │                └ flags: r retained, s sent on request; then the QoS
//! │ │       │           │  └ when: a hybrid logical clock
//! │ │       │           └ sequence number, from 1 in each epoch
//! │ │       └ epoch: one for each boot of that broker, later ones are greater
//! │ └ the broker where the message entered the mesh
//! └ version of this format
//! ```
//!
//! Numbers are hexadecimal, without leading zeros, so that equal stamps are equal texts. Of several properties of
//! this name the last one counts, and only where the message came over a link: whatever a client sends is followed
//! by the stamp of its broker. What cannot be read is no stamp.
//!
//! **Time** is a [hybrid logical clock](https://cse.buffalo.edu/tech-reports/2014-04.pdf): milliseconds of the wall
//! clock in the upper 48 bits, a counter below. It never runs backwards, and is later than everything this broker
//! has seen. So order holds even if clocks are wrong; only between writers who have not heard of each other do
//! clocks decide.

use std::fmt;

use mesh_model::BrokerId;

/// The name of the user property.
pub const STAMP_PROPERTY: &str = "mesh";

/// The only version of the format so far.
const VERSION: &str = "1";

/// No clock of a machine that runs this is right before that: 2026-01-01 in milliseconds since 1970. A machine
/// without a battery begins in 1970, and would take its peers for liars.
const EARLIEST_MS: u64 = 1_767_225_600_000;

/// A stamp that is so far ahead of the wall clock is not believed: a year, in milliseconds. It would else drag the
/// clock of the whole mesh along for ever.
const ABSURD_MS: u64 = 366 * 24 * 3600 * 1000;

/// A point in hybrid logical time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

impl Hlc {
    /// The first point at a time of the wall clock, in milliseconds since 1970.
    pub fn at_ms(ms: u64) -> Self {
        Self(ms.min(u64::MAX >> 16) << 16)
    }

    /// Its part of the wall clock, in milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }
}

/// The clock of one broker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A point later than all before. `wall_ms` is the time in milliseconds since 1970.
    pub fn next(&mut self, wall_ms: u64) -> Hlc {
        self.last = Hlc::at_ms(wall_ms).max(Hlc(self.last.0.saturating_add(1)));
        self.last
    }

    /// Everything from now on is later than `seen`.
    pub fn observe(&mut self, seen: Hlc) {
        self.last = self.last.max(seen);
    }

    /// The latest point so far.
    pub fn last(&self) -> Hlc {
        self.last
    }
}

/// Whether a stamp of this time cannot be true at this time of the wall clock.
pub fn is_absurd(time: Hlc, wall_ms: u64) -> bool {
    time.ms() > wall_ms.max(EARLIEST_MS).saturating_add(ABSURD_MS)
}

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
        text.reserve(Self::LONGEST);
        text.push_str(VERSION);
        text.push(' ');
        text.push_str(self.origin.as_str());
        for number in [self.epoch, self.seq, self.time.0] {
            text.push(' ');
            push_hexadecimal(text, number);
        }
        text.push(' ');
        if self.retain {
            text.push('r');
        }
        if self.requested {
            text.push('s');
        }
        text.push(char::from(b'0' + self.qos));
    }

    /// Reads a stamp; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(VERSION)?.strip_prefix(' ')?;
        // Ids are short: to search by hand is faster.
        let end = text.bytes().position(|byte| byte == b' ')?;
        let (origin, mut rest) = (&text[..end], &text.as_bytes()[end + 1..]);
        let epoch = take_hexadecimal(&mut rest)?;
        let seq = take_hexadecimal(&mut rest)?;
        let time = Hlc(take_hexadecimal(&mut rest)?);
        let (retain, flags) = flag(rest, b'r');
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

fn flag(text: &[u8], name: u8) -> (bool, &[u8]) {
    match text.split_first() {
        Some((first, rest)) if *first == name => (true, rest),
        _ => (false, text),
    }
}

fn push_hexadecimal(text: &mut String, number: u64) {
    let digits = (67 - (number | 1).leading_zeros()) / 4;
    for place in (0..digits).rev() {
        text.push(char::from(
            b"0123456789abcdef"[(number >> (4 * place) & 0xf) as usize],
        ));
    }
}

/// What a byte is worth as a digit of a number in lower-case hexadecimal.
const DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};
const NO_DIGIT: u8 = 0xff;

/// Takes a number in lower-case hexadecimal without leading zeros, and the space after it.
fn take_hexadecimal(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for (at, byte) in rest.iter().enumerate() {
        let digit = DIGITS[usize::from(*byte)];
        if digit == NO_DIGIT {
            let leading = at > 1 && rest[0] == b'0';
            let whole = *byte == b' ' && at > 0 && !leading;
            *rest = &rest[at + 1..];
            return whole.then_some(number);
        }
        if number >> 60 != 0 {
            return None;
        }
        number = number << 4 | u64::from(digit);
    }
    None
}

/// A number in lower-case hexadecimal without leading zeros.
pub(crate) fn hexadecimal(text: &str) -> Option<u64> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let leading = text.len() > 1 && text.starts_with('0');
    if leading || !text.bytes().all(digit) {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
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
            time: Hlc(0x19c8_a3f2_b1f0_0003),
            retain: true,
            requested: false,
            qos: 1,
        }
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        assert_eq!(
            stamp().to_string(),
            "1 broker1 19c8a3f2b10 2a 19c8a3f2b1f00003 r1"
        );
        for (retain, requested, qos) in [(false, false, 0), (true, true, 2), (false, true, 1)] {
            let stamp = Stamp {
                retain,
                requested,
                qos,
                ..stamp()
            };
            assert_eq!(Stamp::parse(&stamp.to_string()), Some(stamp));
        }
    }

    #[test]
    fn anything_else_is_no_stamp() {
        for text in [
            "",
            " ",
            "1",
            "2 broker1 1 1 1 r1",
            "1 Broker1 1 1 1 r1",
            "1 broker1 01 1 1 r1",
            "1 broker1 1 0 1 r1",
            "1 broker1 1 +1 1 r1",
            "1 broker1 1 1 A r1",
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
                    _ => bytes.insert(at, b" 0123456789abcdefrsBZ"[random.below(21)]),
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

    #[test]
    fn the_clock_never_runs_backwards() {
        let mut clock = Clock::default();
        let wall = [1_000, 1_000, 500, 2_000, 0, 2_000];
        let times: Vec<_> = wall.iter().map(|ms| clock.next(*ms)).collect();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
        assert_eq!((times[0], times[3]), (Hlc::at_ms(1_000), Hlc::at_ms(2_000)));
    }

    #[test]
    fn what_comes_after_a_message_is_later_whatever_the_clocks_say() {
        let (mut fast, mut slow) = (Clock::default(), Clock::default());
        let first = fast.next(7_200_000);
        slow.observe(first);
        let second = slow.next(0);
        assert!(second > first);
        fast.observe(second);
        assert!(fast.next(7_200_001) > second);
        slow.observe(Hlc(1));
        assert!(slow.next(0) > second, "what is old changes nothing");
    }

    #[test]
    fn a_year_ahead_is_absurd_and_a_clock_that_begins_in_1970_does_not_matter() {
        let now = EARLIEST_MS + 1_000;
        assert!(!is_absurd(Hlc::at_ms(now + ABSURD_MS), now));
        assert!(is_absurd(Hlc::at_ms(now + ABSURD_MS + 1), now));
        assert!(!is_absurd(Hlc::at_ms(now), 0));
        assert!(is_absurd(Hlc(u64::MAX), now));
    }
}
