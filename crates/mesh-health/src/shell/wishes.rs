//! What the operator wants of each broker, kept over a restart of the daemon.
//!
//! A small JSON file that is replaced as a whole. One that cannot be read is said and ignored: brokers that serve
//! are the better mistake.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mesh_model::{AdminState, BrokerId};
use mesh_runtime::Config;
use mesh_runtime::atomic_file;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The wish for each broker.
pub type Wishes = BTreeMap<BrokerId, AdminState>;

const FILE_MODE: u32 = 0o644;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The brokers that are not simply enabled.
    admin: Wishes,
}

/// Where they are kept.
pub fn path(config: &Config) -> PathBuf {
    let beside = || config.balancer.dir.join("mesh-health.json");
    config.health.state_file.clone().unwrap_or_else(beside)
}

/// What was kept; nothing if there is no file or it cannot be read.
pub fn load(path: &Path) -> Wishes {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Wishes::new(),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read which brokers were drained or disabled");
            return Wishes::new();
        }
    };
    match serde_json::from_slice::<File>(&text) {
        Ok(file) => file.admin,
        Err(error) => {
            tracing::error!(
                path = %path.display(), %error,
                "it is not known which brokers were drained or disabled; all are taken to be enabled"
            );
            Wishes::new()
        }
    }
}

/// Writes each change of `wishes` to `path` until `shutdown`.
pub async fn keep(path: PathBuf, mut wishes: watch::Receiver<Wishes>, shutdown: CancellationToken) {
    loop {
        let is_last = tokio::select! {
            biased;
            changed = wishes.changed() => changed.is_err(),
            () = shutdown.cancelled() => true,
        };
        if is_last {
            return;
        }
        let now = wishes.borrow_and_update().clone();
        let target = path.clone();
        let written = tokio::task::spawn_blocking(move || save(&target, now)).await;
        if let Ok(Err(error)) = written {
            tracing::error!(
                path = %path.display(), error,
                "which brokers are drained or disabled will be forgotten at the next start"
            );
        }
    }
}

fn save(path: &Path, wishes: Wishes) -> Result<(), String> {
    let special = wishes
        .into_iter()
        .filter(|(_, wish)| *wish != AdminState::Enabled);
    let file = File {
        admin: special.collect(),
    };
    let mut text = serde_json::to_vec(&file).map_err(|error| error.to_string())?;
    text.push(b'\n');
    let written = atomic_file::write(path, &text, FILE_MODE);
    written.map(|_| ()).map_err(|error| super::probe::chain(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_what_is_corrupt_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wishes.json");
        assert_eq!(load(&path), Wishes::new());
        let id = |text: &str| text.parse::<BrokerId>().unwrap();
        let drained = (id("broker2"), AdminState::Draining);
        let enabled = (id("broker1"), AdminState::Enabled);
        save(&path, Wishes::from([enabled, drained.clone()])).unwrap();
        assert_eq!(load(&path), Wishes::from([drained]));
        for corrupt in [
            "",
            "{",
            "{\"admin\":{\"broker2\":\"tired\"}}",
            "{\"other\":1}",
            "\u{0}",
        ] {
            std::fs::write(&path, corrupt).unwrap();
            assert_eq!(load(&path), Wishes::new(), "{corrupt:?}");
        }
    }
}
