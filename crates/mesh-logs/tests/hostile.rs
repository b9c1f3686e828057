//! The parsers and the query language against many odd inputs, for a few seconds. The targets in `fuzz/` look for such
//! inputs by what they reach in the code; here what is accepted as a query is also asked of SQLite.
//!
//! Inputs are real lines, cut, joined and with bytes changed. Whatever comes, nothing may panic, a line that is not
//! understood is kept as it is, and a query that is accepted is accepted by SQLite too.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use mesh_logs::core::{Format, Parser, Place, journal};
use mesh_store::reader;
use mesh_store::{Query, Reader, Writer};

/// What inputs are made of, the same as in `fuzz/`.
const SEEDS: [&str; 2] = [
    include_str!("../../../fuzz/seeds/lines"),
    include_str!("../../../fuzz/seeds/query"),
];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn seed(&mut self) -> &'static [u8] {
        let seeds: Vec<&str> = SEEDS.iter().flat_map(|seeds| seeds.lines()).collect();
        seeds[self.below(seeds.len())].as_bytes()
    }

    /// A seed, changed in a few places.
    fn input(&mut self) -> Vec<u8> {
        let mut input = self.seed().to_vec();
        for _ in 0..self.below(6) {
            let at = self.below(input.len());
            match self.below(5) {
                0 => input.truncate(at),
                1 => {
                    let other = self.seed();
                    let from = self.below(other.len());
                    input.splice(at..at, other[from..].iter().copied());
                }
                2 if !input.is_empty() => input[at] = self.below(256) as u8,
                3 => input.insert(at, b"\"'(),:*-\\<>=#[]{}\0\xff\xee\x80 \n"[self.below(23)]),
                _ => {
                    let end = at + self.below(input.len() - at);
                    let part = input[at..end].to_vec();
                    input.extend_from_slice(&part);
                }
            }
            input.truncate(4096);
        }
        input
    }
}

/// The seed of this run; a failure tells it, and `MESH_SEED` brings it back.
fn seed() -> u64 {
    let given = std::env::var("MESH_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(0x5eed_0005)
}

/// How long each goes on.
const SPAN: Duration = Duration::from_secs(4);

#[test]
fn no_line_is_lost_or_panics_in_a_parser() {
    let mut random = Random(seed());
    let formats = [
        Format::Auto,
        Format::Mosquitto,
        Format::Nginx,
        Format::Mesh,
        Format::Plain,
    ];
    let mut parsers = formats.map(|format| Parser::new(format, Place::default(), TimeZone::UTC));
    let began = Instant::now();
    let (mut inputs, mut understood) = (0_u64, 0_u64);
    while began.elapsed() < SPAN {
        let input = random.input();
        for parser in &mut parsers {
            let parsed = parser.parse(&input, 7);
            if parsed.understood {
                understood += 1;
            } else {
                let line = input.strip_suffix(b"\r").unwrap_or(&input);
                assert_eq!(
                    parsed.record.body,
                    String::from_utf8_lossy(line),
                    "seed {}",
                    seed()
                );
                assert!(parsed.fact.is_none());
            }
        }
        journal::parse(&mut parsers[0], &input);
        inputs += 1;
    }
    println!("{inputs} inputs, {understood} understood");
    assert!(
        inputs > 1000 && understood > inputs / 2,
        "{inputs} inputs, {understood} understood"
    );
}

#[tokio::test]
async fn what_is_accepted_as_a_query_is_a_query() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    Writer::open(&path).await.unwrap().0.close().await.unwrap();
    let reader = Reader::open(&path).await.unwrap();
    let mut random = Random(seed());
    let began = Instant::now();
    let (mut inputs, mut queries) = (0, 0);
    while began.elapsed() < SPAN {
        let input = random.input();
        let text = String::from_utf8_lossy(&input);
        inputs += 1;
        match text.parse::<Query>() {
            Ok(query) => {
                queries += 1;
                let found = reader.page(&query, reader::Place::Newest, 10).await;
                assert!(found.is_ok(), "{text:?} (seed {}): {found:?}", seed());
            }
            Err(error) => {
                assert!(
                    error.at + error.length <= text.chars().count() + 1,
                    "{text:?}: {error:?}"
                );
                error.pointed(&text);
            }
        }
    }
    println!("{inputs} inputs, {queries} queries");
    assert!(queries > 100, "{inputs} inputs, {queries} queries");
}
