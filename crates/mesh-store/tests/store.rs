//! The database as its users see it: real files, real SQLite.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::{Attributes, LogRecord, Severity};
use mesh_store::reader::Place;
use mesh_store::retention::Limits;
use mesh_store::sessions::{SessionChanges, SessionFilter};
use mesh_store::{Batch, LogRow, NewRow, Query, Reader, Session, StoreError, Writer, id};

const START_NS: i64 = 1_795_000_000_000_000_000;

fn record(number: i64, body: &str) -> LogRecord {
    LogRecord {
        time_ns: START_NS + number * 1_000_000,
        severity: Severity::INFO,
        body: body.to_owned(),
        attributes: Attributes::default(),
        event: None,
        node: None,
        broker: Some(Arc::from(format!("broker{}", number % 5 + 1))),
        service: Arc::from("mosquitto"),
        client_id: None,
    }
}

/// With so little kept, every part of the index is full with its first line.
const SMALL_PARTS: Limits = Limits {
    age: Duration::MAX,
    bytes: 0,
};

/// Stores `records` in some batches, each in a part of the index of its own.
async fn store(writer: &mut Writer, records: impl IntoIterator<Item = LogRecord>) {
    let mut source = writer.new_source("test", "").await.unwrap();
    let records: Vec<LogRecord> = records.into_iter().collect();
    for records in records.chunks(records.len().div_ceil(3).max(1)) {
        writer.divide(SMALL_PARTS).await.unwrap();
        let mut batch = Batch::default();
        for record in records {
            source.last_key = id::next_key(source.last_key, record.time_ns);
            source.lines += 1;
            batch
                .rows
                .push(NewRow::new(record.clone(), source.id, source.last_key));
        }
        batch.sources.push(source.clone());
        writer.commit(&batch).await.unwrap();
    }
}

async fn open(path: &Path) -> Writer {
    Writer::open(path).await.unwrap().0
}

async fn search(reader: &Reader, query: &str) -> Vec<String> {
    let query: Query = query.parse().unwrap();
    let page = reader.page(&query, Place::Newest, 100).await.unwrap();
    page.rows.into_iter().map(|row| row.body).collect()
}

/// A few lines of every kind, newest last.
fn samples() -> Vec<LogRecord> {
    let mut evil = record(3, "Client evil \"quoted\" as x (p2, c1) disconnected.");
    evil.client_id = Some("evil \"quoted\" as x (p2, c1)".to_owned());
    evil.event = Some("client.disconnected".into());
    let mut down = record(4, "link.down");
    down.event = Some("link.down".into());
    down.severity = Severity::WARN;
    down.attributes.set("from", "broker1");
    down.attributes.set("to", "broker5");
    down.attributes.set("generation", 42);
    down.service = Arc::from("mesh-health");
    let mut pipe = record(5, "write failed: Broken pipe");
    pipe.severity = Severity::ERROR;
    pipe.node = Some(Arc::from("host"));
    let forged = record(6, "\u{e000}bbroker3 \u{e000}verror says somebody");
    vec![
        record(1, "one two three"),
        record(2, "three two ONE é"),
        evil,
        down,
        pipe,
        forged,
    ]
}

