//! The times at the beginning of lines. Most lines have the second of the line before, which is remembered.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Reads times; remembers the last one.
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    last: ([u8; 19], i64),
}

impl Clock {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            last: ([0; 19], 0),
        }
    }

    /// The time that the first 19 bytes of `text` tell, as `2026-11-23T07:48:58` or with other signs between the
    /// numbers, in nanoseconds since 1970.
    pub(super) fn read(&mut self, text: &str) -> Option<i64> {
        let stamp: [u8; 19] = text.as_bytes().get(..19)?.try_into().ok()?;
        if stamp == self.last.0 {
            return Some(self.last.1);
        }
        let number = |from: usize, to: usize| {
            stamp[from..to].iter().try_fold(0_i16, |number, digit| {
                digit
                    .is_ascii_digit()
                    .then(|| number * 10 + i16::from(digit - b'0'))
            })
        };
        let small = |from: usize, to: usize| number(from, to).and_then(|number| i8::try_from(number).ok());
        let separators = [4, 7, 10, 13, 16].map(|place: usize| stamp[place]);
        if separators.iter().any(u8::is_ascii_digit) {
            return None;
        }
        let time = DateTime::new(
            number(0, 4)?,
            small(5, 7)?,
            small(8, 10)?,
            small(11, 13)?,
            small(14, 16)?,
            small(17, 19)?,
            0,
        );
        let zoned = time.ok()?.to_zoned(self.zone.clone()).ok()?;
        let nanos = i64::try_from(zoned.timestamp().as_nanosecond()).ok()?;
        self.last = (stamp, nanos);
        Some(nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_programs_are_read() {
        let mut clock = Clock::new(TimeZone::UTC);
        for text in ["2026-11-23T07:48:58: x", "2026/11/23 07:48:58 [info]"] {
            assert_eq!(clock.read(text), Some(1_795_420_138_000_000_000), "{text}");
        }
        for text in [
            "",
            "2026-11-23T07:48:5",
            "2026-13-23T07:48:58",
            "20261123407:48:58xx",
            "ä026-11-23T07:48:58",
        ] {
            assert_eq!(clock.read(text), None, "{text}");
        }
        let berlin = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(
            Clock::new(berlin).read("1970-01-01T01:00:01"),
            Some(1_000_000_000)
        );
    }
}
