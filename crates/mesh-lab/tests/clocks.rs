//! Clocks that are wrong by hours, and one that jumps back: who writes last wins all the same, and nobody is shown
//! anything older than what was shown before. And with clocks that can be set, hours go by in a test.
//!
//! The brokers run under [libfaketime](https://github.com/wolfcw/libfaketime), each with a file that tells how far its
//! clock is off. Only what time of day it is changes, not how fast time goes by.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mesh_lab::{Lab, LabOptions};
use support::client::{Client, Who};
use support::inbox::{Inbox, Message};
use support::retained::{agreed, saved};
use support::{all, at, brokers, id, listen, start, wait_for_log};

const VALUE: &str = "t/value";
const CLEARED: &str = "t/cleared";

/// Clocks of brokers that can be set.
struct Clocks {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Clocks {
    /// Clocks that are right. `None`, and the reason printed, where libfaketime is not installed.
    fn new(brokers: usize) -> Option<Self> {
        let Some(library) = library() else {
            eprintln!(
                "skipped: clocks cannot be set, since there is no libfaketime (Debian's package of that name)"
            );
            return None;
        };
        let folder = tempfile::tempdir().expect("there can be a folder");
        let program = folder.path().join("mosquitto");
        let broker = mesh_lab::mosquitto_program().expect("Mosquitto is installed");
        // It is started as `mosquitto -c STATE/BROKER/mosquitto.conf`.
        let script = format!(
            "#!/bin/sh\n\
             export FAKETIME_TIMESTAMP_FILE=\"{}/$(basename \"$(dirname \"$2\")\")\"\n\
             export FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n\
             export LD_PRELOAD='{}'\n\
             exec '{}' \"$@\"\n",
            folder.path().display(),
            library.display(),
            broker.display()
        );
        fs::write(&program, script).expect("the folder can be written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let clocks = Self { folder, program };
        (1..=brokers).for_each(|n| clocks.set(n, "+0"));
        Some(clocks)
    }

    /// Sets the clock of the `n`th broker so far off, such as `+3h`. It has that within a second or two.
    fn set(&self, n: usize, off: &str) {
        let file = self.folder.path().join(id(n).as_str());
        let fresh = file.with_extension("new");
        fs::write(&fresh, off).expect("the folder can be written");
        fs::rename(&fresh, &file).expect("the folder can be written");
    }
}

/// Where distributions install libfaketime.
fn library() -> Option<PathBuf> {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf", ""];
    let path = |folder| {
        Path::new("/usr/lib")
            .join(folder)
            .join("faketime/libfaketimeMT.so.1")
    };
    folders.into_iter().map(path).find(|path| path.is_file())
}

/// Removes the shared memory that libfaketime leaves behind when its process is killed.
fn clean_up(pid: u32) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // Another version may call it otherwise; it is a page of memory.
        fs::remove_file(Path::new("/dev/shm").join(name)).ok();
    }
}

/// Brokers that write one after the other, each when all have what the one before has written.
struct Turns {
    written: usize,
}

impl Turns {
    /// The `n`th broker writes a value, and every one of `inboxes` gets it.
    async fn write(&mut self, lab: &Lab, n: usize, inboxes: &[Inbox]) {
        self.written += 1;
        let value = self.written.to_string();
        publish(lab, n, VALUE, &value, inboxes).await;
    }

    /// What a subscriber who was there all the time has been shown.
    fn shown(&self) -> Vec<String> {
        (1..=self.written).map(|value| value.to_string()).collect()
    }
}

async fn publish(lab: &Lab, n: usize, topic: &str, value: &str, inboxes: &[Inbox]) {
    let mut client = Client::open(at(lab, n), &Who::anonymous()).await;
    client.publish(topic, 1, true, value.to_owned()).await;
    client.leave().await;
    for inbox in inboxes {
        let what = format!(
            "{topic} = {value:?}, written at broker{n}, for the {}",
            inbox.name()
        );
        let last = |messages: &[Message]| {
            let last = messages.iter().rfind(|message| message.topic == topic);
            last.is_some_and(|last| last.text() == value)
        };
        inbox.wait_for(&what, last).await;
    }
}

fn texts(inbox: &Inbox, topic: &str) -> Vec<String> {
    inbox.on(topic).iter().map(Message::text).collect()
}

