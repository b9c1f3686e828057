//! A broker that has returned serves nobody before it has what the others retain.

mod common;
mod support;

use std::net::TcpListener;

use common::SECOND;
use common::clients::{ids, status};
use mesh_lab::{Lab, LabOptions, wait_until};
use mesh_model::{BrokerSnapshot, HealthStatus, MeshState, Snapshot};
use serde_json::Value;
use support::client::{Client, Who};

/// As long as a slow machine may need for what must happen.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(45);

fn second(snapshot: &Snapshot) -> &BrokerSnapshot {
    &snapshot.brokers[1]
}

fn in_sync(broker: &BrokerSnapshot) -> Option<bool> {
    broker.retained.as_ref()?.in_sync
}

/// Waits until mesh-health says what is `wanted`.
async fn wait_for(lab: &Lab, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let found = wait_until(what, PATIENCE, async || {
        let now = status(lab).await?;
        if wanted(&now) {
            Ok(now)
        } else {
            Err(format!("{now:#?}"))
        }
    });
    found.await.unwrap_or_else(|late| panic!("{late}"))
}

/// The events `mesh.in_sync` of the second broker so far, as mesh-health has logged them.
fn events(lab: &Lab) -> Vec<Value> {
    let log = std::fs::read_to_string(lab.log_dir("mesh-health").join("mesh-health.log")).unwrap_or_default();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let wanted = |line: &Value| {
        let text = line.to_string();
        text.contains("\"mesh.in_sync\"") && text.contains("\"broker2\"")
    };
    lines.filter(wanted).collect()
}

/// What `meshctl` prints.
async fn meshctl(lab: &Lab, arguments: &[&str]) -> String {
    let meshctl = mesh_lab::own_program("meshctl").expect("it is built with the workspace");
    let mut command = tokio::process::Command::new(meshctl);
    command.args(arguments).arg("--state").arg(lab.state());
    let output = command.kill_on_drop(true).output().await.expect("it runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Publishes retained messages at the first broker; those without a value are deleted.
async fn publish(lab: &Lab, topic: &str, value: &str) {
    let mut client = Client::open(lab.broker(&ids(lab)[0]), &Who::anonymous()).await;
    for n in 0..50 {
        client
            .publish(&format!("{topic}/{n}"), 1, true, value.to_owned())
            .await;
    }
    client.leave().await;
}

#[tokio::test]
async fn a_broker_that_returns_is_eligible_only_when_it_is_in_sync() {
    let lab = Lab::start(LabOptions {
        brokers: 3,
        // What a broker misses does not come over its links again: it has to find and take over what differs.
        settings: "[health]\nrecovery_time = \"1s\"\n[mosquitto]\nreplay_messages = 1\n".to_owned(),
        ..LabOptions::default()
    });
    let lab = lab.await.unwrap();
    let brokers = ids(&lab);
    publish(&lab, "before", "set").await;
    wait_for(&lab, "all well", |now| {
        now.state == MeshState::Ok && now.brokers.iter().all(|broker| in_sync(broker) == Some(true))
    })
    .await;
    support::retained::saved(&lab, 2).await;
    lab.kill("broker2").await.unwrap();
    publish(&lab, "meanwhile", "set").await;
    publish(&lab, "before", "").await;
    wait_for(&lab, "a dead broker", |now| {
        second(now).health == HealthStatus::Dead
    })
    .await;
    let told = events(&lab).len();

    // It is told of the deletions, and cannot follow: whom its plugin takes for the broker itself answers nothing. Each
    // of them is given up only after half a minute, so there is time enough for what follows.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let file = lab.state().join("broker2/mosquitto.conf");
    let conf = std::fs::read_to_string(&file).unwrap();
    let own = format!("plugin_opt_address {}\n", lab.broker(&brokers[1]));
    let elsewhere = format!("plugin_opt_address {}\n", silent.local_addr().unwrap());
    let deaf = conf.replace(&own, &elsewhere);
    assert_ne!(deaf, conf);
    std::fs::write(&file, deaf).unwrap();
    lab.restart("broker2").await.unwrap();
    wait_for(&lab, "a healthy broker that is not in sync", |now| {
        second(now).health == HealthStatus::Healthy && in_sync(second(now)) == Some(false)
    })
    .await;
    let table = meshctl(&lab, &["status"]).await;
    let line = table
        .lines()
        .find(|line| line.trim_start().starts_with("broker2"));
    assert!(line.is_some_and(|line| line.contains("not in sync")), "{table}");
    // It would be the next.
    meshctl(&lab, &["drain", "broker1"]).await;
    let serving = wait_for(&lab, "another primary", |now| now.primary != brokers[0]).await;
    assert_eq!(serving.primary, brokers[2]);
    assert_eq!(in_sync(second(&serving)), Some(false));
    assert_eq!(events(&lab).len(), told, "it is not in sync");

    lab.kill("broker2").await.unwrap();
    std::fs::write(&file, conf).unwrap();
    lab.restart("broker2").await.unwrap();
    wait_for(&lab, "a healthy broker that is in sync", |now| {
        second(now).health == HealthStatus::Healthy && in_sync(second(now)) == Some(true)
    })
    .await;
    meshctl(&lab, &["drain", "broker3"]).await;
    wait_for(&lab, "the broker that is in sync as primary", |now| {
        now.primary == brokers[1]
    })
    .await;
    wait_until("equal digests", 15 * SECOND, async || {
        let now = status(&lab).await?;
        let all: Vec<_> = now.brokers.iter().map(|broker| broker.retained.clone()).collect();
        let equal = all.iter().all(|one| one.is_some() && *one == all[0]);
        equal.then_some(()).ok_or_else(|| format!("{all:?}"))
    })
    .await
    .unwrap_or_else(|late| panic!("{late}"));
    let told_again = wait_until("an event", PATIENCE, async || {
        let all = events(&lab);
        if all.len() > told {
            Ok(all)
        } else {
            Err(format!("{all:?}"))
        }
    });
    let all = told_again.await.unwrap_or_else(|late| panic!("{late}"));
    let elapsed = all[told].to_string();
    assert!(
        elapsed.contains("\"elapsed_ms\":"),
        "it says how long it took: {elapsed}"
    );
    lab.stop().await.unwrap();
}
