//! A log file and its rotated predecessors, as one series of lines.
//!
//! However files are rotated (renamed, or copied and truncated, once or many times while nobody looked), what has been
//! read is known by its first bytes, and the rest follows from the order of the files: go on where reading ended, then
//! read every later file whole, up to the one that is written now. An inode alone says little, since it is used again.

use std::cmp::Ordering;
use std::path::PathBuf;

/// A file is known by at most so many of its first bytes.
pub const HEAD: usize = 1024;

/// A file of a series, as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub path: PathBuf,
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When it was modified last, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Whether its first bytes are those of the file that was read last.
    pub same_head: bool,
    /// What follows the name of the series, e.g. `.1`; empty for the file that is written now.
    pub suffix: String,
}

/// The file that was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// Bytes read.
    pub position: u64,
    /// When it had been modified last.
    pub modified_ns: i64,
}

/// Where reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// In the file with this index, after what was read.
    Resume(usize),
    /// At the beginning of the file with this index.
    Begin {
        /// The file.
        index: usize,
        /// Whether lines may be missing: the end of the file that was read last is gone.
        gap: bool,
    },
    /// There is nothing to read.
    Nothing,
}

/// Whether `name` is a rotated predecessor of the file `base`, and if so, what follows the base. Compressed ones cannot be
/// read on, and are left out.
pub fn suffix<'a>(name: &'a str, base: &str) -> Option<&'a str> {
    let rest = name.strip_prefix(base)?;
    let is_compressed = [".gz", ".xz", ".bz2", ".zst"]
        .iter()
        .any(|end| rest.ends_with(end));
    let is_rotated = rest.is_empty() || rest.starts_with('.') || rest.starts_with('-');
    (is_rotated && !is_compressed).then_some(rest)
}

/// Sorts the oldest file first; the one that is written now comes last.
pub fn sort(files: &mut [Candidate]) {
    let numbered = |file: &Candidate| {
        file.suffix
            .strip_prefix('.')
            .and_then(|number| number.parse::<u32>().ok())
    };
    // Where all are numbered, a higher number is older; the times of quick rotations can be equal.
    let all_numbered = files
        .iter()
        .all(|file| file.suffix.is_empty() || numbered(file).is_some());
    files.sort_by(|a, b| match (a.suffix.is_empty(), b.suffix.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if all_numbered => numbered(b).cmp(&numbered(a)),
        (false, false) => a
            .modified_ns
            .cmp(&b.modified_ns)
            .then_with(|| a.suffix.cmp(&b.suffix)),
    });
}

/// Where to go on among `files`, sorted by [`sort`]; `last` is `None` if nothing of the series was ever read.
pub fn next(files: &[Candidate], last: Option<Last>) -> Next {
    let Some(last) = last else {
        // What was rotated before anybody looked is history.
        return match files.iter().position(|file| file.suffix.is_empty()) {
            Some(index) => Next::Begin { index, gap: false },
            None => Next::Nothing,
        };
    };
    let is_it = |file: &Candidate| (file.device, file.inode) == (last.device, last.inode) && file.same_head;
    let later = files.iter().position(|file| file.modified_ns > last.modified_ns);
    if last.position == 0 {
        // Nothing tells the file by what is in it. Whatever was written since is unread: the file itself, wherever it is
        // now, or a copy of it, if it was truncated after that.
        let itself = files.iter().rposition(is_it);
        let is_resumed = itself.is_some() && (later.is_none() || itself <= later);
        return match (itself, later) {
            (Some(index), _) if is_resumed => Next::Resume(index),
            (_, Some(index)) => Next::Begin { index, gap: false },
            _ => Next::Nothing,
        };
    }
    // The file itself rather than a copy of it; of copies the latest.
    let found = files
        .iter()
        .rposition(|file| is_it(file) && file.size >= last.position)
        .or_else(|| files.iter().rposition(|file| file.same_head));
    if let Some(index) = found {
        return Next::Resume(index);
    }
    // Its end is gone. Everything that was written later is still to be read.
    match later.or_else(|| files.iter().rposition(|file| file.suffix.is_empty())) {
        Some(index) => Next::Begin { index, gap: true },
        None => Next::Nothing,
    }
}

