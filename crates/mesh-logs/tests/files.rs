//! Files as programs and logrotate treat them: every line once, in order, whatever happens.

mod common;

use std::fs;

use common::{Rig, plain};
use mesh_lab::wait_until;

#[tokio::test]
async fn lines_are_read_as_they_come_and_a_half_line_waits_for_its_end() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start();
    rig.append("a.log", "one\ntw");
    rig.expect("", &["one"]).await;
    rig.append("a.log", "o\r\nthree\n");
    rig.expect("", &["one", "two", "three"]).await;
    rig.stop();
    rig.append("a.log", "four\n");
    rig.start();
    rig.expect("", &["one", "two", "three", "four"]).await;
}

#[tokio::test]
async fn odd_bytes_and_long_lines_are_kept() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start();
    let long = "x".repeat(10_000_000) + " needle";
    rig.append("a.log", b"nul \0 in it\n\xff\xfe broken\n\nafter\n");
    rig.append("a.log", format!("{long}\nlast\n"));
    let expected = [
        "nul \0 in it",
        "\u{fffd}\u{fffd} broken",
        "",
        "after",
        &long,
        "last",
    ];
    wait_until("the lines", common::DEADLINE, async || {
        let found = rig.bodies("").await;
        if found == expected {
            Ok(())
        } else {
            Err(found.len())
        }
    })
    .await
    .unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    if let Some(peak) = peak {
        let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(kib < 100 * 1024, "{kib} KiB of memory for a line of 10 MB");
    }
}

#[tokio::test]
async fn rotation_by_rename_loses_nothing_also_while_nobody_looks() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    let [log, first, second, third] = ["a.log", "a.log.1", "a.log.2", "a.log.3"].map(|name| rig.path(name));
    rig.start();
    rig.append("a.log", "1\n2\n");
    rig.expect("", &["1", "2"]).await;
    fs::rename(&log, &first).unwrap();
    // Its writer has not noticed yet.
    rig.append("a.log.1", "3\n");
    rig.append("a.log", "4\n");
    rig.expect("", &["1", "2", "3", "4"]).await;

    rig.kill();
    rig.append("a.log", "5\n");
    fs::rename(&first, &second).unwrap();
    fs::rename(&log, &first).unwrap();
    rig.append("a.log", "6\n");
    fs::rename(&second, &third).unwrap();
    fs::rename(&first, &second).unwrap();
    fs::rename(&log, &first).unwrap();
    rig.append("a.log", "7 without an end");
    rig.start();
    rig.expect("", &["1", "2", "3", "4", "5", "6"]).await;
    rig.append("a.log", "\n");
    rig.expect("", &["1", "2", "3", "4", "5", "6", "7 without an end"])
        .await;
    assert_eq!(rig.metric("mesh_logs_gaps_total{source=\"a\"").await, Some(0.0));
}

#[tokio::test]
async fn rotation_by_copying_and_truncating_loses_nothing_also_while_nobody_looks() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    let (log, copy) = (rig.path("a.log"), rig.path("a.log.1"));
    let truncate = || {
        fs::OpenOptions::new()
            .write(true)
            .open(&log)
            .unwrap()
            .set_len(0)
            .unwrap()
    };
    rig.start();
    rig.append("a.log", "first line of the first part\n2\n");
    rig.expect("", &["first line of the first part", "2"]).await;
    fs::copy(&log, &copy).unwrap();
    truncate();
    rig.append("a.log", "first line of the second part\n");
    let part = [
        "first line of the first part",
        "2",
        "first line of the second part",
    ];
    rig.expect("", &part).await;

    rig.kill();
    rig.append("a.log", "5\n");
    fs::rename(&copy, rig.path("a.log.2")).unwrap();
    fs::copy(&log, &copy).unwrap();
    truncate();
    rig.append("a.log", "first line of the third part\n");
    rig.start();
    let all = [part[0], part[1], part[2], "5", "first line of the third part"];
    rig.expect("", &all).await;
    assert_eq!(rig.metric("mesh_logs_gaps_total{source=\"a\"").await, Some(0.0));
}

#[tokio::test]
async fn a_file_that_is_truncated_without_a_copy_is_a_gap_that_everybody_sees() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start();
    rig.append("a.log", "one\ntwo\n");
    rig.expect("", &["one", "two"]).await;
    fs::write(rig.path("a.log"), "other\n").unwrap();
    rig.expect("-event:logs.gap", &["one", "two", "other"]).await;
    let gaps = rig.rows("event:logs.gap level:warn").await.unwrap();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].body.contains("8 bytes had been read"), "{}", gaps[0].body);
    assert_eq!(rig.metric("mesh_logs_gaps_total{source=\"a\"").await, Some(1.0));
}

