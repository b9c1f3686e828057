//! The contents of a log: bytes that come at the end and go at the beginning.
//!
//! They stand in large pieces of memory that are used again, which saves asking for memory for each message and giving
//! it back thousands of others later.

use std::collections::VecDeque;

/// The size of a piece, unless a single content is larger.
const PIECE: usize = 64 << 10;

/// So many empty pieces are kept at most, for what comes.
const SPARE: usize = 64;

/// Where a content stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    piece: u64,
    start: usize,
    length: usize,
}

impl Place {
    /// How many bytes it has.
    pub fn length(self) -> usize {
        self.length
    }
}

/// The contents.
#[derive(Debug, Default)]
pub struct Bytes {
    pieces: VecDeque<Vec<u8>>,
    /// The number of the first piece.
    first: u64,
    /// How many contents there are.
    count: usize,
    spare: Vec<Vec<u8>>,
}

impl Bytes {
    /// Appends a content, given in parts.
    pub fn push(&mut self, parts: [&[u8]; 3]) -> Place {
        self.count += 1;
        let length = parts.iter().map(|part| part.len()).sum();
        let fits = |piece: &Vec<u8>| piece.capacity() - piece.len() >= length;
        if !self.pieces.back().is_some_and(fits) {
            let piece = if length > PIECE {
                Vec::with_capacity(length)
            } else {
                self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE))
            };
            self.pieces.push_back(piece);
        }
        let piece = self.first + self.pieces.len() as u64 - 1;
        let last = self.pieces.len() - 1;
        let bytes = &mut self.pieces[last];
        let start = bytes.len();
        for part in parts {
            bytes.extend_from_slice(part);
        }
        Place { piece, start, length }
    }

    /// The content at a place that was not taken out.
    pub fn get(&self, place: Place) -> &[u8] {
        let bytes = &self.pieces[(place.piece - self.first) as usize];
        &bytes[place.start..place.start + place.length]
    }

    /// Takes out the first content, which is at `place`.
    pub fn take_first(&mut self, place: Place) {
        while self.first < place.piece {
            self.drop_first();
        }
        self.took_one();
    }

    /// Takes out the last content, which is at `place`.
    pub fn take_last(&mut self, place: Place) {
        if let Some(piece) = self.pieces.back_mut() {
            piece.truncate(place.start);
        }
        self.took_one();
    }

    fn took_one(&mut self) {
        self.count -= 1;
        while self.count == 0 && !self.pieces.is_empty() {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        self.first += 1;
        if let Some(mut piece) = self.pieces.pop_front()
            && piece.capacity() == PIECE
            && self.spare.len() < SPARE
        {
            piece.clear();
            self.spare.push(piece);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    #[test]
    fn what_was_put_in_is_there_until_it_is_taken_out() {
        let mut random = Random::seeded(11);
        let mut bytes = Bytes::default();
        let mut known: VecDeque<(Place, Vec<u8>)> = VecDeque::new();
        for number in 0..20_000u32 {
            let length = match random.below(20) {
                0 => PIECE - 1 + random.below(3),
                1 => 0,
                2 => 3 * PIECE,
                _ => random.below(2_000),
            };
            let content: Vec<u8> = (0..length).map(|at| (at as u32 ^ number) as u8).collect();
            let (first, rest) = content.split_at(length / 3);
            let (second, third) = rest.split_at(rest.len() / 2);
            known.push_back((bytes.push([first, second, third]), content));
            if random.below(10) == 0 {
                bytes.take_last(known.pop_back().unwrap().0);
            }
            let most = 100 + 100 * random.below(2);
            while known.len() > most {
                bytes.take_first(known.pop_front().unwrap().0);
            }
            if let (Some(first), Some(last)) = (known.front(), known.back()) {
                assert_eq!(bytes.get(first.0), first.1);
                assert_eq!(bytes.get(last.0), last.1);
            }
        }
        for (place, content) in known {
            assert_eq!(bytes.get(place), content);
            bytes.take_first(place);
        }
        assert!(bytes.pieces.is_empty() && bytes.spare.len() <= SPARE);
    }
}
