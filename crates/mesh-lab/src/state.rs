//! The state folder: whose it is, and that only one lab uses it.
//!
//! A folder belongs to labs if it holds [`LOCK`], which every lab makes first and keeps locked while it runs. The
//! operating system drops the lock with the process, so a crash never leaves a folder locked. A folder with
//! anything else in it is not touched.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::LabError;

const LOCK: &str = "lab.lock";

/// Somebody who only looks whether a lab runs, and a child that is just being started, hold the lock for a moment.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// The shortest limit for the path of a Unix socket (macOS: 104 bytes with the closing zero).
const SOCKET_PATH_MAX: usize = 103;

/// A state folder that this process may use.
#[derive(Debug)]
pub(crate) struct State {
    root: PathBuf,
    temporary: bool,
    _lock: File,
}

impl State {
    /// Takes the folder `path`, or makes one in the folder for temporary files. `fresh` empties the folder of an
    /// earlier lab.
    pub(crate) fn open(path: Option<&Path>, fresh: bool) -> Result<Self, LabError> {
        let root = match path {
            Some(path) => std::path::absolute(path).map_err(LabError::io("find the current folder"))?,
            None => make_temporary()?,
        };
        let refuse = |why: String| LabError::State {
            state: root.clone(),
            why,
        };
        let socket = root.join(SOCKET).as_os_str().len();
        if socket > SOCKET_PATH_MAX {
            return Err(refuse(format!(
                "its path is {} bytes too long for the Unix socket inside it; choose a shorter one",
                socket - SOCKET_PATH_MAX
            )));
        }
        let known = root.join(LOCK).is_file();
        match std::fs::read_dir(&root) {
            Ok(mut entries) => {
                if !known && entries.next().is_some() {
                    return Err(refuse(
                        "it is not empty and no lab made it; choose an empty or absent folder".to_owned(),
                    ));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => private_folder(&root)?,
            Err(error) => return Err(refuse(error.to_string())),
        }
        let lock = take_lock(&root)?;
        if fresh {
            empty(&root)?;
        }
        Ok(Self {
            root,
            temporary: path.is_none(),
            _lock: lock,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the folder `name` inside and returns its path.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, LabError> {
        let path = self.root.join(name);
        if !path.is_dir() {
            private_folder(&path)?;
        }
        Ok(path)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.root)
    }

    /// Whether the folder was made for this lab alone.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary
    }

    /// Removes a temporary folder and all that is in it.
    pub(crate) fn remove_if_temporary(&self) {
        if self.temporary {
            // What cannot be removed is in the way of nobody.
            std::fs::remove_dir_all(&self.root).ok();
        }
    }
}

const SOCKET: &str = "lab.sock";

/// The socket on which the lab of the folder `state` takes orders.
pub(crate) fn socket(state: &Path) -> PathBuf {
    state.join(SOCKET)
}

/// Whether a lab runs on the folder `state`.
pub(crate) fn is_locked(state: &Path) -> bool {
    File::open(state.join(LOCK)).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn take_lock(root: &Path) -> Result<File, LabError> {
    let path = root.join(LOCK);
    // Not for reading only: some file systems lock writable files alone.
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.map_err(LabError::io(format!("make {}", path.display())))?;
    let patience = Instant::now() + LOCK_PATIENCE;
    let mut locked = file.try_lock();
    while matches!(locked, Err(TryLockError::WouldBlock)) && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(5));
        locked = file.try_lock();
    }
    match locked {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LabError::Running {
            state: root.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(LabError::io(format!("lock {}", path.display()))(error)),
    }
}

fn make_temporary() -> Result<PathBuf, LabError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mesh-lab-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(LabError::io(format!("make the folder {}", path.display()))(error)),
        }
    }
}

/// Passwords and retained data are inside, so it is for its owner only.
fn private_folder(path: &Path) -> Result<(), LabError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(LabError::io(format!("make the folder {}", path.display())))
}

fn empty(root: &Path) -> Result<(), LabError> {
    let failed = |path: &Path| LabError::io(format!("remove {}", path.display()));
    for entry in std::fs::read_dir(root).map_err(failed(root))? {
        let entry = entry.map_err(failed(root))?;
        let path = entry.path();
        if entry.file_name() == LOCK {
            continue;
        }
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_folder {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        removed.map_err(failed(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_folder_is_made_and_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let state = State::open(Some(&path), false).unwrap();
        std::fs::write(path.join("kept"), "x").unwrap();
        let second = State::open(Some(&path), false).unwrap_err().to_string();
        assert!(
            second.contains("already running") && second.contains("lab down"),
            "{second}"
        );
        assert!(is_locked(&path));
        drop(state);
        assert!(!is_locked(&path));

        drop(State::open(Some(&path), false).unwrap());
        assert!(path.join("kept").exists());
        let _state = State::open(Some(&path), true).unwrap();
        assert!(!path.join("kept").exists());
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused_even_if_fresh_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("thesis.tex"), "x").unwrap();
        for fresh in [false, true] {
            let message = State::open(Some(folder.path()), fresh).unwrap_err().to_string();
            assert!(message.contains("not empty"), "{message}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let file = folder.path().join("thesis.tex");
        assert!(State::open(Some(&file), false).is_err(), "a file is no folder");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x".repeat(120));
        let message = State::open(Some(&path), false).unwrap_err().to_string();
        assert!(message.contains("bytes too long"), "{message}");
        assert!(!path.exists());
    }

    #[test]
    fn a_temporary_folder_is_for_its_owner_and_can_be_removed() {
        use std::os::unix::fs::PermissionsExt;
        let state = State::open(None, false).unwrap();
        assert_eq!(
            std::fs::metadata(state.root()).unwrap().permissions().mode() & 0o777,
            0o700
        );
        assert!(state.folder("broker1").unwrap().is_dir());
        state.remove_if_temporary();
        assert!(!state.root().exists());
    }
}
