//! A database that is locked, full, slow or damaged: sources wait, everybody can see why, and nothing is lost.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{DEADLINE, Rig, plain};
use mesh_lab::wait_until;
use rusqlite::Connection;

async fn trouble(rig: &Rig, wanted: &str) {
    wait_until("the trouble to be seen", DEADLINE, async || {
        let metric = rig
            .metric(&format!("mesh_logs_stalled{{trouble=\"{wanted}\"}}"))
            .await;
        let health = rig.get("/healthz").await;
        match (metric, health) {
            (Some(1.0), Some((503, body))) if body.contains("sources wait") => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await
    .unwrap();
}

async fn well(rig: &Rig) {
    wait_until("all to be well", DEADLINE, async || {
        let health = rig.get("/healthz").await;
        if health == Some((200, "ok\n".to_owned())) {
            Ok(())
        } else {
            Err(format!("{health:?}"))
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn while_the_database_is_locked_sources_wait_and_then_go_on_by_themselves() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start();
    rig.append("a.log", "before\n");
    rig.expect("", &["before"]).await;
    let other = Connection::open(rig.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    rig.append("a.log", "meanwhile\n");
    trouble(&rig, "locked").await;
    assert_eq!(rig.bodies("").await, ["before"], "readers go on");
    other.execute_batch("ROLLBACK").unwrap();
    rig.expect("", &["before", "meanwhile"]).await;
    well(&rig).await;
    assert_eq!(rig.metric("mesh_logs_stalls_total").await, Some(1.0));
    assert!(rig.own_log().contains("sources wait") && rig.own_log().contains("lines are stored again"));
}

/// A file system of its own that is soon full; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn while_the_disk_is_full_sources_wait_and_then_go_on_by_themselves() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    let Some(disk) = SmallDisk::mount(&rig.path("db"), 8 * 1024 * 1024) else {
        println!("skipped: a file system can be mounted by root only");
        return;
    };
    rig.start();
    rig.append("a.log", "0 before\n");
    rig.expect("", &["0 before"]).await;
    let ballast = disk.0.join("ballast");
    let room = 200 * 1024;
    let filled = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "dd if=/dev/zero of={0} bs=64k 2>/dev/null; truncate -s -{room} {0}",
            ballast.display()
        ))
        .status();
    assert!(filled.is_ok());
    let lines: Vec<String> = (1..5000)
        .map(|number| format!("{number} {}", "word ".repeat(20)))
        .collect();
    rig.append("a.log", lines.join("\n") + "\n");
    trouble(&rig, "full").await;
    // What was stored is stored, and can be read; also by who comes now.
    assert!(rig.bodies("before").await == ["0 before"]);
    std::fs::remove_file(&ballast).unwrap();
    drop(rig.get("/metrics").await);
    wait_until("all lines", DEADLINE, async || {
        let found = rig.bodies("").await.len();
        if found == 5000 { Ok(()) } else { Err(found) }
    })
    .await
    .unwrap();
    let numbers: Vec<String> = rig.bodies("").await;
    for (number, body) in numbers.iter().enumerate() {
        assert!(body.starts_with(&format!("{number} ")), "{body} at {number}");
    }
    well(&rig).await;
    rig.stop();
}

/// Bytes of memory that the daemon uses, and that it ever read from files.
fn usage(pid: u32) -> (u64, u64) {
    let number = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("status", "VmHWM:") * 1024, number("io", "rchar:"))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn while_the_disk_is_slow_sources_wait_and_memory_stays() {
    const LINES: u64 = 300_000;
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    let (library, slow) = (rig.path("slow_disk.so"), rig.path("slow"));
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slow_disk.c"))
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success(), "the C compiler has complaints");
    rig.start_with(|command| command.env("LD_PRELOAD", &library).env("MESH_TEST_SLOW", &slow));
    rig.append("a.log", "0 before\n");
    rig.expect("", &["0 before"]).await;
    std::fs::write(&slow, "").unwrap();
    let lines: Vec<String> = (1..LINES)
        .map(|number| format!("{number} {}", "word ".repeat(20)))
        .collect();
    let text = lines.join("\n") + "\n";
    let all = text.len() as u64;
    rig.append("a.log", text);
    trouble(&rig, "slow").await;
    let (memory, read) = usage(rig.pid());
    assert!(memory < 100_000_000, "{memory} bytes of memory");
    assert!(
        read < all / 2,
        "{read} of {all} bytes were read, though they cannot be stored"
    );
    let lag = rig.metric("mesh_logs_lag_lines{source=\"a\"").await;
    assert!(lag.is_some_and(|lines| lines > LINES as f64 / 2.0), "{lag:?}");
    std::fs::remove_file(&slow).unwrap();
    wait_until("all lines", DEADLINE, async || {
        let found = rig.metric("mesh_logs_lines_total{source=\"a\"").await;
        if found == Some(LINES as f64) {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
    .unwrap();
    well(&rig).await;
    let numbers = rig.bodies("").await;
    assert_eq!(numbers.len() as u64, LINES);
    for (number, body) in numbers.iter().enumerate() {
        assert!(body.starts_with(&format!("{number} ")), "{body} at {number}");
    }
    let (memory, _) = usage(rig.pid());
    println!("at most {memory} bytes of memory");
    assert!(memory < 100_000_000, "{memory} bytes of memory");
    assert!(rig.own_log().contains("the database is slow") && rig.own_log().contains("stored again"));
    rig.stop();
}

#[tokio::test]
async fn a_database_that_turns_out_to_be_damaged_is_set_aside_and_all_is_read_anew() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start();
    let lines: Vec<String> = (0..5000).map(|number| format!("line {number}")).collect();
    rig.append("a.log", lines.join("\n") + "\n");
    wait_until("all lines", DEADLINE, async || {
        let found = rig.bodies("").await.len();
        if found == 5000 { Ok(()) } else { Err(found) }
    })
    .await
    .unwrap();
    rig.stop();
    // Whoever reads at that moment leaves rows in the log of the database.
    let database = rusqlite::Connection::open(rig.database()).unwrap();
    database
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    database.close().unwrap();
    // The end of the file is whole, so that nothing is noticed at the start.
    let mut bytes = std::fs::read(rig.database()).unwrap();
    let page = 8192;
    let pages = bytes.len() / page;
    for number in 2..pages - 2 {
        bytes[number * page..number * page + 64].fill(0xa5);
    }
    std::fs::write(rig.database(), &bytes).unwrap();
    // As systemd and the lab do.
    for _ in 0..5 {
        rig.start();
        rig.append("a.log", "more\n");
        let aside = wait_until("a new database or an end", DEADLINE, async || {
            let found = rig.bodies("line").await.len();
            match rig.has_ended() {
                true => Ok(false),
                false if found == 5000 && set_aside(&rig).is_some() => Ok(true),
                false => Err(found),
            }
        });
        if aside.await.unwrap() {
            break;
        }
        rig.forget_ended();
    }
    let aside = set_aside(&rig).expect("a damaged database");
    assert_eq!(std::fs::metadata(&aside).unwrap().len(), bytes.len() as u64);
    assert!(rig.own_log().contains("set aside"), "{}", rig.own_log());
    assert_eq!(rig.bodies("more").await.last().map(String::as_str), Some("more"));
}

fn set_aside(rig: &Rig) -> Option<PathBuf> {
    let folder = std::fs::read_dir(rig.database().parent()?).ok()?;
    let mut names = folder.flatten().map(|entry| entry.path());
    names.find(|path| {
        let name = path.to_string_lossy();
        name.contains("damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    })
}

#[tokio::test]
async fn a_second_daemon_on_the_same_database_is_refused() {
    let mut rig = Rig::new(&plain("a", "DIR/a.log"));
    rig.start();
    well(&rig).await;
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-logs"))
        .arg("--config")
        .arg(rig.path("mesh.toml"))
        .args(["--set", &format!("logs.listen=127.0.0.1:{}", rig.port + 5)])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another process writes the database"), "{said}");
}
