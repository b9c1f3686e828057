//! What was kept is there after any end, and a torn record takes nothing but itself.

use std::time::Instant;

use super::*;
use crate::retained::{Mark, Version};

const WEEK: Duration = Duration::from_secs(7 * 86_400);

fn now() -> u32 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as u32
}

fn cleared(hlc: u64) -> Mark {
    Mark::cleared(Version { hlc, tie: 3 })
}

fn gone(hlc: u64) -> Mark {
    Mark::gone(Version { hlc, tie: 3 })
}

fn reopened(path: &Path) -> Kept {
    Journal::open(path, WEEK).unwrap().0
}

#[test]
fn what_was_kept_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.journal");
    let (kept, mut journal) = Journal::open(&path, WEEK).unwrap();
    assert_eq!(kept, Kept::default());
    let now = now();
    journal.keep(&Record::Ended("a/ö", cleared(5), now));
    journal.keep(&Record::Ended("b", cleared(6), now));
    journal.flush();
    journal.keep(&Record::Ended("b", gone(4), now));
    journal.keep(&Record::Ended("old", cleared(1), now - 8 * 86_400));
    journal.keep(&Record::Seen(b"first"));
    journal.keep(&Record::Seen(b"second"));
    journal.keep(&Record::Epoch(9));
    journal.keep(&Record::Alive(1234));
    drop(journal);
    let expected = Kept {
        ended: [
            ("a/ö".to_owned(), (cleared(5), now)),
            ("b".to_owned(), (cleared(6), now)),
        ]
        .into(),
        seen: Some(b"second".to_vec()),
        epoch: Some(9),
        alive: Some(1234),
        torn: 0,
    };
    assert_eq!(reopened(&path), expected);
    assert_eq!(reopened(&path), expected, "it was written anew in between");
}

#[test]
fn of_a_torn_file_the_rest_is_used() {
    let mut bytes = record::HEADER.to_vec();
    let mut ends = vec![bytes.len()];
    for n in 0..20u32 {
        let topic = "t/".repeat(n as usize % 5) + &n.to_string();
        Record::Ended(&topic, cleared(n.into()), n).write(&mut bytes);
        ends.push(bytes.len());
    }
    for end in 0..=bytes.len() {
        let kept = Kept::read(&bytes[..end], 0);
        let whole = ends.iter().filter(|whole| **whole <= end).count();
        assert_eq!(
            kept.ended.len(),
            whole.saturating_sub(1),
            "torn after {end} bytes"
        );
        let torn = ends
            .iter()
            .rev()
            .find(|whole| **whole <= end)
            .map_or(end, |whole| end - whole);
        assert_eq!(kept.torn, torn);
        // Torn, and then overwritten by something else, as some file systems do.
        let padded = [&bytes[..end], &[0; 40]].concat();
        assert!(Kept::read(&padded, 0).ended.len() >= kept.ended.len());
    }
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..5000 {
        let mut damaged = bytes.clone();
        let at = random.usize(..damaged.len());
        damaged[at] ^= 1 << random.u8(..8);
        let kept = Kept::read(&damaged, 0);
        let before = ends.iter().filter(|whole| **whole <= at).count();
        assert_eq!(kept.ended.len(), before.saturating_sub(1), "damaged at {at}");
    }
}

#[test]
fn what_goes_on_behind_a_torn_end_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.journal");
    let (_, mut journal) = Journal::open(&path, WEEK).unwrap();
    let now = now();
    journal.keep(&Record::Ended("a", cleared(1), now));
    journal.keep(&Record::Ended("torn", cleared(1), now));
    drop(journal);
    let length = fs::metadata(&path).unwrap().len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 3)
        .unwrap();
    let (kept, mut journal) = Journal::open(&path, WEEK).unwrap();
    assert!(kept.torn > 0 && kept.ended.contains_key("a"));
    journal.keep(&Record::Ended("b", cleared(1), now));
    drop(journal);
    let kept = reopened(&path);
    assert_eq!(kept.ended.len(), 2);
    assert_eq!(kept.torn, 0);
    fs::write(&path, b"something else").unwrap();
    assert_eq!(reopened(&path).torn, 14);
}

#[test]
fn a_file_does_not_grow_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.journal");
    let (_, mut journal) = Journal::open(&path, WEEK).unwrap();
    let seen = vec![7; 100_000];
    let mut sent = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while sent < 300 {
        assert!(Instant::now() < deadline, "the thread writes");
        if journal.waiting.is_empty() {
            journal.keep(&Record::Seen(&seen));
            sent += 1;
        }
        journal.flush();
        thread::yield_now();
    }
    drop(journal);
    let length = fs::metadata(&path).unwrap().len();
    assert!(length < 2 * SLACK, "{length} bytes of 30 million");
    assert_eq!(reopened(&path).seen, Some(seen));
}

#[test]
fn a_disk_that_cannot_be_written_is_told_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.journal");
    let (_, mut journal) = Journal::open(&path, WEEK).unwrap();
    // A device that is always full stands in for a disk that has become so.
    let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
    let writer = Writer {
        path: path.clone(),
        ttl: WEEK,
        file: Some(full),
        length: 0,
        compact: 0,
    };
    let (to_thread, from_loop) = sync_channel(1);
    drop(journal.to_thread.replace(to_thread));
    journal.thread.take().unwrap().join().unwrap();
    let shared = Arc::clone(&journal.shared);
    journal.thread = Some(thread::spawn(move || writer.run(&from_loop, &shared)));
    let topic = "t".repeat(1000);
    let begin = Instant::now();
    for _ in 0..3 * MOST_WAITING / 1000 {
        journal.keep(&Record::Ended(&topic, cleared(1), 1));
        journal.flush();
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let problem = loop {
        if let Some(problem) = journal
            .take_problem()
            .filter(|problem| problem.contains("mesh.journal"))
        {
            break problem;
        }
        assert!(Instant::now() < deadline, "it is told");
        journal.keep(&Record::Ended(&topic, cleared(1), 1));
        thread::yield_now();
    };
    assert!(problem.contains("records were dropped"), "{problem}");
    assert!(journal.waiting.len() < 2 * MOST_WAITING);
    drop(journal);
    assert!(begin.elapsed() < Duration::from_secs(30));
}