#[tokio::test]
async fn words_and_fields_are_found_together() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    store(&mut writer, samples()).await;
    let reader = Reader::open(&path).await.unwrap();
    for (query, expected) in [
        ("one", vec!["three two ONE é", "one two three"]),
        ("\"one two\"", vec!["one two three"]),
        (
            "E*",
            vec![
                "Client evil \"quoted\" as x (p2, c1) disconnected.",
                "three two ONE é",
            ],
        ),
        (
            "client:\"evil \\\"quoted\\\" as x (p2, c1)\"",
            vec!["Client evil \"quoted\" as x (p2, c1) disconnected."],
        ),
        (
            "client:evil*",
            vec!["Client evil \"quoted\" as x (p2, c1) disconnected."],
        ),
        ("client:evil", vec![]),
        ("level>=warn", vec!["write failed: Broken pipe", "link.down"]),
        ("level:error", vec!["write failed: Broken pipe"]),
        (
            "level<warn broker:broker2",
            vec!["\u{e000}bbroker3 \u{e000}verror says somebody", "one two three"],
        ),
        ("event:link.*", vec!["link.down"]),
        ("event:link.up,link.down from:broker1", vec!["link.down"]),
        ("from:broker5", vec![]),
        ("generation:42", vec!["link.down"]),
        ("-from:broker1 event:link.*", vec![]),
        ("service:mesh-health \"broken pipe\"", vec![]),
        ("node:host", vec!["write failed: Broken pipe"]),
        (
            "broker:broker3,broker4 -two",
            vec!["Client evil \"quoted\" as x (p2, c1) disconnected."],
        ),
        ("-level:info -pipe", vec!["link.down"]),
        ("until:2026-11-18T11:06:40.002Z", vec!["one two three"]),
        (
            "since:2026-11-18T11:06:40.006Z",
            vec!["\u{e000}bbroker3 \u{e000}verror says somebody"],
        ),
    ] {
        assert_eq!(search(&reader, query).await, expected, "{query}");
    }
    assert_eq!(search(&reader, "").await.len(), 6);
}

/// Clients `a-0` to `a-39`, more than are asked for one by one, each with 200 lines, and `b-0` with the oldest one.
fn lines_of_clients() -> impl Iterator<Item = LogRecord> {
    (0..8001).map(|number| {
        let client = match number {
            0 => "b-0".to_owned(),
            _ => format!("a-{}", number % 40),
        };
        let mut record = record(number, &format!("line {number} of {client}"));
        record.client_id = Some(client);
        let reason = match number {
            ..50 => "7",
            _ if number % 2 == 0 => "even",
            _ => "odd",
        };
        record.attributes.set("reason", reason);
        record
    })
}

#[tokio::test]
async fn many_clients_that_begin_so_are_found_however_rare_the_rest_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    store(&mut writer, lines_of_clients()).await;
    let reader = Reader::open(&path).await.unwrap();
    let first = |query: &'static str| {
        let reader = reader.clone();
        async move {
            let found = search(&reader, query).await;
            (found.len(), found.into_iter().next().unwrap_or_default())
        }
    };
    let line = |number: u32| format!("line {number} of a-{}", number % 40);
    // Frequent, so that the newest lines have enough of them.
    assert_eq!(first("client:a-*").await, (100, line(8000)));
    assert_eq!(first("client:a-* line reason:odd").await, (100, line(7999)));
    assert_eq!(first("client:a-* 17").await, (100, line(7977)));
    // Numbers of attributes are not in the index: so rare that the index has to be asked for all of these clients.
    assert_eq!(first("client:a-* line reason:7").await, (49, line(49)));
    assert_eq!(first("client:a-1* \"line 11\"").await, (1, line(11)));
    assert_eq!(first("client:a-* \"line 1\" -line").await, (0, String::new()));
    // Few clients, and none.
    assert_eq!(first("client:b-*").await, (1, "line 0 of b-0".to_owned()));
    assert_eq!(first("client:c-*").await.0, 0);
    assert_eq!(first("-client:a-*").await, (1, "line 0 of b-0".to_owned()));

    let query: Query = "client:a-* reason:even".parse().unwrap();
    let news = reader.news(&query, 0, 100).await.unwrap();
    assert_eq!((news.rows.len(), news.left_out), (100, 3876));
    let histogram = reader
        .histogram(&query, START_NS, START_NS + 9_000_000_000, 1)
        .await
        .unwrap();
    assert_eq!(histogram.bars, [[0, 0, 3976]]);
    assert_eq!(reader.facets(&query).await.unwrap().lines, 3976);
}