/// The hash of the first bytes of a file (FNV-1a).
pub fn head_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(suffix: &str, inode: u64, size: u64, modified_ns: i64, same_head: bool) -> Candidate {
        Candidate {
            path: PathBuf::from(format!("/log{suffix}")),
            device: 1,
            inode,
            size,
            modified_ns,
            same_head,
            suffix: suffix.to_owned(),
        }
    }

    fn ask(mut files: Vec<Candidate>, last: Option<Last>) -> (Next, Vec<String>) {
        sort(&mut files);
        let order = files.iter().map(|file| file.suffix.clone()).collect();
        (next(&files, last), order)
    }

    const LAST: Option<Last> = Some(Last {
        device: 1,
        inode: 10,
        position: 500,
        modified_ns: 50,
    });

    #[test]
    fn a_series_begins_with_the_file_that_is_written_now() {
        let (next, order) = ask(vec![file("", 1, 9, 9, false), file(".1", 2, 9, 8, false)], None);
        assert_eq!(
            (next, order),
            (
                Next::Begin { index: 1, gap: false },
                vec![".1".into(), String::new()]
            )
        );
        assert_eq!(ask(vec![file(".1", 2, 9, 8, false)], None).0, Next::Nothing);
        assert_eq!(ask(vec![], LAST).0, Next::Nothing);
    }

    #[test]
    fn after_renames_reading_goes_on_in_the_renamed_file() {
        let files = vec![
            file("", 12, 9, 99, false),
            file(".1", 11, 9, 80, false),
            file(".2", 10, 900, 60, true),
            file(".10", 9, 9, 10, false),
        ];
        let (next, order) = ask(files, LAST);
        assert_eq!(order, [".10", ".2", ".1", ""]);
        assert_eq!(next, Next::Resume(1));
    }

    #[test]
    fn after_copy_and_truncation_reading_goes_on_in_the_copy() {
        // While the copy is being made both have the same beginning: the file itself is read on.
        let (next, _) = ask(
            vec![file("", 10, 600, 60, true), file(".1", 11, 300, 61, true)],
            LAST,
        );
        assert_eq!(next, Next::Resume(1));
        let (next, _) = ask(
            vec![file("", 10, 0, 62, false), file(".1", 11, 600, 61, true)],
            LAST,
        );
        assert_eq!(next, Next::Resume(0));
        // Truncated, with too little left to tell by its beginning.
        let (next, _) = ask(
            vec![file("", 10, 100, 62, false), file(".1", 11, 400, 61, true)],
            LAST,
        );
        assert_eq!(next, Next::Resume(0));
    }

    #[test]
    fn what_was_written_after_a_first_look_is_unread_wherever_it_is() {
        let last = Some(Last {
            device: 1,
            inode: 10,
            position: 0,
            modified_ns: 50,
        });
        let (next, _) = ask(vec![file("", 10, 9, 50, true), file(".1", 2, 9, 40, true)], last);
        assert_eq!(next, Next::Resume(1));
        let (next, _) = ask(vec![file("", 11, 9, 70, true), file(".1", 10, 9, 60, true)], last);
        assert_eq!(next, Next::Resume(0));
        let (next, _) = ask(vec![file("", 10, 9, 70, true), file(".1", 11, 9, 60, true)], last);
        assert_eq!(next, Next::Begin { index: 0, gap: false });
        let absent = last.map(|last| Last { inode: 0, ..last });
        let (next, _) = ask(
            vec![file("", 10, 9, 70, true), file(".1", 11, 9, 40, true)],
            absent,
        );
        assert_eq!(next, Next::Begin { index: 1, gap: false });
    }

    #[test]
    fn an_inode_that_is_used_again_is_another_file() {
        let (next, _) = ask(vec![file("", 10, 900, 99, false)], LAST);
        assert_eq!(next, Next::Begin { index: 0, gap: true });
    }

    #[test]
    fn where_the_end_is_gone_all_that_was_written_later_is_read() {
        let files = vec![
            file("", 13, 9, 99, false),
            file("-20261122", 12, 9, 80, false),
            file("-20261121", 11, 9, 40, false),
        ];
        assert_eq!(ask(files, LAST).0, Next::Begin { index: 1, gap: true });
    }

    #[test]
    fn predecessors_are_told_by_their_names() {
        assert_eq!(suffix("a.log", "a.log"), Some(""));
        assert_eq!(suffix("a.log.1", "a.log"), Some(".1"));
        assert_eq!(suffix("a.log-20261121", "a.log"), Some("-20261121"));
        assert_eq!(suffix("a.log.2.gz", "a.log"), None);
        assert_eq!(suffix("a.logs", "a.log"), None);
        assert_eq!(suffix("b.log", "a.log"), None);
    }
}