#[tokio::test]
async fn who_writes_last_wins_whatever_the_clocks_say() {
    let Some(clocks) = Clocks::new(3) else { return };
    clocks.set(2, "+3h");
    clocks.set(3, "-2h");
    let lab = start(LabOptions {
        mosquitto: Some(clocks.program.clone()),
        ..brokers(3)
    })
    .await;
    wait_for_log(
        &lab,
        1,
        &["the clock of broker2 is", "s ahead of the one here"],
        1,
    )
    .await;
    wait_for_log(&lab, 1, &["the clock of broker3 is", "s behind the one here"], 1).await;
    let mut inboxes = listen(&lab, &Who::anonymous(), "t/#").await;
    let mut turns = Turns { written: 0 };
    // The one whose clock is ahead first: all others must be later than that.
    for n in [2, 3, 1, 3, 2, 1, 3] {
        turns.write(&lab, n, &inboxes).await;
    }
    publish(&lab, 2, CLEARED, "set", &inboxes).await;
    publish(&lab, 3, CLEARED, "", &inboxes).await;

    turns.write(&lab, 2, &inboxes).await;
    clocks.set(2, "-4h");
    wait_for_log(&lab, 1, &["the clock of broker2 is", "s behind the one here"], 1).await;
    // First the one whose clock has jumped, over what it has written itself before.
    for n in [2, 2, 1, 3, 2] {
        turns.write(&lab, n, &inboxes).await;
    }
    let brokers: Vec<usize> = all(&lab).collect();
    agreed(&lab, &brokers).await;
    for inbox in &inboxes {
        assert_eq!(texts(inbox, VALUE), turns.shown(), "the {}", inbox.name());
        assert_eq!(texts(inbox, CLEARED), ["set", ""], "the {}", inbox.name());
    }

    // It begins anew with that clock, and knows only from others what it has written when it was ahead.
    let pid = lab.pid("broker2");
    lab.kill("broker2").await.unwrap();
    pid.into_iter().for_each(clean_up);
    lab.restart("broker2").await.unwrap();
    agreed(&lab, &brokers).await;
    let before = turns.written;
    inboxes[1] = Inbox::open(
        at(&lab, 2),
        &Who::anonymous(),
        &["t/#"],
        "new subscriber on broker2",
    )
    .await;
    for n in [2, 1, 2] {
        turns.write(&lab, n, &inboxes).await;
    }
    let found = agreed(&lab, &brokers).await;
    let last = turns.written.to_string();
    assert_eq!(found.get(VALUE).map(AsRef::as_ref), Some(last.as_bytes()));
    assert!(!found.contains_key(CLEARED), "it is back");
    for (n, inbox) in (1..).zip(&inboxes) {
        // Who came later is shown what was stored then, and what came after.
        let (from, cleared): (_, &[&str]) = match n {
            2 => (before - 1, &[]),
            _ => (0, &["set", ""]),
        };
        assert_eq!(texts(inbox, VALUE), turns.shown()[from..], "the {}", inbox.name());
        assert_eq!(texts(inbox, CLEARED), cleared, "the {}", inbox.name());
    }
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn who_was_away_for_longer_than_deletions_are_remembered_takes_a_copy() {
    let Some(clocks) = Clocks::new(3) else { return };
    let lab = start(LabOptions {
        mosquitto: Some(clocks.program.clone()),
        settings: "[mosquitto]\ntombstone_ttl = \"1h\"\n".to_owned(),
        ..brokers(3)
    })
    .await;
    publish(&lab, 1, VALUE, "kept", &[]).await;
    publish(&lab, 1, CLEARED, "set", &[]).await;
    let brokers: Vec<usize> = all(&lab).collect();
    assert_eq!(agreed(&lab, &brokers).await.len(), 2);
    saved(&lab, 3).await;
    let pid = lab.pid("broker3");
    lab.kill("broker3").await.unwrap();
    pid.into_iter().for_each(clean_up);
    publish(&lab, 1, CLEARED, "", &[]).await;
    // Two hours later nobody needs to remember that any more, and it has the value in its database.
    brokers.iter().for_each(|n| clocks.set(*n, "+2h"));
    lab.restart("broker3").await.unwrap();
    wait_for_log(&lab, 3, &["this broker was away for 2 h"], 1).await;
    let found = agreed(&lab, &brokers).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [VALUE]);
    wait_for_log(
        &lab,
        3,
        &["after a long absence, 1 retained messages were dropped"],
        1,
    )
    .await;
    lab.stop().await.unwrap();
}