#[tokio::test]
async fn pages_join_without_a_gap_and_context_is_around_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    store(
        &mut writer,
        (0..300).map(|number| record(number, &format!("line {number}"))),
    )
    .await;
    let reader = Reader::open(&path).await.unwrap();
    for text in ["", "line"] {
        let query: Query = text.parse().unwrap();
        let (mut place, mut seen) = (Place::Newest, Vec::new());
        loop {
            let page = reader.page(&query, place, 70).await.unwrap();
            seen.extend(page.rows.into_iter().map(|row| row.body));
            match page.older {
                Some(id) => place = Place::Before(id),
                None => break,
            }
        }
        let expected: Vec<String> = (0..300).rev().map(|number| format!("line {number}")).collect();
        assert_eq!(seen, expected);
    }
    let query: Query = "150".parse().unwrap();
    let row = &reader.page(&query, Place::Newest, 1).await.unwrap().rows[0];
    let bodies = |rows: Vec<LogRow>| rows.into_iter().map(|row| row.body).collect::<Vec<_>>();
    let around = reader.context(row.id, 2, 1, true).await.unwrap();
    assert_eq!(bodies(around), ["line 148", "line 149", "line 150", "line 151"]);
    let after = reader
        .page(&Query::default(), Place::After(row.id), 2)
        .await
        .unwrap();
    assert_eq!(bodies(after.rows), ["line 151", "line 152"]);
    assert!(reader.context(1, 2, 2, false).await.unwrap().is_empty());
}

fn said(rows: &[LogRow]) -> Vec<&str> {
    rows.iter().map(|row| row.body.as_str()).collect()
}

#[tokio::test]
async fn who_follows_gets_late_lines_too_and_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    store(&mut writer, [record(100, "first")]).await;
    let reader = Reader::open(&path).await.unwrap();
    let start = reader.last_observed().await.unwrap();
    let all = Query::default();
    let news = reader.news(&all, start, 10).await.unwrap();
    assert_eq!((news.rows.len(), news.until), (0, start));
    // Of another source, with an older time.
    store(&mut writer, [record(50, "late"), record(200, "second")]).await;
    let news = reader.news(&all, start, 10).await.unwrap();
    assert_eq!((said(&news.rows), news.left_out), (vec!["late", "second"], 0));
    assert_eq!(reader.news(&all, news.until, 10).await.unwrap().rows.len(), 0);
    // Of more than are wanted the newest come, and the others are counted.
    for (query, newest, left_out) in [(all, "second", 1), ("late".parse().unwrap(), "late", 0)] {
        let few = reader.news(&query, start, 1).await.unwrap();
        assert_eq!((said(&few.rows), few.left_out), (vec![newest], left_out));
    }
}

#[tokio::test]
async fn histograms_and_facets_count_what_is_searched_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    store(&mut writer, samples()).await;
    let reader = Reader::open(&path).await.unwrap();
    let (from, to) = (START_NS, START_NS + 8_000_000);
    let histogram = reader.histogram(&Query::default(), from, to, 4).await.unwrap();
    assert_eq!(histogram.bars, [[0, 0, 1], [0, 0, 2], [1, 1, 0], [0, 0, 1]]);
    assert!(histogram.is_complete);
    let query: Query = "from:broker1 event:link.*".parse().unwrap();
    let histogram = reader.histogram(&query, from, to, 2).await.unwrap();
    assert_eq!(histogram.bars, [[0, 0, 0], [0, 1, 0]]);
    let facets = reader.facets(&"level>=info".parse().unwrap()).await.unwrap();
    assert_eq!(facets.lines, 6);
    assert_eq!(facets.level[0], ("info".to_owned(), 4));
    assert_eq!(
        facets.service,
        [("mosquitto".to_owned(), 5), ("mesh-health".to_owned(), 1)]
    );
}

#[tokio::test]
async fn ids_that_are_taken_are_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    let source = writer.new_source("a", "").await.unwrap();
    let key = START_NS / 1000;
    for round in 0..3 {
        // A clock that is set back again and again, and 1,024 sources later the same number.
        let rows =
            (0..3).map(|n| NewRow::new(record(0, &format!("{round}.{n}")), source.id + n % 2 * 1024, key));
        let batch = Batch {
            rows: rows.collect(),
            ..Batch::default()
        };
        writer.commit(&batch).await.unwrap();
    }
    let reader = Reader::open(&path).await.unwrap();
    assert_eq!(search(&reader, "").await.len(), 9);
}

