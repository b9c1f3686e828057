//! The state file: what mesh-health must know after its own restart.
//!
//! A small JSON file that is replaced as a whole, by a task of its own: the core never waits for the disk. What cannot
//! be read (torn, another program's, of a later version) is said, set aside under another name and not needed: brokers
//! that serve are the better mistake. Times are those of the wall clock, since no other one survives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mesh_model::{AdminState, BrokerId, Incident};
use mesh_runtime::atomic_file;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::probe::chain;

/// Rises with each change that an older program would misread.
pub const VERSION: u32 = 1;

const FILE_MODE: u32 = 0o644;

/// How long anybody waits for the file. Where the disk is that slow, clients matter more than what is known after a
/// restart.
const PATIENCE: Duration = Duration::from_millis(250);

/// The content of the state file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// [`VERSION`].
    pub version: u32,
    /// Milliseconds since 1970 when this memory began; a part of the names of incidents, which are counted from there.
    pub epoch_ms: i64,
    /// What the operator wants of each broker.
    pub admin: BTreeMap<BrokerId, AdminState>,
    /// What was seen of each broker.
    pub brokers: BTreeMap<BrokerId, KeptBroker>,
    /// Brokers that stopped being primary and may still have sessions.
    pub demoted: BTreeSet<BrokerId>,
    /// Where the operator wants clients to be sent back to.
    pub failback_to: Option<BrokerId>,
    /// Nginx may be avoiding the primary.
    pub avoided: bool,
    /// The switches of late that need not have been.
    pub optional_switches: Vec<Timestamp>,
    /// The number of the latest incident.
    pub last_incident: u64,
    /// The incidents of late, the oldest first.
    pub incidents: Vec<Incident>,
}

/// What was seen of one broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptBroker {
    /// The number of its start.
    pub boot: Option<u64>,
    /// Its deaths of late.
    pub deaths: Vec<Timestamp>,
}

impl Kept {
    /// The memory of a daemon that starts for the first time, at `now`.
    pub fn fresh(now: Timestamp) -> Self {
        Self {
            version: VERSION,
            epoch_ms: now.as_millisecond(),
            admin: BTreeMap::new(),
            brokers: BTreeMap::new(),
            demoted: BTreeSet::new(),
            failback_to: None,
            avoided: false,
            optional_switches: Vec::new(),
            last_incident: 0,
            incidents: Vec::new(),
        }
    }
}

/// What is to be written, and how many were before it.
pub type Version = (u64, Arc<Kept>);

/// What was kept; a fresh memory if there is none, or none that can be read.
pub fn load(path: &Path) -> Kept {
    let fresh = || Kept::fresh(Timestamp::now());
    if let Err(error) = atomic_file::tidy(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove what a predecessor left of the state file");
    }
    let problem = match std::fs::read(path) {
        Ok(text) => match parse(&text) {
            Ok(kept) => return kept,
            Err(problem) => problem,
        },
        Err(error) if error.kind() == ErrorKind::NotFound => return fresh(),
        Err(error) => error.to_string(),
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unreadable");
    let kept_as = match std::fs::rename(path, &aside) {
        Ok(()) => aside.to_string_lossy().into_owned(),
        Err(error) => format!("nowhere: {error}"),
    };
    tracing::error!(
        path = %path.display(), error = problem, set_aside = kept_as,
        "the state file cannot be read and is not used: all brokers are taken to be enabled, and earlier incidents \
         and failbacks are forgotten"
    );
    fresh()
}

fn parse(text: &[u8]) -> Result<Kept, String> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let head: Head = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if head.version != VERSION {
        return Err(format!(
            "it is of version {}, and this program knows version {VERSION}",
            head.version
        ));
    }
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

/// Writes the latest of `versions` to `path` until `shutdown`, and tells `done` the number of each that it has dealt
/// with: what cannot be written is said, and nobody waits for it.
pub async fn keep(
    path: PathBuf,
    mut versions: watch::Receiver<Version>,
    done: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    let mut failing = false;
    loop {
        let is_last = tokio::select! {
            biased;
            changed = versions.changed() => changed.is_err(),
            () = shutdown.cancelled() => true,
        };
        if is_last {
            return;
        }
        let (number, kept) = versions.borrow_and_update().clone();
        let target = path.clone();
        let written = tokio::task::spawn_blocking(move || save(&target, &kept)).await;
        let error = written.map_err(|error| error.to_string()).and_then(|saved| saved);
        match error {
            Ok(()) if std::mem::take(&mut failing) => {
                tracing::info!(path = %path.display(), "the state file can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(
                        path = %path.display(), error,
                        "the state file cannot be written: what happens now will be forgotten at the next start"
                    );
                }
            }
        }
        done.send_replace(number);
    }
}

/// Waits until the version `number` is written, or given up, but not for long.
pub async fn written(mut kept: watch::Receiver<u64>, number: u64) {
    let written = kept.wait_for(|latest| *latest >= number);
    if timeout(PATIENCE, written).await.is_err() {
        tracing::warn!("the state file is not written in time; nobody waits for it any longer");
    }
}

fn save(path: &Path, kept: &Kept) -> Result<(), String> {
    let mut text = serde_json::to_vec(kept).map_err(|error| error.to_string())?;
    text.push(b'\n');
    let written = atomic_file::write(path, &text, FILE_MODE);
    written.map(|_| ()).map_err(|error| chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_what_is_corrupt_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let aside = folder.path().join("state.json.unreadable");
        let id = |text: &str| text.parse::<BrokerId>().unwrap();
        let mut kept = load(&path);
        assert_eq!((kept.incidents.len(), aside.exists()), (0, false));
        kept.admin.insert(id("broker2"), AdminState::Draining);
        kept.demoted.insert(id("broker1"));
        kept.optional_switches
            .push("2026-11-23T03:00:00.123Z".parse().unwrap());
        save(&path, &kept).unwrap();
        assert_eq!(load(&path), kept);

        let whole = std::fs::read_to_string(&path).unwrap();
        let torn = &whole[..whole.len() / 2];
        let later = whole.replace("\"version\":1", "\"version\":2");
        let foreign = whole.replace("avoided", "avoidance");
        for corrupt in ["", "{", "{\"other\":1}", "\u{0}", "[]", torn, &later, &foreign] {
            std::fs::write(&path, corrupt).unwrap();
            assert!(load(&path).admin.is_empty(), "{corrupt:?}");
            assert_eq!(std::fs::read_to_string(&aside).unwrap(), corrupt);
            assert!(!path.exists(), "{corrupt:?}");
        }
        // What cannot even be opened is no reason not to start.
        std::fs::create_dir(&path).unwrap();
        assert!(load(&path).admin.is_empty());
    }
}
