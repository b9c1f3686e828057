//! One file and its rotated predecessors, read once, from wherever reading ended.
//!
//! Guarantees: only whole lines are handed out, each with how far the file has been read after it; what was read is
//! handed out only after the beginning of the file was found unchanged, so that a truncation in between cannot make
//! two lines of two halves; a rotated file is left only when its successor has lines and it has been quiet for a while.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::intake::{Chunk, Intake, now_ns};
use crate::core::series::{self, Candidate, HEAD, Last, Next};

/// So much is read at once: of files that are read in turns, lines of about the same time come together.
const CHUNK: usize = 32 * 1024;

/// Room for the beginning of a line that each file keeps.
const KEPT: usize = 4 * 1024;

/// So often a folder is read until it is the same twice.
const STABLE_WITHIN: usize = 10;

/// A longer line is stored in several rows.
const LONGEST_LINE: usize = 16 * 1024 * 1024;

/// A file that is being followed.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    intake: Intake,
    grace: Duration,
    open: Option<Open>,
    /// Bytes after the last whole line that was handed out.
    pending: Vec<u8>,
    /// The first bytes of the open file, as far as they were handed out.
    head: Vec<u8>,
    /// When the newest file had been modified at the last look for one to read.
    newest: i64,
    /// Since when the open file, which was rotated, has been quiet.
    quiet_since: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    file: File,
    device: u64,
    inode: u64,
    /// The modification time when the beginning was compared last.
    compared_ns: i64,
}

/// What a look at a file gave.
#[derive(Debug)]
pub struct Look {
    /// Lines to store.
    pub chunk: Option<Chunk>,
    /// Whether it is worth looking again at once.
    pub more: bool,
}

impl Tail {
    /// Follows `path` from where `intake` says that reading ended.
    pub fn new(path: PathBuf, intake: Intake, grace: Duration) -> Self {
        Self {
            path,
            intake,
            grace,
            open: None,
            pending: Vec::new(),
            head: Vec::new(),
            newest: 0,
            quiet_since: None,
        }
    }

    /// The number of its source.
    pub fn source(&self) -> i64 {
        self.intake.state.id
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key of the last line, which is its time.
    pub fn last_key(&self) -> i64 {
        self.intake.state.last_key
    }

    /// When a line was read last, in nanoseconds since 1970.
    pub fn read_ns(&self) -> i64 {
        self.intake.state.read_ns
    }

    /// Bytes that are known to be there and not handed out yet.
    pub fn unread(&self) -> u64 {
        let length = |open: &Open| open.file.metadata().map_or(0, |file| file.len());
        let here = self
            .open
            .as_ref()
            .map_or(0, length)
            .saturating_sub(self.intake.state.position);
        let is_other = |file: &std::fs::Metadata| {
            self.open
                .as_ref()
                .is_some_and(|open| (open.device, open.inode) != (file.dev(), file.ino()))
        };
        let later = std::fs::metadata(&self.path)
            .ok()
            .filter(is_other)
            .map_or(0, |file| file.len());
        here + later
    }

    /// Reads on.
    ///
    /// # Errors
    ///
    /// What the file system says; a later call tries again.
    pub fn look(&mut self, buffer: &mut Vec<u8>) -> io::Result<Look> {
        if self.open.is_none() && !self.locate()? {
            return Ok(self.look_again(false));
        }
        let length = self.read(buffer)?;
        if length > 0 {
            self.quiet_since = None;
            if !self.is_unchanged()? {
                self.close();
                return Ok(self.look_again(true));
            }
            self.pending.extend_from_slice(&buffer[..length]);
            self.hand_out(false);
            return Ok(self.look_again(length == CHUNK));
        }
        let moved = self.at_end(buffer)?;
        Ok(self.look_again(moved))
    }

    fn look_again(&mut self, more: bool) -> Look {
        let has_news = self.intake.has_rows() || self.intake.state.read_ns == 0;
        if self.intake.state.read_ns == 0 {
            // That a stream was looked at is stored too: what is rotated from now on belongs to it.
            self.intake.state.read_ns = now_ns();
            if self.open.is_none() {
                self.intake.state.modified_ns = self.newest;
            }
        }
        Look {
            chunk: has_news.then(|| self.intake.take()),
            more,
        }
    }

    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        buffer.resize(CHUNK, 0);
        let from = self.intake.state.position + self.pending.len() as u64;
        match &self.open {
            Some(open) => open.file.read_at(buffer, from),
            None => Ok(0),
        }
    }

