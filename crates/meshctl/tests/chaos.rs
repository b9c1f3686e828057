//! `meshctl chaos` as a user runs it: that it keeps its account, and that it can fail.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mesh_lab::{Lab, LabOptions, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

fn chaos(report: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command
        .args(["chaos", "--clients", "20", "--seed", "1", "--report"])
        .arg(report)
        .args(more);
    command
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn faults_are_made_and_every_message_is_accounted_for() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("r");
    let output = chaos(
        &report,
        &["--every", "3s", "--for", "10s", "--faults", "kill,hang"],
    )
    .output()
    .unwrap();
    let said = told(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("**Every promise was kept.**"), "{said}");
    let json = std::fs::read_to_string(report.join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let messages = &json["messages"];
    assert_eq!(messages["lost"], 0);
    assert_eq!(messages["sent"], messages["acknowledged"]);
    assert!(messages["acknowledged"].as_u64().unwrap() > 200, "{messages}");
    assert!(json["faults"].as_array().unwrap().len() >= 2, "{json}");
    for file in ["report.md", "outages.svg"] {
        assert!(report.join(file).exists(), "{file}");
    }
    assert!(!report.join("lab").exists(), "the lab is of no use any more");

    let again = chaos(&report, &[]).output().unwrap();
    assert!(
        told(&again).contains("is not empty"),
        "an old report is not overwritten"
    );
    let cut = chaos(
        &folder.path().join("s"),
        &["--every", "3s", "--for", "10s", "--faults", "cut"],
    )
    .output();
    assert!(
        told(&cut.unwrap()).contains("--netns"),
        "nobody can be cut off on loopback"
    );
}

#[tokio::test]
async fn a_broker_that_dies_by_itself_breaks_a_promise_and_all_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("r");
    let lab = Lab::start(LabOptions {
        brokers: 3,
        ..LabOptions::default()
    });
    let lab = lab.await.unwrap();
    let running = lab.state().to_string_lossy().into_owned();
    // No fault of its own comes that early.
    let mut command = chaos(&report, &["--every", "60s", "--for", "2m", "--running", &running]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = lab.log_dir("broker3").join("mosquitto.log");
    let witnessed = wait_until("its witness", PATIENCE, async || {
        let log = std::fs::read_to_string(&log).unwrap();
        if log.contains(" as chaos-w") {
            Ok(())
        } else {
            Err("there is none yet")
        }
    });
    witnessed.await.unwrap();
    lab.kill("broker3").await.unwrap();
    let output = tokio::task::spawn_blocking(|| child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("broker3 has died by itself"), "{said}");
    for file in [
        "report.md",
        "status.json",
        "incidents.json",
        "counters-broker1.txt",
    ] {
        assert!(report.join(file).exists(), "{file}");
    }
    let counters = std::fs::read_to_string(report.join("counters-broker1.txt")).unwrap();
    assert!(counters.contains("$SYS/broker/mesh/"), "{counters}");
    lab.stop().await.unwrap();
}
