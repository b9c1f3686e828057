//! Numbers in stamps: in base 64, as short as they can be, and in hexadecimal in stamps of version 1.

/// The digits, in the order of their worth.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

/// What a byte is worth as a digit, or [`NO_DIGIT`].
const WORTH: [u8; 256] = {
    let mut worth = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        worth[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    worth
};
const NO_DIGIT: u8 = 0xff;

/// Writes `number` in base 64 at the beginning of `text` and returns how many digits that were: 11 at most.
pub(super) fn write(mut number: u64, text: &mut [u8]) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    let digits = bits.div_ceil(6) as usize;
    for place in text[..digits].iter_mut().rev() {
        *place = DIGITS[(number & 63) as usize];
        number >>= 6;
    }
    digits
}

/// Takes a number in base 64 without leading zeros, and the byte behind it, which is no digit.
pub(super) fn take(rest: &mut &[u8]) -> Option<(u64, u8)> {
    let mut number = 0u64;
    for (at, byte) in rest.iter().enumerate() {
        let digit = WORTH[usize::from(*byte)];
        if digit == NO_DIGIT {
            let whole = at == 1 || at > 1 && rest[0] != b'0';
            *rest = &rest[at + 1..];
            return whole.then_some((number, *byte));
        }
        if number >> 58 != 0 {
            return None;
        }
        number = number << 6 | u64::from(digit);
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

    fn taken(text: &str) -> Option<(u64, u8)> {
        take(&mut text.as_bytes())
    }

    #[test]
    fn a_number_is_read_as_it_was_written() {
        let around = |bit: u32| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1];
        for number in (0..64).flat_map(around).chain([u64::MAX]) {
            let mut text = [b'.'; 12];
            let length = write(number, &mut text);
            let mut rest = &text[..=length];
            assert_eq!(take(&mut rest), Some((number, b'.')), "{number}");
            assert!(rest.is_empty() && length <= 11);
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_number() {
        assert_eq!(taken("10 "), Some((64, b' ')));
        assert_eq!(taken("_."), Some((63, b'.')));
        assert_eq!(taken("F__________ "), Some((u64::MAX, b' ')));
        for text in ["", " ", "1", "01 ", "00 ", "G__________ ", "1__________0 "] {
            assert_eq!(taken(text), None, "{text:?}");
        }
    }
}
