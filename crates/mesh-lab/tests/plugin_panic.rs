//! A defect in the plugin is logged with its place, and the broker lives on.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_lab::LabOptions;
use support::client::{Client, Who};
use support::{all, at, brokers, expect_exactly_once, id, listen, log_of, quiet, start, tools, wait_for_log};

/// Builds the plugin with the topics that make it panic, in a folder of its own.
fn build() -> PathBuf {
    let built = tools::target();
    let folder = built
        .parent()
        .expect("target/PROFILE is in target")
        .join("panic-on-demand");
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crates have a folder");
    let output = Command::new(env!("CARGO"))
        .current_dir(crates.join("mesh-plugin"))
        .args([
            "build",
            "--quiet",
            "--offline",
            "--lib",
            "--features",
            "panic-on-demand",
        ])
        .arg("--target-dir")
        .arg(&folder)
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the plugin cannot be built with panic-on-demand: {said}"
    );
    let name = format!(
        "{}mesh_plugin{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    folder.join("debug").join(name)
}

#[tokio::test]
async fn a_panic_is_logged_with_its_place_and_the_broker_lives() {
    let plugin = tokio::task::spawn_blocking(build).await.unwrap();
    let lab = start(LabOptions {
        settings: format!("[mosquitto]\nplugin = {plugin:?}\n"),
        ..brokers(3)
    })
    .await;
    let pids: Vec<_> = all(&lab).map(|n| lab.pid(id(n).as_str())).collect();
    let inboxes = listen(&lab, &Who::anonymous(), "mesh-test/#").await;
    for (topic, event) in [
        ("mesh-test/panic", "MESSAGE"),
        ("mesh-test/panic-acl", "ACL_CHECK"),
    ] {
        for qos in 0..=2 {
            let mut client = Client::open(at(&lab, 1), &Who::anonymous()).await;
            client.publish(topic, qos, false, "boom").await;
            client.leave().await;
        }
        let begin = format!("mesh-plugin: bug in {event}, the broker goes on: panicked at ");
        let place = "src/hooks/";
        wait_for_log(&lab, 1, &[&begin, place, "panic on demand"], 3).await;
        inboxes[0].first(topic).await;
    }
    quiet(&inboxes).await;
    assert!(
        inboxes[0].count() <= 6,
        "nothing came twice: {:?}",
        inboxes[0].messages()
    );
    for inbox in &inboxes[1..] {
        assert!(
            inbox.count() <= 6,
            "nothing circles: the {} got {:?}",
            inbox.name(),
            inbox.messages()
        );
    }

    expect_exactly_once("after the panics", &lab, &Who::anonymous(), "calm").await;
    let pids_now: Vec<_> = all(&lab).map(|n| lab.pid(id(n).as_str())).collect();
    assert_eq!(pids_now, pids, "every broker is the process that it was");
    for n in all(&lab) {
        let log = log_of(&lab, n);
        assert!(!log.contains("has left the mesh"), "a panic is no bypass:\n{log}");
    }
    lab.stop().await.unwrap();
}