#[tokio::test]
async fn every_line_of_a_batch_is_found_however_many_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    let source = writer.new_source("a", "").await.unwrap();
    // More than one statement has room for, and such as leave room.
    let sizes = [17_000, 1, 2, 130];
    let mut key = START_NS / 1000;
    for (number, size) in sizes.into_iter().enumerate() {
        let rows = (0..size).map(|line| {
            key += 1;
            NewRow::new(record(0, &format!("batch{number} line{line}")), source.id, key)
        });
        let batch = Batch {
            rows: rows.collect(),
            ..Batch::default()
        };
        writer.commit(&batch).await.unwrap();
    }
    let reader = Reader::open(&path).await.unwrap();
    for (number, size) in sizes.into_iter().enumerate() {
        for line in [0, size / 2, size - 1] {
            let words = format!("batch{number} line{line}");
            assert_eq!(search(&reader, &words).await, [words.as_str()]);
        }
    }
    let report = mesh_store::check::check(&path).await.unwrap();
    assert_eq!(
        (report.problems, report.lines),
        (vec![], sizes.iter().sum::<i64>().unsigned_abs())
    );
}

#[tokio::test]
async fn old_lines_go_by_age_and_by_size_and_the_file_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let lines = (0..4000).map(|number| {
        let mut record = record(number, &format!("word{number} {}", "filler ".repeat(30)));
        record.time_ns = now - (4000 - number) * 1_000_000_000;
        record
    });
    store(&mut writer, lines).await;
    let by_age = Limits {
        age: Duration::from_secs(2000),
        bytes: u64::MAX,
    };
    let mut deleted = 0;
    while let count @ 1.. = writer.forget(by_age, 300).await.unwrap() {
        assert!(count <= 300);
        deleted += count;
    }
    assert!((1990..=2010).contains(&deleted), "{deleted}");
    let reader = Reader::open(&path).await.unwrap();
    assert!(search(&reader, "word10").await.is_empty());
    assert_eq!(search(&reader, "word3990").await.len(), 1);

    let size = writer.size().await.unwrap();
    let by_size = Limits {
        age: Duration::from_secs(1_000_000),
        bytes: (size.bytes - size.free) / 2,
    };
    for _ in 0..100 {
        if writer.forget(by_size, 300).await.unwrap() == 0 {
            break;
        }
    }
    let after = writer.size().await.unwrap();
    assert!(after.bytes - after.free <= by_size.bytes, "{after:?}");
    assert_eq!(search(&reader, "word3990").await.len(), 1, "the newest are kept");
    while writer.shrink().await.unwrap() {}
    assert_eq!(writer.size().await.unwrap().free, 0, "auto_vacuum is on");
    let report = mesh_store::check::check(&path).await.unwrap();
    assert_eq!(report.problems, [""; 0]);
}

#[tokio::test]
async fn the_index_is_divided_by_time_whatever_clocks_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap();
    let at = |seconds: i64, body: &str| {
        let mut record = record(0, body);
        record.time_ns = now + seconds * 1_000_000_000;
        record
    };
    let words = [
        "old",
        "of tomorrow",
        "after the first division",
        "late",
        "after the second",
    ];
    store(&mut writer, [at(-100, words[0])]).await;
    store(&mut writer, [at(86_400, words[1])]).await;
    assert!(writer.divide(SMALL_PARTS).await.unwrap());
    store(&mut writer, [at(1, words[2])]).await;
    store(&mut writer, [at(-50, words[3])]).await;
    assert!(writer.divide(SMALL_PARTS).await.unwrap());
    store(&mut writer, [at(2, words[4])]).await;
    let reader = Reader::open(&path).await.unwrap();
    for body in words {
        let all = body.split(' ').next_back().unwrap();
        assert_eq!(search(&reader, all).await, [body]);
    }
    assert_eq!(search(&reader, "level:info").await.len(), words.len());
    let report = mesh_store::check::check(&path).await.unwrap();
    assert_eq!((report.problems, report.lines), (vec![], words.len() as u64));
}

/// A session of a client `sensor` from the second `from` until the second `to`.
fn session(id: i64, from: i64, to: Option<i64>) -> Session {
    let time = |second: i64| START_NS + second * 1_000_000_000;
    Session {
        id,
        client_id: "sensor".to_owned(),
        broker: "broker1".to_owned(),
        username: None,
        protocol: None,
        keep_alive: None,
        clean_start: None,
        connected_at: time(from),
        disconnected_at: to.map(time),
        reason: to.map(|to| format!("left in second {to}")),
        remote_addr: None,
        broker_addr: None,
    }
}

