//! Clients that die or move: a will is published everywhere, once, and never by a broker that its client has left.

mod support;

use std::time::Duration;

use mesh_lab::wait_until;
use support::client::{Client, Who};
use support::inbox::Inbox;
use support::tools::Mortal;
use support::{
    PATIENCE, at, brokers, expect_once, listen, log_of, quiet, stand_still, start, time_for, wait_for_log,
};

const MOVED: &str = "has connected to another broker";

/// A client with a retained will on `status`.
async fn mortal(lab: &mesh_lab::Lab, n: usize, version: &str) -> Mortal {
    let mortal = Mortal::start(at(lab, n), version, "mover", "status", 1, true);
    wait_for_log(lab, n, &["New client connected", " as mover "], 1).await;
    mortal
}

/// What subscribers of `status` who come now are shown.
async fn retained(lab: &mesh_lab::Lab) -> Vec<Vec<String>> {
    let inboxes = listen(lab, &Who::anonymous(), "status").await;
    quiet(&inboxes).await;
    let text = |inbox: &Inbox| inbox.messages().iter().map(|message| message.text()).collect();
    inboxes.iter().map(text).collect()
}

async fn expect_online(lab: &mesh_lab::Lab, inboxes: &[Inbox]) {
    for inbox in inboxes {
        let seen: Vec<String> = inbox.messages().iter().map(|message| message.text()).collect();
        assert_eq!(seen, ["online"], "the {}", inbox.name());
    }
    for (n, seen) in (1..).zip(retained(lab).await) {
        assert_eq!(seen, ["online"], "retained on broker{n}");
    }
}

/// The promise that needs all of it: the primary hangs, its clients move, it resumes.
#[tokio::test]
async fn a_hung_broker_that_resumes_does_not_declare_offline_who_has_moved() {
    for version in ["mqttv311", "mqttv5"] {
        let lab = start(brokers(3)).await;
        let before = mortal(&lab, 1, version).await;
        let inboxes = listen(&lab, &Who::anonymous(), "status").await;
        stand_still(&lab, 1).await;
        let _after = mortal(&lab, 2, version).await;
        let mut client = Client::open(at(&lab, 2), &Who::anonymous()).await;
        client.publish("status", 1, true, "online").await;
        // As when the balancer's connections to it are destroyed.
        before.die();
        lab.resume("broker1").await.unwrap();
        for inbox in &inboxes {
            inbox.first("status").await;
        }
        time_for("a will that is held", Duration::from_secs(6)).await;
        expect_online(&lab, &inboxes).await;
        lab.stop().await.unwrap();
    }
}

/// As above, but nobody tells the hung broker that its client's connection is dead.
#[tokio::test]
async fn a_session_on_a_broker_that_its_client_has_left_is_ended_without_its_will() {
    let lab = start(brokers(3)).await;
    let before = mortal(&lab, 1, "mqttv5").await;
    // It would connect again, and the newer session is always the one that counts.
    before.freeze();
    let inboxes = listen(&lab, &Who::anonymous(), "status").await;
    let after = mortal(&lab, 2, "mqttv5").await;
    wait_for_log(&lab, 1, &["\"mover\"", MOVED], 1).await;
    let mut client = Client::open(at(&lab, 2), &Who::anonymous()).await;
    client.publish("status", 1, true, "online").await;
    for inbox in &inboxes {
        inbox.first("status").await;
    }
    quiet(&inboxes).await;
    expect_online(&lab, &inboxes).await;
    drop(before);
    // The one that is left still has its will.
    after.die();
    let ends = wait_until("the will", PATIENCE, async || {
        match inboxes.iter().all(|inbox| inbox.count() == 2) {
            true => Ok(()),
            false => Err("not everywhere"),
        }
    });
    ends.await.unwrap();
    for inbox in &inboxes {
        assert_eq!(inbox.messages()[1].text(), "gone");
    }
    for seen in retained(&lab).await {
        assert_eq!(seen, ["gone"]);
    }
    lab.stop().await.unwrap();
}

/// A broker that was hung may be mistaken: a client that died for good has a will all the same, a little later.
#[tokio::test]
async fn the_will_of_a_client_that_died_while_its_broker_hung_is_published_once() {
    let lab = start(brokers(3)).await;
    let mortal = mortal(&lab, 1, "mqttv5").await;
    let inboxes = listen(&lab, &Who::anonymous(), "status").await;
    stand_still(&lab, 1).await;
    mortal.die();
    lab.resume("broker1").await.unwrap();
    wait_for_log(&lab, 1, &["Client mover"], 1).await;
    quiet(&inboxes).await;
    let early: usize = inboxes.iter().map(Inbox::count).sum();
    assert_eq!(early, 0, "it is held first: {}", log_of(&lab, 1));
    expect_once("a held will", &inboxes, &["status".to_owned()]).await;
    for seen in retained(&lab).await {
        assert_eq!(seen, ["gone"]);
    }
    lab.stop().await.unwrap();
}