    /// Whether the open file still begins as it did.
    fn is_unchanged(&self) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(false) };
        let mut begin = [0; HEAD];
        let length = read_full(&open.file, &mut begin[..self.head.len()])?;
        Ok(begin[..length] == self.head)
    }

    /// Hands out whole lines; `all` also what has no newline at its end.
    fn hand_out(&mut self, all: bool) {
        let read_ns = now_ns();
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', &self.pending) {
            let line = &self.pending[begin..end];
            self.intake.line(line, (end + 1 - begin) as u64, read_ns);
            begin = end + 1;
        }
        if begin < self.pending.len() && (all || self.pending.len() - begin >= LONGEST_LINE) {
            let line = &self.pending[begin..];
            self.intake.line(line, line.len() as u64, read_ns);
            begin = self.pending.len();
        }
        if begin == 0 {
            return;
        }
        let wanted = HEAD.saturating_sub(self.head.len()).min(begin);
        self.head.extend_from_slice(&self.pending[..wanted]);
        self.pending.drain(..begin);
        // What is left is the beginning of a line. There may be many files, and none of them keeps the room of a chunk.
        self.pending.shrink_to(KEPT);
        let state = &mut self.intake.state;
        state.position += begin as u64;
        state.head_bytes = self.head.len() as u32;
        state.head_hash = series::head_hash(&self.head);
        if let Some(modified) = self.open.as_ref().and_then(|open| open.file.metadata().ok()) {
            state.modified_ns = modified_ns(&modified);
        }
    }

    /// Nothing is left to be read: was the file truncated, or is there a later one? Tells whether to look again at once.
    fn at_end(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        let found = open.file.metadata()?;
        let now_at_path = match std::fs::metadata(&self.path) {
            Ok(file) => Some((file.dev(), file.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let is_current = now_at_path == Some((open.device, open.inode));
        let is_new_content =
            modified_ns(&found) != std::mem::replace(&mut open.compared_ns, modified_ns(&found));
        let end = self.intake.state.position + self.pending.len() as u64;
        let is_shorter = is_current && found.len() < end;
        if is_shorter || is_new_content && !self.is_unchanged()? {
            self.close();
            return Ok(true);
        }
        if is_current {
            self.quiet_since = None;
            return Ok(false);
        }
        self.leave(&found, buffer)
    }

    /// Goes on to the next file, if there is one with lines and this one is really over.
    fn leave(&mut self, found: &std::fs::Metadata, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let files = self.series()?;
        let here = files
            .iter()
            .position(|file| (file.device, file.inode) == (found.dev(), found.ino()));
        let is_later = |file: &Candidate| file.suffix.is_empty() || file.modified_ns > modified_ns(found);
        let later = match here {
            Some(here) => &files[here + 1..],
            // It was removed, and has been read to its end.
            None => &files[files.iter().position(is_later).unwrap_or(files.len())..],
        };
        let Some(place) = later.iter().position(|file| self.is_successor(file)) else {
            return Ok(false);
        };
        // Whoever has rotated twice since does not write here any more.
        let is_long_over = place + 1 < later.len();
        let age = now_ns().saturating_sub(modified_ns(found));
        let is_old = u128::from(age.max(0).unsigned_abs()) >= self.grace.as_nanos();
        let quiet_since = *self.quiet_since.get_or_insert_with(Instant::now);
        if !(is_long_over || is_old || quiet_since.elapsed() >= self.grace) {
            return Ok(false);
        }
        // What was written between the last look and the rotation.
        if self.read(buffer)? > 0 {
            return Ok(true);
        }
        self.go_on(later[place].clone(), found, buffer)
    }

    /// Whether a later file has lines of its own. One that begins like this one is still to be truncated: this is its copy.
    fn is_successor(&self, file: &Candidate) -> bool {
        file.size > 0 && !(file.same_head && self.intake.state.head_bytes > 0)
    }

    /// Reads the beginning of `next` and goes on there, unless the files have changed meanwhile: it could have been copied
    /// and truncated just now. Until its first line is handed out, what is stored is the end of the file before it.
    fn go_on(&mut self, next: Candidate, left: &std::fs::Metadata, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let file = File::open(&next.path)?;
        buffer.resize(CHUNK, 0);
        let length = read_full(&file, buffer)?;
        let files = self.series()?;
        let here = files
            .iter()
            .position(|file| (file.device, file.inode) == (left.dev(), left.ino()));
        let mut later = files[here.map_or(0, |here| here + 1)..].iter();
        let is_next = |file: &Candidate| (file.device, file.inode) == (next.device, next.inode);
        let still_next = match here {
            Some(_) => later.find(|file| self.is_successor(file)).is_some_and(is_next),
            None => later.any(is_next),
        };
        let mut begin = [0; HEAD];
        let compared = read_full(&file, &mut begin[..length.min(HEAD)])?;
        if length < CHUNK && memchr::memchr(b'\n', &buffer[..length]).is_none() {
            // A file is known by its first line.
            return Ok(false);
        }
        if !still_next || begin[..compared] != buffer[..length.min(HEAD)] {
            return Ok(true);
        }
        self.hand_out(true);
        self.begin(file)?;
        self.pending.extend_from_slice(&buffer[..length]);
        self.hand_out(false);
        Ok(true)
    }

    fn close(&mut self) {
        self.open = None;
        self.pending.clear();
        self.quiet_since = None;
    }

    /// Opens the file in which reading goes on. Tells whether there is one.
    fn locate(&mut self) -> io::Result<bool> {
        let state = &self.intake.state;
        let last = (state.read_ns != 0).then_some(Last {
            device: state.device,
            inode: state.inode,
            position: state.position,
            modified_ns: state.modified_ns,
        });
        let files = self.series()?;
        // The times of files are a little behind the clock, so they are compared with each other only.
        let before = now_ns() - 1_000_000_000;
        self.newest = files.iter().map(|file| file.modified_ns).max().unwrap_or(before);
        match series::next(&files, last) {
            Next::Nothing => Ok(false),
            Next::Resume(index) => {
                self.resume(&files[index])?;
                Ok(true)
            }
            Next::Begin { index, gap } => {
                let file = files[index].clone();
                if gap {
                    let read = self.intake.state.position;
                    let path = self.path.display();
                    let why = format!(
                        "of {path}, {read} bytes had been read, and that file is gone or was truncated"
                    );
                    self.intake.gap(why, now_ns());
                }
                self.begin(File::open(&file.path)?)?;
                Ok(true)
            }
        }
    }

    fn resume(&mut self, candidate: &Candidate) -> io::Result<()> {
        let file = File::open(&candidate.path)?;
        let mut head = vec![0; self.intake.state.head_bytes as usize];
        let length = read_full(&file, &mut head)?;
        head.truncate(length);
        if series::head_hash(&head) != self.intake.state.head_hash && !head.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "the file changed while it was opened",
            ));
        }
        self.head = head;
        let is_current = candidate.suffix.is_empty();
        if is_current {
            let state = &mut self.intake.state;
            state.position = state.position.min(candidate.size);
        }
        self.opened(file)
    }

    fn begin(&mut self, file: File) -> io::Result<()> {
        self.pending.clear();
        self.head.clear();
        let state = &mut self.intake.state;
        state.position = 0;
        state.head_bytes = 0;
        state.head_hash = series::head_hash(&[]);
        self.opened(file)
    }

    fn opened(&mut self, file: File) -> io::Result<()> {
        let found = file.metadata()?;
        let state = &mut self.intake.state;
        state.device = found.dev();
        state.inode = found.ino();
        state.modified_ns = modified_ns(&found);
        self.quiet_since = None;
        self.open = Some(Open {
            file,
            device: found.dev(),
            inode: found.ino(),
            compared_ns: 0,
        });
        Ok(())
    }

    /// The file and its predecessors, the oldest first.
    ///
    /// Reading a folder while files in it are renamed can miss one or find one twice, so it is read until it was the same
    /// twice.
    fn series(&self) -> io::Result<Vec<Candidate>> {
        let names = |files: &[Candidate]| -> Vec<(PathBuf, u64, u64)> {
            let name = |file: &Candidate| (file.path.clone(), file.device, file.inode);
            files.iter().map(name).collect()
        };
        let mut files = self.list()?;
        for _ in 0..STABLE_WITHIN {
            let again = self.list()?;
            if names(&again) == names(&files) {
                return Ok(again);
            }
            files = again;
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "its folder changes all the time",
        ))
    }

    fn list(&self) -> io::Result<Vec<Candidate>> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let base = self
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let Some(suffix) = name.to_str().and_then(|name| series::suffix(name, &base)) else {
                continue;
            };
            // A file may be renamed or removed while its folder is read.
            match self.candidate(entry.path(), suffix.to_owned()) {
                Ok(Some(candidate)) => files.push(candidate),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        series::sort(&mut files);
        Ok(files)
    }

    fn candidate(&self, path: PathBuf, suffix: String) -> io::Result<Option<Candidate>> {
        let file = File::open(&path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Ok(None);
        }
        let state = &self.intake.state;
        let mut begin = [0; HEAD];
        let head = &mut begin[..(state.head_bytes as usize).min(HEAD)];
        let length = read_full(&file, head)?;
        let same_head =
            length == head.len() && (head.is_empty() || series::head_hash(head) == state.head_hash);
        Ok(Some(Candidate {
            path,
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified_ns: modified_ns(&found),
            same_head,
            suffix,
        }))
    }
}

fn modified_ns(file: &std::fs::Metadata) -> i64 {
    file.mtime()
        .saturating_mul(1_000_000_000)
        .saturating_add(file.mtime_nsec())
}

/// As much of `buffer` as the file has.
fn read_full(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], length as u64)? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}
