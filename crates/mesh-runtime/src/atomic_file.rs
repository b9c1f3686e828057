//! Files that other programs read while we write them.
//!
//! A reader sees the old content or the new, never a part, also if the writer is killed or the power fails:
//! the content goes to a temporary file in the same folder, is synced, and is renamed over the target, and then
//! the folder is synced.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const TEMPORARY_SUFFIX: &str = ".tmp";

/// Why a file was not written. The old content is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", .path.display())]
pub struct WriteError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    pub source: io::Error,
}

/// Makes `contents` the content of `path`; tells whether it was something else before.
///
/// A file that holds these bytes already is left alone, so that nobody who watches it is woken. `mode` is the
/// permission bits of a new file, e.g. `0o644`.
///
/// # Errors
///
/// [`WriteError`] if any step fails; the temporary file is removed then.
pub fn write(path: &Path, contents: &[u8], mode: u32) -> Result<bool, WriteError> {
    if std::fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(false);
    }
    replace(path, contents, mode).map_err(|source| WriteError {
        path: path.to_owned(),
        source,
    })?;
    Ok(true)
}

/// Removes the temporary files that killed writers of `path` left behind.
///
/// # Errors
///
/// The first that cannot be removed.
pub fn tidy(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Ok(entries) = std::fs::read_dir(folder_of(path)) else {
        // Without a folder nothing was left in it.
        return Ok(());
    };
    for entry in entries.flatten() {
        if is_temporary(&entry.file_name(), &name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whether `name` is that of a temporary file for the target `of`, as a killed writer leaves one behind.
fn is_temporary(name: &OsStr, of: &str) -> bool {
    let name = name.to_string_lossy();
    let inner = name.strip_prefix(&temporary_prefix(of));
    let process = inner.and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
    process.is_some_and(|process| process.parse::<u32>().is_ok())
}

fn temporary_prefix(name: &str) -> String {
    format!(".{name}.")
}

fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let folder = folder_of(path);
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::other("the path names no file"))?;
    let prefix = temporary_prefix(&name.to_string_lossy());
    let temporary = folder.join(format!("{prefix}{}{TEMPORARY_SUFFIX}", std::process::id()));
    let written = write_synced(&temporary, contents, mode).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // The first error is the one to report; a leftover is replaced by the next try.
        std::fs::remove_file(&temporary).ok();
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn write_synced(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn equal_bytes_are_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upstream.conf");
        assert!(write(&path, b"one", 0o640).unwrap());
        let inode = std::fs::metadata(&path).unwrap().ino();
        assert!(!write(&path, b"one", 0o640).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
        assert!(write(&path, b"two", 0o640).unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn what_a_killed_writer_left_is_told_from_other_files() {
        let is = |name: &str| is_temporary(OsStr::new(name), "upstream.conf");
        assert!(is(&format!(".upstream.conf.{}.tmp", std::process::id())));
        assert!(!is("upstream.conf") && !is(".upstream.conf.swp.tmp") && !is(".nginx.conf.12.tmp"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("upstream.conf");
        for name in [".upstream.conf.12.tmp", "upstream.conf", ".nginx.conf.12.tmp"] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        tidy(&path).unwrap();
        assert!(!folder.path().join(".upstream.conf.12.tmp").exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_write_leaves_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("target");
        std::fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x", 0o644).is_err());
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }
}
