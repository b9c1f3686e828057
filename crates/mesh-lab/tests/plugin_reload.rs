//! SIGHUP: logrotate sends it to every broker each night, and operators after a change of users or certificates.

mod support;

use std::process::Command;

use support::client::{Client, Who};
use support::{PATIENCE, all, at, brokers, reload, start};

/// Leaves a session behind at broker `n` that waits for its client.
fn leave_a_session(lab: &mesh_lab::Lab, n: usize, client_id: &str) {
    let port = at(lab, n).port().to_string();
    let status = Command::new("mosquitto_sub")
        .args([
            "-p",
            &port,
            "-c",
            "-i",
            client_id,
            "-q",
            "1",
            "-t",
            "some/topic",
            "-E",
        ])
        .status();
    assert!(status.expect("mosquitto_sub is installed").success());
}

#[tokio::test]
async fn a_broker_that_is_asked_again_about_a_session_whose_client_has_moved_does_not_call_it_back() {
    let lab = start(brokers(2)).await;
    leave_a_session(&lab, 1, "roamer");
    let mut roamer = Client::open(at(&lab, 2), &Who::named("roamer")).await;
    let mut fence = Client::open(at(&lab, 2), &Who::named("fence")).await;
    for _ in all(&lab) {
        reload(&lab).await;
    }
    // What brokers tell each other of clients arrives in order.
    let second = Client::open(at(&lab, 1), &Who::named("fence")).await;
    tokio::time::timeout(PATIENCE, fence.ended())
        .await
        .expect("a client that moves has one session");
    assert!(roamer.is_alive().await, "it has not connected anywhere else");
    drop((second, roamer));
    lab.stop().await.unwrap();
}
