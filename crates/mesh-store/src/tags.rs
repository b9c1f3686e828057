//! Fields as words of the full-text index, so that one index answers words and fields together.
//!
//! A tag begins with a character for private use, which the tokenizer takes for a letter and which is removed from
//! what lines say: no line can pass for another broker's. Everything but small letters and digits is written as bytes,
//! so that no two values share a tag, and no value falls into several words.

/// What every tag begins with.
const MARK: char = '\u{e000}';

/// Stands before a byte that is written as two digits.
const ESCAPE: char = '\u{e001}';

/// Longer values are cut, and told apart by a hash.
const LONGEST: usize = 100;

/// What a tag is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Severity = b'v' as isize,
    Broker = b'b' as isize,
    /// Only where the node is not named like the broker.
    Node = b'n' as isize,
    Service = b's' as isize,
    Event = b'e' as isize,
    Client = b'c' as isize,
}

/// Appends the tag of a value to `text`.
pub(crate) fn push(text: &mut String, kind: Kind, value: &str) {
    start(text, kind);
    if value.len() <= LONGEST {
        escape(text, value.as_bytes());
    } else {
        escape(text, &value.as_bytes()[..LONGEST]);
        text.push(ESCAPE);
        text.push_str(&format!("x{:016x}", hash(value.as_bytes())));
    }
}

/// What the tags of all values that begin with `prefix` begin with.
pub(crate) fn prefix(kind: Kind, prefix: &str) -> String {
    let mut text = String::new();
    start(&mut text, kind);
    let bytes = prefix.as_bytes();
    escape(&mut text, &bytes[..bytes.len().min(LONGEST)]);
    text
}

fn start(text: &mut String, kind: Kind) {
    text.push(MARK);
    text.push(char::from(kind as u8));
}

fn escape(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes {
        if byte.is_ascii_lowercase() || byte.is_ascii_digit() {
            text.push(char::from(byte));
        } else {
            text.push(ESCAPE);
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// Appends what a line says to `text`, without what only tags may contain.
pub(crate) fn push_words(text: &mut String, words: &str) {
    text.push(' ');
    // The first byte of all such characters; most lines have none.
    if words.as_bytes().contains(&0xee) {
        text.extend(words.chars().map(|c| match c {
            '\u{e000}'..='\u{efff}' => ' ',
            c => c,
        }));
    } else {
        text.push_str(words);
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(value: &str) -> String {
        let mut text = String::new();
        push(&mut text, Kind::Client, value);
        text
    }

    #[test]
    fn no_two_values_share_a_tag() {
        let long = "x".repeat(100);
        let values = [
            "a",
            "A",
            "a b",
            "a-b",
            "ab",
            "",
            "ä",
            &long,
            &(long.clone() + "a"),
            &(long.clone() + "b"),
        ];
        let tags: std::collections::BTreeSet<String> = values.iter().map(|value| tag(value)).collect();
        assert_eq!(tags.len(), values.len());
        assert!(tag("sensor-17").starts_with(&prefix(Kind::Client, "sensor-")));
    }

    #[test]
    fn no_line_can_write_a_tag() {
        let mut text = String::new();
        push_words(&mut text, &format!("x {} y", tag("admin")));
        assert!(!text.contains(MARK) && !text.contains(ESCAPE), "{text:?}");
    }
}
