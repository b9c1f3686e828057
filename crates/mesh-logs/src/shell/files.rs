//! All file sources, read in turns by one thread. It waits while the pipeline is full, and reads no more meanwhile.
//!
//! Of files with much to be read, those go first whose lines are the oldest: so lines are stored about in the order of
//! time, and what several programs say of one connection comes together also after a day away.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh_runtime::config::{LogSource, Logs, SourceKind};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::file::Tail;
use super::intake::{Ended, Intake, Order, Orders, now_ns};
use super::status::Status;
use crate::core::series;

/// How often patterns are looked at for new files.
const SCAN_EVERY: Duration = Duration::from_secs(1);

/// A file of a pattern that is gone for so long will not come back.
const FORGET_AFTER_NS: i64 = 7 * 24 * 3600 * 1_000_000_000;

/// A file that is this far ahead of another one waits for it.
const AHEAD_US: i64 = 1_000_000;

/// But it does not wait for longer than this, whatever times its lines tell…
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// … and then for so long at most before each of its turns, until it is ahead no more: it may be one that is still being
/// written, beside one with a day to be read.
const NEXT_WAIT: Duration = Duration::from_millis(50);

/// The files of one source.
struct Group {
    source: LogSource,
    pattern: PathBuf,
    tails: BTreeMap<PathBuf, Turn>,
    /// What was wrong with a file the last time; it is logged when it changes.
    troubles: BTreeMap<PathBuf, String>,
}

/// A file, and whether it has its turn.
struct Turn {
    tail: Tail,
    /// Whether it is known to have more to be read.
    more: bool,
    /// Until when it waits for others.
    waits_until: Option<Instant>,
}

impl Turn {
    /// Whether it waits at `now` for a file whose last line is of the time `behind`.
    fn waits_for(&mut self, behind: Option<i64>, now: Instant) -> bool {
        if !self.more || !is_ahead(self.tail.last_key(), behind) {
            self.waits_until = None;
            return false;
        }
        waits(&mut self.waits_until, now)
    }
}

/// Whether a file that has read up to the time `last` is ahead of the one that has read up to `behind` only; times are
/// those of lines, in microseconds.
fn is_ahead(last: i64, behind: Option<i64>) -> bool {
    behind.is_some_and(|behind| last > behind.saturating_add(AHEAD_US))
}

/// Whether a file that is ahead goes on waiting at `now`. When it does not, it has a turn.
fn waits(until: &mut Option<Instant>, now: Instant) -> bool {
    let end = *until.get_or_insert(now + LONGEST_WAIT);
    let waits = now < end;
    if !waits {
        *until = Some(now + NEXT_WAIT);
    }
    waits
}

/// Reads all file sources of `logs` until `token` is cancelled or the pipeline has ended.
pub fn run(logs: &Logs, orders: &Orders, status: &Arc<Status>, token: &CancellationToken) {
    let mut groups: Vec<Group> = logs.sources.iter().filter_map(Group::new).collect();
    let mut buffer = Vec::new();
    let mut scanned: Option<Instant> = None;
    while !token.is_cancelled() {
        if scanned.is_none_or(|at| at.elapsed() >= SCAN_EVERY) {
            scanned = Some(Instant::now());
            for group in &mut groups {
                if group.scan(logs.rotation_grace, orders).is_err() {
                    return;
                }
            }
        }
        let mut more = false;
        let with_more = groups
            .iter()
            .flat_map(|group| group.tails.values())
            .filter(|turn| turn.more);
        let behind = with_more.map(|turn| turn.tail.last_key()).min();
        for group in &mut groups {
            match group.look(behind, &mut buffer, orders, status) {
                Ok(again) => more |= again,
                Err(Ended) => return,
            }
        }
        if !more {
            std::thread::sleep(logs.poll_interval);
        }
    }
}

impl Group {
    fn new(source: &LogSource) -> Option<Self> {
        let SourceKind::File(pattern) = &source.kind else {
            return None;
        };
        Some(Self {
            source: source.clone(),
            pattern: pattern.clone(),
            tails: BTreeMap::new(),
            troubles: BTreeMap::new(),
        })
    }

    fn is_pattern(&self) -> bool {
        self.pattern.to_string_lossy().contains(['*', '?', '['])
    }

