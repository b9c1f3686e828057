//! A peer that stands still: what Mosquitto drops because its queue is full is sent again.

mod support;

use std::time::Duration;

use mesh_lab::load::{Pace, Publication, Publisher, Received, Subscriber};
use mesh_lab::{Lab, LabOptions};
use mesh_runtime::mqtt::mqttbytes::QoS;
use support::client::Who;
use support::inbox::Inbox;
use support::{PATIENCE, at, brokers, start};

/// In flight to one link.
const WINDOW: u32 = 100;

/// In flight to one link, and queued behind that.
const BOUND: u32 = WINDOW + 1000;

const SETTINGS: &str = "[mosquitto]\nmax_inflight_messages = 100\nmax_queued_messages = 1000\n";

/// Publishes `messages` at broker1 while broker2 hangs, and returns what a subscriber of broker2 then gets.
async fn while_it_hangs(lab: &Lab, messages: u32) -> Received {
    let mut subscriber = Subscriber::start(at(lab, 2), "listening", "load", QoS::AtLeastOnce)
        .await
        .unwrap();
    let mut publisher = Publisher::connect(at(lab, 1), "publishing").await.unwrap();
    lab.hang("broker2").await.unwrap();
    let load = Publication {
        retain: false,
        topic: "load".to_owned(),
        qos: QoS::AtLeastOnce,
        payload: 64,
        messages,
        pace: Pace::Window(50),
    };
    publisher.run(&load).await.unwrap();
    lab.resume("broker2").await.unwrap();
    subscriber.wait_for(messages.into(), PATIENCE).await;
    subscriber
        .wait_for_silence(Duration::from_secs(1), PATIENCE)
        .await;
    subscriber.finish().await
}

/// The value of a counter at the `n`th broker.
async fn counter(lab: &Lab, n: usize, topic: &str) -> u64 {
    let inbox = Inbox::open(at(lab, n), &Who::anonymous(), &[topic], "counter").await;
    inbox
        .wait_for("a fresh counter", |messages| messages.len() > 2)
        .await;
    inbox.messages().last().unwrap().text().parse().unwrap()
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_of_a_link_is_sent_again() {
    let options = LabOptions {
        settings: SETTINGS.to_owned(),
        ..brokers(2)
    };
    let lab = start(options).await;
    let received = while_it_hangs(&lab, BOUND).await;
    assert_eq!(received.missing(BOUND), [0; 0], "nothing is missing");
    assert_eq!((received.duplicates(), received.out_of_order), (0, 0));

    let messages = 6 * BOUND;
    let received = while_it_hangs(&lab, messages).await;
    assert_eq!(received.missing(messages), [0; 0], "nothing is missing");
    assert_eq!(received.duplicates(), 0, "nothing comes twice");
    let replayed = counter(&lab, 1, "$SYS/broker/mesh/link/broker2/replayed").await;
    // Later versions than 2.0.11 take what is in flight off the queue's length though it is not in there
    // (db__ready_for_queue), so that one window more fits.
    assert!(
        replayed >= u64::from(messages - BOUND - WINDOW),
        "only {replayed} were sent again, but the queue holds {BOUND}"
    );
    assert_eq!(counter(&lab, 1, "$SYS/broker/mesh/link/broker2/lost").await, 0);
    lab.stop().await.unwrap();
}
