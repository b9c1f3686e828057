//! `meshctl lab` as a user runs it: what it prints, how it ends, and that nothing is left.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mesh_lab::ports::PortBlock;
use mesh_lab::wait_until;

const PATIENCE: Duration = Duration::from_secs(15);

fn meshctl() -> Command {
    Command::new(env!("CARGO_BIN_EXE_meshctl"))
}

/// A lab in the foreground, on ports and in a folder of its own.
struct Up {
    block: PortBlock,
    folder: tempfile::TempDir,
    child: Child,
    /// What was printed before `ready`.
    printed: String,
}

impl Up {
    fn state(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    /// Starts a lab and waits for `ready`.
    fn start() -> Self {
        let (block, folder) = (PortBlock::reserve().unwrap(), tempfile::tempdir().unwrap());
        let mut child = up(&folder.path().join("lab"), block.base())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = String::new();
        for line in BufReader::new(child.stdout.as_mut().unwrap()).lines() {
            let line = line.unwrap();
            if line == "ready" {
                return Self {
                    block,
                    folder,
                    child,
                    printed,
                };
            }
            printed += &line;
            printed.push('\n');
        }
        panic!("it ended ({:?}) before it was ready: {printed}", child.wait());
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until no process of the lab runs and nobody listens on its ports.
    async fn nothing_left(&self) {
        wait_until("the end of everything", PATIENCE, async || {
            if let Some(process) = mentioning(&self.state()) {
                return Err(process);
            }
            let first = self.block.base() - 1;
            match (first..first + 80).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_err()) {
                Some(port) => Err(format!("port {port} is taken")),
                None => Ok(()),
            }
        })
        .await
        .unwrap();
    }

    fn fault(&self, arguments: &[&str]) -> Output {
        meshctl()
            .args(["lab", "fault"])
            .args(arguments)
            .arg("--state")
            .arg(self.state())
            .output()
            .unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Both fail if the test has ended it, as it should.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn up(state: &Path, port: u16) -> Command {
    let mut command = meshctl();
    command
        .args([
            "lab",
            "up",
            "--brokers",
            "3",
            "--base-port",
            &port.to_string(),
            "--state",
        ])
        .arg(state);
    command
}

/// A process whose command line names `state`; Nginx's workers are told by their ports.
fn mentioning(state: &Path) -> Option<String> {
    let output = Command::new("ps")
        .args(["-axwwo", "pid=,command="])
        .output()
        .unwrap();
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    listing
        .lines()
        .find(|line| line.contains(&*state.to_string_lossy()))
        .map(str::to_owned)
}

fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.trim_end().lines().count(), 1, "one sentence: {text}");
    text
}

#[tokio::test]
async fn it_says_where_everything_is_and_obeys_until_it_is_told_to_end() {
    let mut lab = Up::start();
    let port = lab.block.base();
    for expected in [
        format!("clients     127.0.0.1:{port}"),
        "/v1/status".to_owned(),
        "broker3".to_owned(),
    ] {
        assert!(lab.printed.contains(&expected), "{expected} in {}", lab.printed);
    }
    assert!(lab.fault(&["kill", "broker1"]).status.success());
    assert!(lab.fault(&["hang", "broker2"]).status.success());
    assert!(lab.fault(&["resume", "broker2"]).status.success());
    assert!(lab.fault(&["restart", "broker1"]).status.success());
    assert!(complaint(&lab.fault(&["cut", "broker1"]), 1).contains("--netns"));
    assert!(complaint(&lab.fault(&["kill", "broker9"]), 1).contains("there is no broker9 in this lab"));

    let second = up(&lab.state(), port).output().unwrap();
    assert!(complaint(&second, 1).contains("a lab is already running in"));
    let elsewhere = up(&lab.folder.path().join("other"), port).output().unwrap();
    assert!(complaint(&elsewhere, 1).contains(&format!("port {port} (balancer) is already in use by")));

    let down = || {
        meshctl()
            .args(["lab", "down", "--state"])
            .arg(lab.state())
            .output()
            .unwrap()
    };
    let output = down();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        mentioning(&lab.state().join("broker1")),
        None,
        "`down` returns when all has ended"
    );
    assert!(complaint(&down(), 1).contains("no lab is running in"));
    assert!(lab.child.wait().unwrap().success());
    lab.nothing_left().await;
}

#[tokio::test]
async fn mesh_health_is_there_again_when_it_dies_and_primaries_outlive_a_lab() {
    let mut lab = Up::start();
    let status = |lab: &Up| {
        let output = meshctl()
            .args(["status", "--json", "--state"])
            .arg(lab.state())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str::<mesh_model::Snapshot>(&text).map_err(|error| format!("{error}: {text}"))
    };
    let moved_to_broker2 = async |lab: &Up| {
        wait_until(
            "a confirmed switch to broker2",
            PATIENCE,
            async || match status(lab)? {
                snapshot if snapshot.primary.as_str() == "broker2" && snapshot.balancer.confirmed => {
                    Ok(snapshot.generation)
                }
                snapshot => Err(format!("{snapshot:?}")),
            },
        )
        .await
        .unwrap()
    };
    assert!(lab.fault(&["kill", "mesh-health"]).status.success());
    wait_until("another mesh-health", PATIENCE, async || status(&lab))
        .await
        .unwrap();
    assert!(lab.fault(&["kill", "broker1"]).status.success());
    let generation = moved_to_broker2(&lab).await;

    lab.signal("-INT");
    assert!(lab.child.wait().unwrap().success());
    lab.child = up(&lab.state(), lab.block.base())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(lab.child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
    // broker2 is another process now, and Nginx may avoid it: that takes a new generation.
    assert!(moved_to_broker2(&lab).await >= generation);
    lab.signal("-INT");
    assert!(lab.child.wait().unwrap().success());
    lab.nothing_left().await;
}

#[tokio::test]
async fn every_way_to_end_it_leaves_nothing() {
    for signal in ["-INT", "-TERM", "-HUP", "-KILL"] {
        let mut lab = Up::start();
        assert!(lab.fault(&["hang", "broker2"]).status.success());
        lab.signal(signal);
        let status = lab.child.wait().unwrap();
        assert_eq!(
            status.success(),
            ["-INT", "-TERM"].contains(&signal),
            "{signal}: {status}"
        );
        lab.nothing_left().await;
    }
}

#[tokio::test]
async fn interrupted_in_the_middle_of_its_start_it_leaves_nothing() {
    for milliseconds in (0..120).step_by(15) {
        let (block, folder) = (PortBlock::reserve().unwrap(), tempfile::tempdir().unwrap());
        let child = up(&folder.path().join("lab"), block.base())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lab = Up {
            block,
            folder,
            child,
            printed: String::new(),
        };
        // The instant is the point of this test; nothing is waited for.
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        lab.signal("-INT");
        lab.child.wait().unwrap();
        lab.nothing_left().await;
    }
}

#[test]
fn what_cannot_be_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    let block = PortBlock::reserve().unwrap();
    let output = up(folder.path(), block.base()).arg("--fresh").output().unwrap();
    assert!(complaint(&output, 1).contains("is not empty and no lab made it"));
    assert!(folder.path().join("thesis.tex").exists());

    let output = meshctl().args(["lab", "up", "--brokers", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = meshctl().args(["lab", "fault", "kill"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