    /// Finds the files of the source.
    fn scan(&mut self, grace: Duration, orders: &Orders) -> Result<(), Ended> {
        if !self.is_pattern() {
            let pattern = self.pattern.clone();
            return self.follow(pattern, "", grace, orders);
        }
        let paths = match glob::glob(&self.pattern.to_string_lossy()) {
            Ok(paths) => paths
                .filter_map(Result::ok)
                .filter(|path| path.is_file())
                .collect(),
            Err(error) => {
                let pattern = self.pattern.clone();
                self.trouble(&pattern, Some(format!("it is no pattern: {error}")));
                Vec::new()
            }
        };
        for path in originals(paths) {
            let stream = path.to_string_lossy().into_owned();
            self.follow(path, &stream, grace, orders)?;
        }
        let gone = |tail: &Tail| now_ns() - tail.read_ns() > FORGET_AFTER_NS && !tail.path().exists();
        for (_, turn) in self.tails.extract_if(.., |_, turn| gone(&turn.tail)) {
            orders
                .blocking_send(Order::Forget(turn.tail.source()))
                .map_err(|_| Ended)?;
        }
        Ok(())
    }

    fn follow(&mut self, path: PathBuf, stream: &str, grace: Duration, orders: &Orders) -> Result<(), Ended> {
        if self.tails.contains_key(&path) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let order = Order::Register {
            name: self.source.name.clone(),
            stream: stream.to_owned(),
            reply,
        };
        orders.blocking_send(order).map_err(|_| Ended)?;
        let state = answer.blocking_recv().map_err(|_| Ended)?;
        let turn = Turn {
            tail: Tail::new(path.clone(), Intake::new(&self.source, state), grace),
            more: false,
            waits_until: None,
        };
        self.tails.insert(path, turn);
        Ok(())
    }

    /// Reads on once in each file that has its turn; `behind` is the time of the last line of that file which is behind
    /// all others. Tells whether there is more.
    fn look(
        &mut self,
        behind: Option<i64>,
        buffer: &mut Vec<u8>,
        orders: &Orders,
        status: &Status,
    ) -> Result<bool, Ended> {
        let mut more = false;
        let mut troubles = Vec::new();
        for (path, turn) in &mut self.tails {
            if turn.waits_for(behind, Instant::now()) {
                more = true;
                continue;
            }
            let tail = &mut turn.tail;
            let looked = tail.look(buffer);
            turn.more = looked.as_ref().is_ok_and(|look| look.more);
            match looked {
                Ok(look) => {
                    more |= look.more;
                    if let Some(chunk) = look.chunk {
                        status.read(&chunk.state);
                        orders.blocking_send(Order::Store(chunk)).map_err(|_| Ended)?;
                    }
                    status.unread(tail.source(), tail.unread());
                    troubles.push((path.clone(), None));
                }
                // It was caught in the middle of a rotation.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => more = true,
                Err(error) => troubles.push((path.clone(), Some(error.to_string()))),
            }
        }
        for (path, trouble) in troubles {
            self.trouble(&path, trouble);
        }
        Ok(more)
    }

    fn trouble(&mut self, path: &Path, trouble: Option<String>) {
        match trouble {
            None => {
                if self.troubles.remove(path).is_some() {
                    tracing::info!(path = %path.display(), "the log file can be read again");
                }
            }
            Some(error) => {
                if self.troubles.get(path) != Some(&error) {
                    tracing::warn!(path = %path.display(), error, "a log file cannot be read");
                    self.troubles.insert(path.to_owned(), error);
                }
            }
        }
    }
}

/// Without those that are rotated predecessors of others.
fn originals(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let is_predecessor = |path: &PathBuf| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        paths
            .iter()
            .filter(|other| *other != path && other.parent() == path.parent())
            .any(|other| {
                let base = other.file_name().unwrap_or_default().to_string_lossy();
                series::suffix(&name, &base).is_some_and(|suffix| !suffix.is_empty())
            })
    };
    let compressed = |path: &PathBuf| {
        path.extension()
            .is_some_and(|end| end == "gz" || end == "xz" || end == "zst")
    };
    paths
        .iter()
        .filter(|path| !is_predecessor(path) && !compressed(path))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_ahead_waits_but_not_for_ever() {
        let second = 1_000_000;
        for (last, behind, expected) in [
            (10 * second, Some(8 * second), true),
            (10 * second, Some(9 * second), false),
            (10 * second, Some(10 * second), false),
            (10 * second, None, false),
            (i64::MAX, Some(i64::MAX), false),
        ] {
            assert_eq!(is_ahead(last, behind), expected, "{last} {behind:?}");
        }
        let mut until = None;
        let begin = Instant::now();
        assert!(waits(&mut until, begin));
        assert!(waits(&mut until, begin + LONGEST_WAIT / 2));
        let first = begin + LONGEST_WAIT;
        assert!(!waits(&mut until, first));
        assert!(waits(&mut until, first), "one turn");
        assert!(!waits(&mut until, first + NEXT_WAIT), "and soon the next");
    }
}
