//! mesh-logs killed again and again, at any instant, while ten programs write and rotate: every line once, in order.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{Rig, append, plain};
use mesh_lab::wait_until;
use mesh_store::Reader;

const WRITERS: usize = 10;

const KILLS: usize = 100;

/// Predecessors that are kept where they are numbered; far more than can be written while the daemon is away.
const KEPT: usize = 60;

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// As logrotate does it: by renaming, or by copying and truncating; with numbers that count up with age, or with a date.
#[derive(Clone, Copy)]
struct Rotation {
    copies: bool,
    dated: bool,
}

fn with_suffix(log: &Path, suffix: &str) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Rotation {
    fn rotate(self, log: &Path, count: usize) {
        let to = if self.dated {
            with_suffix(log, &format!("-{count:06}"))
        } else {
            let numbered = |number: usize| with_suffix(log, &format!(".{number}"));
            for number in (1..KEPT).rev() {
                // There is none yet.
                fs::rename(numbered(number), numbered(number + 1)).ok();
            }
            numbered(1)
        };
        if self.copies {
            fs::copy(log, to).unwrap();
            fs::OpenOptions::new()
                .write(true)
                .open(log)
                .unwrap()
                .set_len(0)
                .unwrap();
        } else {
            fs::rename(log, to).unwrap();
        }
    }
}

/// Writes lines, some of them in two parts, until told to stop; tells how many.
fn write(log: PathBuf, writer: usize, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut random = Random(0x9e37_79b9 + writer as u64);
        let rotation = Rotation {
            copies: writer.is_multiple_of(2),
            dated: writer < WRITERS / 2,
        };
        let rarely = if rotation.dated { 12 } else { 60 };
        let (mut lines, mut rotations) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            for _ in 0..random.below(30) {
                let line = format!(
                    "writer {writer} line {lines} {}\n",
                    "x".repeat(random.below(80) as usize)
                );
                let cut = random.below(line.len() as u64) as usize;
                append(&log, &line[..cut]);
                append(&log, &line[cut..]);
                lines += 1;
            }
            if log.exists() && random.below(rarely) == 0 {
                rotation.rotate(&log, rotations);
                rotations += 1;
            }
            std::thread::sleep(Duration::from_millis(random.below(25)));
        }
        lines
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_there_once_and_in_order_after_kills_at_any_instant() {
    let names: Vec<String> = (0..WRITERS).map(|writer| format!("w{writer}")).collect();
    let sources: String = names
        .iter()
        .map(|name| plain(name, &format!("DIR/{name}.log")))
        .collect();
    let mut rig = Rig::new(&sources);
    // What was rotated before the first look of all is history, and not read.
    rig.start();
    wait_until("a first look", common::DEADLINE, async || {
        let reader = Reader::open(&rig.database())
            .await
            .map_err(|error| error.to_string())?;
        let sources = reader.sources().await.map_err(|error| error.to_string())?;
        let looked = sources.iter().filter(|source| source.read_ns > 0).count();
        if looked == WRITERS {
            Ok(())
        } else {
            Err(format!("{looked} looked at"))
        }
    })
    .await
    .unwrap();
    rig.kill();
    let stop = Arc::new(AtomicBool::new(false));
    let start =
        |(writer, name): (usize, &String)| write(rig.path(&format!("{name}.log")), writer, Arc::clone(&stop));
    let writers: Vec<_> = names.iter().enumerate().map(start).collect();
    let mut random = Random(42);
    for _ in 0..KILLS {
        rig.start();
        // Anywhere in a life: at the start, while it catches up, when it keeps pace.
        std::thread::sleep(Duration::from_millis(30 + random.below(500)));
        rig.kill();
    }
    stop.store(true, Ordering::Relaxed);
    let written: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    rig.start();

    let total: u64 = written.iter().sum();
    let began = Instant::now();
    let all = wait_until("all lines", common::DEADLINE, async || {
        let lines = rig.rows("writer").await.unwrap_or_default().len() as u64;
        if lines >= total {
            Ok(())
        } else {
            Err(format!("{lines} of {total} lines"))
        }
    });
    let all = all.await.map_err(|error| error.to_string());
    println!(
        "{KILLS} kills, {total} lines, {:?} to catch up: {all:?}",
        began.elapsed()
    );
    assert!(total > 1000);

    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rig.rows("writer").await.unwrap() {
        found.entry(row.source.unwrap()).or_default().push(row.body);
    }
    for (writer, name) in names.iter().enumerate() {
        let lines = &found[name];
        for (number, line) in lines.iter().enumerate() {
            let expected = format!("writer {writer} line {number} ");
            assert!(
                line.starts_with(&expected),
                "{name}: {line:?} where {expected:?} should be"
            );
        }
        assert_eq!(lines.len() as u64, written[writer], "{name}");
    }
    rig.stop();
    let report = mesh_store::check::check(&rig.database()).await.unwrap();
    assert_eq!(report.problems, [""; 0]);
}
