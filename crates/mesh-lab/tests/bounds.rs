//! A peer that stands still: up to the configured bound nothing is lost, and what is lost above it is counted.

mod support;

use std::time::Duration;

use mesh_lab::load::{Pace, Publication, Publisher, Received, Subscriber};
use mesh_lab::{Lab, LabOptions, wait_until};
use mesh_runtime::mqtt::mqttbytes::QoS;
use support::client::Who;
use support::inbox::Inbox;
use support::{PATIENCE, at, brokers, start};

/// In flight to one link, and queued behind that.
const BOUND: u32 = 100 + 1000;

const SETTINGS: &str = "[mosquitto]\nmax_inflight_messages = 100\nmax_queued_messages = 1000\n";

/// Publishes `messages` at broker1 while broker2 hangs, and returns what a subscriber of broker2 then gets.
async fn while_it_hangs(lab: &Lab, messages: u32) -> Received {
    let mut subscriber = Subscriber::start(at(lab, 2), "listening", "load", QoS::AtLeastOnce)
        .await
        .unwrap();
    let mut publisher = Publisher::connect(at(lab, 1), "publishing").await.unwrap();
    lab.hang("broker2").await.unwrap();
    let load = Publication {
        topic: "load".to_owned(),
        qos: QoS::AtLeastOnce,
        payload: 64,
        messages,
        pace: Pace::Window(50),
    };
    publisher.run(&load).await.unwrap();
    lab.resume("broker2").await.unwrap();
    subscriber
        .wait_for_silence(Duration::from_secs(1), PATIENCE)
        .await;
    subscriber.finish().await
}

/// Messages that broker1 has handed to the link to broker2, and messages that broker2 has received over it.
async fn sent_and_received(inboxes: &[Inbox; 2]) -> (u64, u64) {
    let last = |inbox: &Inbox, topic: &str| {
        inbox
            .on(topic)
            .last()
            .map_or(0, |message| message.text().parse::<u64>().expect("a number"))
    };
    let read = || {
        let sent = last(&inboxes[0], "$SYS/broker/mesh/link/broker2/sent");
        (sent, last(&inboxes[1], "$SYS/broker/mesh/link/broker1/received"))
    };
    // Counters come each second; those of the past second are at rest.
    let at_rest = wait_until("counters at rest", PATIENCE, async || {
        let before = read();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        if read() == before {
            Ok(before)
        } else {
            Err(format!("{before:?}, then {:?}", read()))
        }
    });
    at_rest.await.unwrap()
}

#[tokio::test]
async fn up_to_the_bound_nothing_is_lost_and_above_it_the_loss_is_counted() {
    let options = LabOptions {
        settings: SETTINGS.to_owned(),
        ..brokers(2)
    };
    let lab = start(options).await;
    let mut inboxes = Vec::new();
    for n in [1, 2] {
        let name = format!("counters of broker{n}");
        inboxes.push(
            Inbox::open(
                at(&lab, n),
                &Who::anonymous(),
                &["$SYS/broker/mesh/link/#"],
                &name,
            )
            .await,
        );
    }
    let inboxes: [Inbox; 2] = inboxes.try_into().ok().unwrap();

    let received = while_it_hangs(&lab, BOUND).await;
    assert_eq!(
        received.missing(BOUND),
        [0; 0],
        "up to the bound nothing is missing"
    );
    assert_eq!(received.duplicates(), 0, "nothing comes twice");
    let (sent_before, received_before) = sent_and_received(&inboxes).await;

    let messages = 3 * BOUND;
    let received = while_it_hangs(&lab, messages).await;
    let missing = received.missing(messages).len() as u64;
    assert_eq!(
        missing,
        u64::from(messages - BOUND),
        "above the bound Mosquitto drops"
    );
    assert_eq!(received.duplicates(), 0, "nothing comes twice");
    let (sent, arrived) = sent_and_received(&inboxes).await;
    let counted = (sent - sent_before) - (arrived - received_before);
    assert_eq!(
        counted, missing,
        "the counters of both ends tell how much is missing"
    );
    lab.stop().await.unwrap();
}
