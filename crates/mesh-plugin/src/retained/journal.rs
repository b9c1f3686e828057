//! What must outlive the broker and does not stand in its database: deletions, what was seen, and when it last ran.
//!
//! A file of records that only grows, and is written anew without what has become void when it has grown much.
//! The broker's loop never touches it: it encodes records into memory, and a thread writes them. Each record has
//! its length and a checksum. A crash may tear the last one; everything before it counts.
//!
//! If the thread cannot write (the disk is full), it tries again, and records wait in memory up to
//! [`MOST_WAITING`]. What is then dropped is told: after a restart this broker may then not know of a deletion,
//! which a peer will tell it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, mem};

pub use record::{Kept, Record};

use crate::ffi::files::leave_descriptors;

mod record;

/// So many bytes of records may wait in memory for the thread.
pub const MOST_WAITING: usize = 16 << 20;

/// A file is written anew when it is longer than twice what it was then, and this.
const SLACK: u64 = 4 << 20;

/// How long the thread waits before it tries again to write.
const RETRY: Duration = Duration::from_secs(1);

/// The journal of a running broker.
pub struct Journal {
    waiting: Vec<u8>,
    dropped: u64,
    /// Until the journal is closed.
    to_thread: Option<SyncSender<Vec<u8>>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Until told.
    problem: Mutex<Option<String>>,
    /// The broker ends, and waits for the thread.
    ending: AtomicBool,
}

impl Journal {
    /// Reads what was kept and goes on in the same file. An absent file is an empty one. What ended longer than
    /// `ttl` ago is left out.
    ///
    /// # Errors
    ///
    /// If the file can be neither read nor written.
    pub fn open(path: &Path, ttl: Duration) -> io::Result<(Kept, Self)> {
        let (kept, writer) = Writer::open(path, ttl)?;
        // One that waits while another one is being written: then records gather here.
        let (to_thread, from_loop) = sync_channel(1);
        let shared = Arc::<Shared>::default();
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("mesh-journal".to_owned())
            .spawn(move || {
                leave_descriptors();
                writer.run(&from_loop, &for_thread);
            })?;
        let journal = Self {
            waiting: Vec::new(),
            dropped: 0,
            to_thread: Some(to_thread),
            shared,
            thread: Some(thread),
        };
        Ok((kept, journal))
    }

    /// Keeps `record`, soon.
    pub fn keep(&mut self, record: &Record<'_>) {
        if self.waiting.len() < MOST_WAITING {
            record.write(&mut self.waiting);
        } else {
            self.dropped += 1;
        }
    }

    /// Hands on what waits if the thread has time. Never blocks.
    pub fn flush(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        if let Some(thread) = &self.to_thread
            && let Err(TrySendError::Full(records) | TrySendError::Disconnected(records)) =
                thread.try_send(mem::take(&mut self.waiting))
        {
            self.waiting = records;
        }
    }

    /// What is wrong, if something is; told once.
    pub fn take_problem(&mut self) -> Option<String> {
        let problem = self.shared.problem().take();
        match mem::take(&mut self.dropped) {
            0 => problem,
            dropped => {
                let why = problem.unwrap_or_else(|| "the disk is too slow".to_owned());
                Some(format!("{dropped} records were dropped: {why}"))
            }
        }
    }
}

impl Drop for Journal {
    /// Writes what waits, and ends the thread.
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        if let Some(to_thread) = self.to_thread.take() {
            // It fails only if the thread is not there any more, and then there is nobody to tell.
            to_thread.send(mem::take(&mut self.waiting)).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn problem(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file, in the hands of the thread.
struct Writer {
    path: PathBuf,
    ttl: Duration,
    /// Opened by the thread, which has descriptors of its own.
    file: Option<File>,
    /// How much of it is good.
    length: u64,
    /// How long it was when it was last written anew.
    compact: u64,
}

impl Writer {
    /// Reads the file and writes it anew. The new one takes the place of the old one only when it is whole.
    fn open(path: &Path, ttl: Duration) -> io::Result<(Kept, Self)> {
        let before = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => record::HEADER.to_vec(),
            before => before?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let oldest = now.saturating_sub(ttl).as_secs();
        let kept = Kept::read(&before, u32::try_from(oldest).unwrap_or(u32::MAX));
        let mut bytes = record::HEADER.to_vec();
        kept.write(&mut bytes);
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        drop(file);
        fs::rename(&fresh, path)?;
        let length = bytes.len() as u64;
        let writer = Self {
            path: path.to_owned(),
            ttl,
            file: None,
            length,
            compact: length,
        };
        Ok((kept, writer))
    }

    fn run(mut self, from_loop: &Receiver<Vec<u8>>, shared: &Shared) {
        while let Ok(records) = from_loop.recv() {
            while let Err(error) = self.append(&records) {
                *shared.problem() = Some(format!("{}: {error}", self.path.display()));
                if shared.ending.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(RETRY);
            }
        }
    }

    /// Nothing of `records` counts as written unless all of it is.
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(OpenOptions::new().append(true).open(&self.path)?),
        };
        let written = file.write_all(records).and_then(|()| file.sync_data());
        if let Err(error) = written {
            // Or what is appended next stands behind half a record and is never read.
            file.set_len(self.length)?;
            return Err(error);
        }
        self.length += records.len() as u64;
        if self.length > 2 * self.compact + SLACK {
            (_, *self) = Self::open(&self.path, self.ttl)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
