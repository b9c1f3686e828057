//! A program that runs a lab and is killed: what it has started ends all the same.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{SECOND, groups, left_of, nothing_left, options};
use mesh_lab::ports::PortBlock;
use mesh_lab::{Lab, LabOptions, Ports, wait_until};

/// Tells this program, started again, to be the one that is killed, and where.
const LAUNCHER: &str = "MESH_LAB_TEST_LAUNCHER";

/// Not a test: the program that is killed. It says which process groups it has, and waits.
#[tokio::test]
#[ignore = "a part of the other tests"]
async fn launcher() {
    let Ok(what) = std::env::var(LAUNCHER) else { return };
    let (port, state) = what.split_once(' ').unwrap();
    let options = LabOptions {
        state: Some(state.into()),
        base_port: Some(port.parse().unwrap()),
        ..options()
    };
    let lab = Lab::start(options).await.unwrap();
    lab.hang("broker2").await.unwrap();
    for group in groups(&lab) {
        println!("group {group}");
    }
    println!("ready");
    std::future::pending().await
}

/// Starts the launcher.
fn launch(block: &PortBlock, state: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "launcher", "--ignored", "--nocapture"])
        .env(LAUNCHER, format!("{} {}", block.base(), state.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The process groups of the launcher's lab, when that is there.
fn await_lab(child: &mut Child) -> BTreeSet<u32> {
    let mut groups = BTreeSet::new();
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        // libtest writes before the first line.
        if let Some((_, group)) = line.split_once("group ") {
            groups.insert(group.parse().unwrap());
        }
        if line.ends_with("ready") {
            return groups;
        }
    }
    panic!("the launcher ended early");
}

#[tokio::test]
async fn after_kill_9_nothing_is_left_not_even_a_hung_broker() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("lab");
    let block = PortBlock::reserve().unwrap();
    let ports = Ports::new(block.base(), 3).unwrap();
    for round in 0..2 {
        let mut child = launch(&block, &state);
        let groups = await_lab(&mut child);
        assert!(
            left_of(&groups).len() >= 5,
            "round {round}: three brokers, Nginx and a worker are seen"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the end of everything", 10 * SECOND, async || {
            nothing_left(&groups, &ports)
        })
        .await
        .unwrap();
    }
    let database = state.join("broker2/mosquitto.db");
    assert!(database.exists(), "the hung broker was woken and saved its state");
}

#[tokio::test]
async fn killed_in_the_middle_of_its_start_it_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("lab");
    let block = PortBlock::reserve().unwrap();
    let ports = Ports::new(block.base(), 3).unwrap();
    for milliseconds in (0..60).step_by(6) {
        let mut child = launch(&block, &state);
        // The instant is the point of this test; nothing is waited for.
        tokio::time::sleep(std::time::Duration::from_millis(milliseconds)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until("the end of everything", 10 * SECOND, async || {
            let mentions = Command::new("ps").args(["-axwwo", "command="]).output().unwrap();
            let mentions = String::from_utf8_lossy(&mentions.stdout).into_owned();
            let path = state.display().to_string();
            match mentions.lines().find(|line| line.contains(&path)) {
                Some(line) => Err(line.to_owned()),
                None => nothing_left(&BTreeSet::new(), &ports),
            }
        })
        .await
        .unwrap();
    }
}