async fn store_sessions(writer: &mut Writer, sessions: Vec<Session>) {
    let batch = Batch {
        sessions: SessionChanges {
            sessions,
            ..SessionChanges::default()
        },
        ..Batch::default()
    };
    writer.commit(&batch).await.unwrap();
}

#[tokio::test]
async fn old_sessions_go_with_old_lines_and_open_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    store(&mut writer, (0..1000).map(|number| record(number, "line"))).await;
    let sessions = (1..=1000).map(|id| session(id, 0, (id % 100 != 0).then_some(0)));
    store_sessions(&mut writer, sessions.collect()).await;
    let all = Limits {
        age: Duration::ZERO,
        bytes: u64::MAX,
    };
    // Each step is short, also where there are many sessions.
    writer.forget(all, 50).await.unwrap();
    let reader = Reader::open(&path).await.unwrap();
    let filter = SessionFilter {
        limit: 2000,
        ..SessionFilter::default()
    };
    assert_eq!(reader.sessions(filter).await.unwrap().len(), 950);
    while writer.forget(all, 50).await.unwrap() > 0 {}
    let left = reader.sessions(filter).await.unwrap();
    assert_eq!(left.len(), 10);
    assert!(left.iter().all(|session| session.disconnected_at.is_none()));
}

#[tokio::test]
async fn a_session_is_told_with_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let mut writer = open(&path).await;
    // Two in one second: what brokers write into files has no finer time.
    let sessions = vec![
        session(1, 0, Some(5)),
        session(2, 5, Some(5)),
        session(3, 5, None),
    ];
    store_sessions(&mut writer, sessions).await;
    let reader = Reader::open(&path).await.unwrap();
    let filter = SessionFilter {
        limit: 10,
        ..SessionFilter::default()
    };
    let listed = reader.sessions_with_past(filter).await.unwrap();
    let pasts: Vec<(i64, u64, Option<&str>)> = listed
        .iter()
        .map(|(session, past)| (session.id, past.sessions, past.last_reason.as_deref()))
        .collect();
    let reason = Some("left in second 5");
    assert_eq!(pasts, [(3, 2, reason), (2, 1, reason), (1, 0, None)]);
}

#[tokio::test]
async fn one_process_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    assert!(matches!(
        Reader::open(&path).await,
        Err(StoreError::Missing { .. })
    ));
    let writer = open(&path).await;
    let error = Writer::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::Taken { .. }), "{error}");
    writer.close().await.unwrap();
    Writer::open(&path).await.unwrap();
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_a_new_one_begun() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.db");
    let fill = async || {
        let mut writer = open(&path).await;
        store(
            &mut writer,
            (0..3000).map(|number| record(number, &format!("line {number}"))),
        )
        .await;
        writer.close().await.unwrap();
    };
    // No database at all, one that was cut off, one whose beginning is gone.
    for damage in 0..3 {
        std::fs::remove_file(&path).ok();
        fill().await;
        let mut bytes = std::fs::read(&path).unwrap();
        match damage {
            0 => bytes = b"this is a text and no database, and it is long enough".repeat(50),
            1 => bytes.truncate(bytes.len() / 2),
            _ => bytes[..8192].fill(0xff),
        }
        std::fs::write(&path, &bytes).unwrap();
        let report = mesh_store::check::check(&path).await;
        assert!(
            report.as_ref().is_ok_and(|report| !report.problems.is_empty()),
            "{damage}: {report:?}"
        );
        let (mut writer, opened) = Writer::open(&path).await.unwrap();
        let aside = opened.set_aside.expect("it was set aside");
        assert_eq!(std::fs::read(&aside).unwrap(), bytes, "{damage}");
        store(&mut writer, [record(0, "a new beginning")]).await;
        let reader = Reader::open(&path).await.unwrap();
        assert_eq!(search(&reader, "").await, ["a new beginning"]);
        writer.close().await.unwrap();
    }
    // Damage that only a writer came across.
    Writer::condemn(&path).unwrap();
    assert!(Writer::open(&path).await.unwrap().1.set_aside.is_some());
    assert_eq!(Writer::open(&path).await.unwrap().1.set_aside, None);
}
