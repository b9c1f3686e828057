//! What brokers have retained, and what they tell about it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use mesh_lab::{Lab, wait_until};
use mesh_model::names::RETAINED_TOPIC;

use super::client::Who;
use super::inbox::Inbox;
use super::{at, id, log_of, quiet};

/// Bridges come back after up to 5 s, and what is compared may differ for 3 s.
pub const LONG: Duration = Duration::from_secs(45);

/// What a broker tells about what it has retained.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Status {
    pub count: usize,
    pub digest: String,
    pub in_sync: bool,
}

/// Values by their topics.
pub type Values = BTreeMap<String, bytes::Bytes>;

/// What the `n`th broker tells, not older than this call.
pub async fn status(lab: &Lab, n: usize) -> Status {
    let inbox = Inbox::open(
        at(lab, n),
        &Who::anonymous(),
        &[RETAINED_TOPIC],
        "reader of the status",
    )
    .await;
    // The first is the stored one.
    inbox
        .wait_for("a fresh status", |messages| messages.len() > 1)
        .await;
    let last = inbox.messages().pop().expect("there are two");
    serde_json::from_str(&last.text()).expect("the status is JSON")
}

/// What a subscriber is shown as stored at the `n`th broker, which should be at least so many values.
async fn values(lab: &Lab, n: usize, count: usize) -> Values {
    let inbox = Inbox::open(
        at(lab, n),
        &Who::anonymous(),
        &["#"],
        "reader of what is retained",
    )
    .await;
    inbox
        .wait_for("as many values as are told", |messages| messages.len() >= count)
        .await;
    quiet(std::slice::from_ref(&inbox)).await;
    let all = inbox.messages().into_iter().filter(|message| message.retain);
    all.map(|message| (message.topic, message.payload)).collect()
}

/// Waits until these brokers say that they have retained the same and are in sync; returns what they have, which
/// must be the same too.
pub async fn agreed(lab: &Lab, brokers: &[usize]) -> Values {
    let equal = wait_until("equal digests", LONG, async || {
        let mut all = Vec::new();
        for n in brokers {
            all.push(status(lab, *n).await);
        }
        if all.iter().all(|one| *one == all[0] && one.in_sync) {
            Ok(all.swap_remove(0))
        } else {
            Err(format!("{all:?}"))
        }
    });
    let status = equal.await.unwrap_or_else(|late| {
        let logs: Vec<_> = brokers.iter().map(|n| log_of(lab, *n)).collect();
        panic!("{late}\n{}", logs.join("\n"))
    });
    let mut first: Option<Values> = None;
    for n in brokers {
        let values = values(lab, *n, status.count).await;
        assert_eq!(values.len(), status.count, "broker{n} tells how much it has");
        let first = first.get_or_insert_with(|| values.clone());
        assert!(
            values == *first,
            "equal digests, but broker{n} has something else"
        );
    }
    first.unwrap_or_default()
}

/// The database of the `n`th broker.
pub fn database(lab: &Lab, n: usize) -> PathBuf {
    folder(lab, n).join("mosquitto.db")
}

/// The journal of the `n`th broker.
pub fn journal(lab: &Lab, n: usize) -> PathBuf {
    folder(lab, n).join("mesh.journal")
}

fn folder(lab: &Lab, n: usize) -> PathBuf {
    lab.state().join(id(n).as_str())
}

/// Makes the `n`th broker save its database, and returns a copy of it.
pub async fn saved(lab: &Lab, n: usize) -> Vec<u8> {
    let path = database(lab, n);
    // Which file it is, since Mosquitto renames a new one into place. Its time would not do: the clock of the file
    // system may lag behind that of the programs by some milliseconds, in which a small database is already saved.
    let which = || std::fs::metadata(&path).map(|file| (file.ino(), file.modified().ok()));
    let before = which().ok();
    lab.save(id(n).as_str()).expect("it runs");
    let written = wait_until("a saved database", LONG, async || {
        let now = which().map_err(|error| error.to_string())?;
        if Some(now) == before {
            return Err("it is the one from before".to_owned());
        }
        std::fs::read(&path).map_err(|error| error.to_string())
    });
    written.await.unwrap_or_else(|late| panic!("{late}"))
}
