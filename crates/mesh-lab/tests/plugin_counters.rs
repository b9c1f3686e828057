//! The plugin's counters come each second and add up to what was sent.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mesh_lab::wait_until;
use mesh_model::names::{BRIDGES_TOPIC, CLIENTS_TOPIC, RETAINED_TOPIC, SESSIONS_TOPIC};
use support::client::{Client, Who};
use support::inbox::{Inbox, Message};
use support::{PATIENCE, all, at, brokers, start};

const BROKERS: usize = 3;

/// How many messages are published at each broker.
const PUBLISHED: [u64; BROKERS] = [3, 5, 7];

/// The last value of each counter.
fn counters(inbox: &Inbox) -> BTreeMap<String, u64> {
    let numbers = |message: &Message| message.topic != RETAINED_TOPIC;
    let values = inbox.messages().into_iter().filter(numbers).map(|message| {
        let value = message.text().parse();
        (message.topic, value.expect("a counter is a number"))
    });
    values.collect()
}

/// How often each counter has come.
fn rounds(inbox: &Inbox) -> usize {
    inbox.on(SESSIONS_TOPIC).len()
}

/// Waits until `more` rounds of counters have come to all.
async fn next_rounds(inboxes: &[Inbox], more: usize) {
    let wanted: Vec<usize> = inboxes.iter().map(|inbox| rounds(inbox) + more).collect();
    for (inbox, wanted) in inboxes.iter().zip(wanted) {
        let round = |message: &&Message| message.topic == SESSIONS_TOPIC;
        let enough = |messages: &[Message]| messages.iter().filter(round).count() >= wanted;
        inbox.wait_for("another round of counters", enough).await;
    }
}

#[tokio::test]
async fn counters_come_each_second_and_add_up_to_what_was_sent() {
    let lab = start(brokers(BROKERS)).await;
    let mut inboxes = Vec::new();
    for n in all(&lab) {
        let name = format!("subscriber of counters on broker{n}");
        inboxes.push(Inbox::open(at(&lab, n), &Who::anonymous(), &["$SYS/broker/mesh/#"], &name).await);
    }
    // What the start sent to see links carry is counted too; it has ended.
    let settled = wait_until("counters at rest", PATIENCE, async || {
        let before: Vec<_> = inboxes.iter().map(counters).collect();
        next_rounds(&inboxes, 2).await;
        let now: Vec<_> = inboxes.iter().map(counters).collect();
        if now == before {
            Ok(now)
        } else {
            Err(format!("{now:?}"))
        }
    });
    let before = settled.await.unwrap();

    let begin = Instant::now();
    for (n, messages) in all(&lab).zip(PUBLISHED) {
        let mut client = Client::open(at(&lab, n), &Who::anonymous()).await;
        for number in 0..messages {
            client
                .publish("counted", (number % 3) as u8, false, number.to_string())
                .await;
        }
        client.leave().await;
    }
    next_rounds(&inboxes, 3).await;
    let took = begin.elapsed();
    assert!(
        (Duration::from_millis(1500)..Duration::from_secs(6)).contains(&took),
        "three rounds of counters took {took:?}; one should come each second"
    );

    let total: u64 = PUBLISHED.iter().sum();
    for (n, (inbox, before)) in all(&lab).zip(inboxes.iter().zip(&before)) {
        let now = counters(inbox);
        let own = PUBLISHED[n - 1];
        for peer in all(&lab).filter(|peer| *peer != n) {
            let grown = |counter: &str| {
                let topic = format!("$SYS/broker/mesh/link/broker{peer}/{counter}");
                now[&topic] - before[&topic]
            };
            assert_eq!(
                grown("received"),
                PUBLISHED[peer - 1],
                "broker{n} received from broker{peer} what was published there"
            );
            assert_eq!(
                grown("sent"),
                own,
                "broker{n} sent to broker{peer} what was published at broker{n}"
            );
            assert_eq!(
                grown("held_back"),
                total - own,
                "broker{n} kept from broker{peer} all that had come over a link"
            );
        }
        assert_eq!(now[SESSIONS_TOPIC], 2, "two links fetch from broker{n}");
        assert_eq!(now[BRIDGES_TOPIC], 2, "broker{n} fetches from two");
        assert_eq!(now[CLIENTS_TOPIC], 1, "only this test listens at broker{n}");
        assert_eq!(now.len(), 24, "broker{n} has no other counters: {now:?}");
    }

    let health = Who::named("mesh.test").with_user("mesh-health", &lab.secrets().health);
    let probe = Client::open(at(&lab, 1), &health).await;
    next_rounds(&inboxes[..1], 2).await;
    assert_eq!(
        counters(&inboxes[0])[SESSIONS_TOPIC],
        3,
        "a probe is a session too"
    );
    assert_eq!(counters(&inboxes[0])[CLIENTS_TOPIC], 1, "but no client");
    // Who takes over a session is still one client.
    let first = Client::open(at(&lab, 1), &Who::named("counted")).await;
    let second = Client::open(at(&lab, 1), &Who::named("counted")).await;
    next_rounds(&inboxes[..1], 2).await;
    assert_eq!(counters(&inboxes[0])[CLIENTS_TOPIC], 2);
    drop(first);
    second.leave().await;
    next_rounds(&inboxes[..1], 2).await;
    assert_eq!(counters(&inboxes[0])[CLIENTS_TOPIC], 1);
    probe.leave().await;
    lab.kill("broker3").await.unwrap();
    next_rounds(&inboxes[..1], 2).await;
    let now = counters(&inboxes[0]);
    assert_eq!(
        now[SESSIONS_TOPIC], 1,
        "the link that broker3 fetched is gone, and the probe"
    );
    assert_eq!(now[BRIDGES_TOPIC], 1, "the bridge to broker3 is gone");
    lab.stop().await.unwrap();
}