#[tokio::test]
async fn a_file_made_anew_is_another_file_even_with_the_same_inode() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start();
    let mut expected: Vec<String> = Vec::new();
    // tmpfs and ext4 both give the inode of a removed file to the next one, sooner or later.
    for round in 0..10 {
        let line = format!("round {round} {}", "x".repeat(round));
        rig.append("a.log", format!("{line}\n"));
        expected.push(line);
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        rig.expect("round", &expected).await;
        fs::remove_file(rig.path("a.log")).unwrap();
    }
}

#[tokio::test]
async fn a_source_that_vanishes_for_a_while_is_read_on() {
    let mut rig = Rig::new(&plain("a", "DIR/gone/a.log"));
    rig.start();
    fs::create_dir(rig.path("gone")).unwrap();
    rig.append("gone/a.log", "1\n");
    rig.expect("", &["1"]).await;
    fs::rename(rig.path("gone"), rig.path("away")).unwrap();
    rig.append("away/a.log", "2\n");
    rig.expect("", &["1", "2"]).await;
    rig.stop();
    rig.start();
    wait_until("a look at nothing", common::DEADLINE, async || {
        rig.metric("mesh_logs_lines_total{source=\"a\"")
            .await
            .ok_or("no metrics")
    })
    .await
    .unwrap();
    rig.append("away/a.log", "3\n");
    fs::rename(rig.path("away"), rig.path("gone")).unwrap();
    rig.expect("", &["1", "2", "3"]).await;
    assert_eq!(rig.metric("mesh_logs_gaps_total{source=\"a\"").await, Some(0.0));
}

#[tokio::test]
async fn what_was_rotated_before_the_first_line_was_stored_is_read_too() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.append("a.log.1", "history\n");
    rig.start();
    wait_until("a first look", common::DEADLINE, async || {
        let state = mesh_store::Reader::open(&rig.database()).await.ok();
        let sources = match state {
            Some(reader) => reader.sources().await.unwrap_or_default(),
            None => Vec::new(),
        };
        if sources.iter().any(|source| source.read_ns > 0) {
            Ok(())
        } else {
            Err("not looked")
        }
    })
    .await
    .unwrap();
    rig.kill();
    rig.append("a.log", "1\n");
    fs::rename(rig.path("a.log"), rig.path("a.log.1")).unwrap();
    rig.append("a.log", "2\n");
    rig.start();
    rig.expect("", &["1", "2"]).await;
}

#[tokio::test]
async fn a_pattern_finds_new_files_and_no_file_twice() {
    let mut rig = Rig::new(&plain("a", "DIR/logs/*.log*"));
    fs::create_dir(rig.path("logs")).unwrap();
    rig.append("logs/x.log", "x1\n");
    rig.start();
    rig.expect("", &["x1"]).await;
    rig.append("logs/y.log", "y1\n");
    rig.expect("", &["x1", "y1"]).await;
    fs::rename(rig.path("logs/x.log"), rig.path("logs/x.log.1")).unwrap();
    rig.append("logs/x.log", "x2\n");
    fs::write(rig.path("logs/z.log.2.gz"), b"\x1f\x8b\n").unwrap();
    rig.expect("-service:mesh-logs", &["x1", "y1", "x2"]).await;
}

#[tokio::test]
async fn a_clock_that_jumps_is_believed_and_loses_nothing() {
    let source = "[[logs.source]]\nname = \"a\"\npath = \"DIR/a.log\"\nformat = \"mosquitto\"\n";
    let mut rig = Rig::new(source);
    rig.start();
    let lines = [
        "1700000000: a",
        "1700000000: b",
        "1700003600: an hour later",
        "1700000000: back again",
        "1700000000: b",
        "1700000001: c",
    ];
    rig.append("a.log", lines.join("\n") + "\n");
    // In the order of time; lines of one second in the order in which they were written.
    let expected = ["a", "back again", "b", "b", "c", "an hour later"];
    wait_until("the lines", common::DEADLINE, async || {
        let mut found = rig.bodies("").await;
        let last = found.pop();
        found.sort();
        let mut wanted: Vec<&str> = expected[..5].to_vec();
        wanted.sort_unstable();
        if found == wanted && last.as_deref() == Some(expected[5]) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
}
