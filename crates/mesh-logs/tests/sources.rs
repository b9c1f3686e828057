//! Journals and topics.

mod common;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{DEADLINE, Rig};
use mesh_lab::wait_until;

fn journal(command: &str) -> String {
    format!("[[logs.source]]\nname = \"j\"\nkind = \"journal\"\ncommand = \"{command} {{after}}\"\n")
}

/// Prints entries from a file as `journalctl --cursor` does, and ends.
const REPLAY: &str = r#"#!/bin/sh
cursor=
for option; do case $option in --cursor=*) cursor=${option#--cursor=} ;; esac; done
echo "$*" >>"$0.calls"
if [ -n "$cursor" ] && grep -qF "\"$cursor\"" "$0.jsonl"; then sed -n "/\"$cursor\"/,\$p" "$0.jsonl"; else cat "$0.jsonl"; fi
echo "the journal is closed" >&2
exit 3
"#;

fn entry(number: u32) -> String {
    format!(
        "{{\"__CURSOR\":\"s=a;i={number}\",\"__REALTIME_TIMESTAMP\":\"170000000000000{number}\",\"MESSAGE\":\"entry {number}\",\
         \"PRIORITY\":\"4\",\"SYSLOG_IDENTIFIER\":\"test\",\"_HOSTNAME\":\"vm1\"}}\n"
    )
}

#[tokio::test]
async fn a_journal_is_read_on_over_restarts_and_a_lost_place_is_seen() {
    let mut rig = Rig::new(&journal("DIR/replay"));
    let script = rig.path("replay");
    std::fs::write(&script, REPLAY).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    rig.append("replay.jsonl", entry(1) + &entry(2));
    rig.start();
    rig.expect("", &["entry 1", "entry 2"]).await;
    // The command has ended and is started again, each time a little later; what it gives again is not stored again.
    rig.append("replay.jsonl", entry(3));
    rig.expect("", &["entry 1", "entry 2", "entry 3"]).await;
    let calls = std::fs::read_to_string(rig.path("replay.calls")).unwrap();
    assert!(
        calls.starts_with("--merge --no-tail\n") && calls.contains("--cursor=s=a;i=2"),
        "{calls}"
    );
    assert_eq!(rig.metric("mesh_logs_source_up{source=\"j\"").await, Some(0.0));
    assert!(
        rig.own_log().contains("the journal is closed"),
        "{}",
        rig.own_log()
    );
    rig.kill();
    // What was read last is deleted, and with it who knows what.
    std::fs::write(rig.path("replay.jsonl"), entry(5) + &entry(6)).unwrap();
    rig.start();
    rig.expect(
        "-event:logs.gap",
        &["entry 1", "entry 2", "entry 3", "entry 5", "entry 6"],
    )
    .await;
    let gaps = rig.rows("event:logs.gap").await.unwrap();
    assert_eq!(gaps.len(), 1);
    assert!(
        gaps[0].body.contains("not in the journal any more"),
        "{}",
        gaps[0].body
    );
    let row = &rig.rows("service:test node:vm1 level:warn").await.unwrap()[0];
    assert_eq!(row.time_ns, 1_700_000_000_000_001_000);
}

fn journal_remote() -> Option<PathBuf> {
    let program = Path::new("/usr/lib/systemd/systemd-journal-remote");
    let has_reader = Command::new("journalctl").arg("--version").output().is_ok();
    (program.exists() && has_reader).then(|| program.to_owned())
}

#[tokio::test]
async fn a_real_journal_is_followed_and_resumed() {
    let Some(program) = journal_remote() else {
        println!("skipped: systemd-journal-remote is not installed");
        return;
    };
    let mut rig = Rig::new(&journal("journalctl --file DIR/real.journal -o json -f"));
    let file = rig.path("real.journal");
    let write = |boot: &str, from: u32, to: u32| {
        let mut writer = Command::new(&program)
            .arg("-o")
            .arg(&file)
            .arg("-")
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = writer.stdin.take().unwrap();
        for number in from..=to {
            let micros = 1_700_000_000_000_000_u64 + u64::from(number);
            let text = format!(
                "__REALTIME_TIMESTAMP={micros}\n__MONOTONIC_TIMESTAMP={number}\n_BOOT_ID={boot}\n\
                 SYSLOG_IDENTIFIER=mosquitto\nMESSAGE=Client c{number} closed its connection.\n\n"
            );
            input.write_all(text.as_bytes()).unwrap();
        }
        drop(input);
        assert!(writer.wait().unwrap().success());
    };
    let expected = |to: u32| -> Vec<String> {
        (1..=to)
            .map(|number| format!("Client c{number} closed its connection."))
            .collect()
    };
    let boots = ["0f".repeat(16), "1f".repeat(16)];
    write(&boots[0], 1, 20);
    rig.start();
    let all = expected(20);
    rig.expect(
        "event:client.disconnected",
        &all.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    rig.kill();
    // What came before a reboot was not read either.
    write(&boots[0], 21, 25);
    write(&boots[1], 26, 30);
    rig.start();
    let all = expected(30);
    rig.expect("", &all.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
}

/// A stock Mosquitto that tells its log in topics; killed when dropped.
struct Broker(Child);

impl Drop for Broker {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn a_brokers_log_topics_are_read() {
    let source = "[[logs.source]]\nname = \"m\"\nkind = \"mqtt\"\nbroker = \"broker1\"\n";
    let mut rig = Rig::new(source);
    mesh_runtime::secrets::Secrets::load_or_create(&rig.path("secrets")).unwrap();
    let port = rig.port + 1;
    let conf = format!("listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest topic\nlog_type all\n");
    let file = rig.path("mosquitto.conf");
    std::fs::write(&file, conf).unwrap();
    let program = mesh_lab::system_program("mosquitto", "install it").unwrap();
    let start = || {
        let started = Command::new(&program)
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn();
        Broker(started.unwrap())
    };
    let broker = start();
    let publish = |id: &str| {
        let args = ["-p", &port.to_string(), "-i", id, "-t", "x", "-m", "y"].map(str::to_owned);
        Command::new("mosquitto_pub").args(args).status().unwrap();
    };
    rig.start();
    wait_until("lines of a client", DEADLINE, async || {
        publish("visitor");
        let found = rig
            .rows("client:visitor event:client.connected broker:broker1")
            .await
            .unwrap_or_default();
        if found.is_empty() { Err("none") } else { Ok(()) }
    })
    .await
    .unwrap();
    drop(broker);
    let _broker = start();
    wait_until("a gap and lines after it", DEADLINE, async || {
        publish("late");
        let gaps = rig.rows("event:logs.gap").await.unwrap_or_default().len();
        let late = rig.rows("client:late").await.unwrap_or_default().len();
        if gaps > 0 && late > 0 {
            Ok(())
        } else {
            Err(format!("{gaps} gaps, {late} lines"))
        }
    })
    .await
    .unwrap();
}
