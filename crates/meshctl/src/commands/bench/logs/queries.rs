//! How soon lines are found, the newest 200 of a query.

use std::time::Instant;

use mesh_store::reader::Place;
use mesh_store::{Query, Reader};

use super::report::{Search, percentile};

/// What a page of a list shows.
const PAGE: u32 = 200;

/// One of each kind that is promised.
const QUERIES: [(&str, &str); 10] = [
    ("a field", "broker:broker3"),
    ("a client", "client:sensor-17"),
    ("words", "\"closed its connection\""),
    ("words and fields", "broker:broker3 level:info connected"),
    ("events by their beginning", "event:client.*"),
    ("words by their beginning", "clos* -broker:broker1"),
    (
        "clients by their beginning",
        "client:sensor-1* \"closed its connection\"",
    ),
    (
        "nothing, clients by their beginning",
        "client:sensor-1* \"exceeded timeout\" event:client.connected",
    ),
    (
        "nothing, of frequent values",
        "event:client.connected event:client.disconnected broker:broker3",
    ),
    ("nothing, of words", "\"exceeded timeout\" event:client.connected"),
];

pub(super) async fn measure(reader: &Reader, rounds: u32) -> anyhow::Result<Vec<Search>> {
    let mut searches = Vec::new();
    for (kind, text) in QUERIES {
        let query: Query = text.parse()?;
        let (mut millis, mut found) = (Vec::new(), 0);
        for _ in 0..rounds {
            let began = Instant::now();
            found = reader.page(&query, Place::Newest, PAGE).await?.rows.len();
            millis.push(began.elapsed().as_secs_f64() * 1000.0);
        }
        millis.sort_by(f64::total_cmp);
        searches.push(Search {
            kind,
            query: text,
            found,
            p50_ms: percentile(&millis, 50.0),
            p99_ms: percentile(&millis, 99.0),
        });
    }
    Ok(searches)
}
