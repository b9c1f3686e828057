//! What a broker remembers when it starts: from its own database what is retained, from the plugin's journal the rest.
//!
//! This is the only time that the broker waits for the disk because of the plugin.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ffi::Level;
use crate::options::Options;
use crate::policy::Memory;
use crate::replication::seen::Seen;
use crate::replication::{Now, Report};
use crate::retained::Version;
use crate::retained::journal::{Journal, Kept};
use crate::retained::replica::Restored;
use crate::retained::store_file::{self, StoreFileError};
use crate::retained::sync;

/// The name of the journal, in the folder of the broker's database.
const JOURNAL: &str = "mesh.journal";

/// What is remembered.
pub struct Recalled {
    /// For the policy.
    pub memory: Memory,
    /// Where the rest goes; `None` if it cannot be kept.
    pub journal: Option<Journal>,
    /// What is to be said in the log.
    pub said: Vec<(Level, String)>,
}

/// Reads all of it. `database` is the broker's, if it has one.
pub fn recall(options: &Options, database: Option<&Path>, now: Now) -> Recalled {
    let mut said = Vec::new();
    let ttl = Duration::from_secs(options.tombstone_ttl_s.into());
    let path = options.data_dir.join(JOURNAL);
    let (kept, journal) = match Journal::open(&path, ttl) {
        Ok((kept, journal)) => (kept, Some(journal)),
        Err(error) => {
            let text = format!(
                "cannot keep {}: {error}. Until that is repaired, a restart of this broker may bring a message \
                 twice, and deletions it learns from its peers only",
                path.display()
            );
            said.push((Level::Error, text));
            (Kept::default(), None)
        }
    };
    if kept.torn > 0 {
        let text = format!(
            "{} bytes at the end of {} were torn and left out",
            kept.torn,
            path.display()
        );
        said.push((Level::Warning, text));
    }
    let mut restored = Restored::at(sync::Now::from(now).wall);
    for (topic, (mark, second)) in &kept.ended {
        restored.ended(topic, *mark, *second);
    }
    if let Some(path) = database
        && let Err(text) = read_database(path, &mut restored)
    {
        let text = format!(
            "{}: {text}. What the broker has from it is not known to the mesh",
            path.display()
        );
        said.push((Level::Error, text));
    }
    let alive = kept.alive.or_else(|| database.and_then(written));
    let away = alive.map(|alive| Duration::from_millis(now.wall_ms.saturating_sub(alive)));
    let doubtful = away.is_some_and(|away| away > ttl) && restored.count() > 0;
    if doubtful {
        let text = format!(
            "this broker was away for {} h, longer than deletions are remembered (mosquitto.tombstone_ttl): what it \
             has retained counts as nothing until its peers have told what they have",
            away.unwrap_or_default().as_secs() / 3600
        );
        said.push((Level::Warning, text));
    }
    let count = restored.count();
    let ended = kept.ended.len();
    said.push((
        Level::Notice,
        format!("{count} retained messages, {ended} deletions remembered"),
    ));
    let memory = Memory {
        restored,
        seen: kept.seen.as_deref().map(seen).unwrap_or_default(),
        epoch: kept.epoch.unwrap_or_default(),
        doubtful,
    };
    Recalled {
        memory,
        journal,
        said,
    }
}

fn read_database(path: &Path, restored: &mut Restored) -> Result<(), String> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(|error| error.to_string())?,
    };
    let mut all = Vec::new();
    let input = BufReader::with_capacity(1 << 20, file);
    match store_file::read(input, Version::stored, |stored| all.push(stored)) {
        Ok(_) => {
            restored.all_stored(all);
            Ok(())
        }
        Err(StoreFileError::Read(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// When a file was last written, in milliseconds since 1970.
fn written(path: &Path) -> Option<u64> {
    let written: SystemTime = fs::metadata(path).ok()?.modified().ok()?;
    let since = written.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// What was seen stands in the journal as in the reports to peers.
fn seen(text: &[u8]) -> Seen {
    let mut seen = Seen::default();
    let report = str::from_utf8(text).ok().and_then(Report::parse);
    for (origin, epoch, numbers) in report.into_iter().flat_map(|report| report.seen) {
        if let Some(known) = seen.of_mut(&origin, epoch) {
            known.insert_all(&numbers);
        }
    }
    seen
}
