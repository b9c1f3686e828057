//! The same retained messages on all brokers, whatever happened in between.

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mesh_lab::{Lab, wait_until};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{PingReq, Publish, PublishProperties};
use mesh_runtime::mqtt::{Connection, Packet};
use support::client::{Client, Who};
use support::inbox::Inbox;
use support::retained::{LONG, Values, agreed, database, journal, saved, status};
use support::{all, at, brokers, listen, quiet, start, wait_for_log};

async fn client(lab: &Lab, n: usize) -> Client {
    Client::open(at(lab, n), &Who::anonymous()).await
}

fn expected(pairs: impl IntoIterator<Item = (String, String)>) -> Values {
    let all = pairs
        .into_iter()
        .map(|(topic, value)| (topic, Bytes::from(value)));
    all.collect()
}

/// Everything that happened to a broker's folder while it was dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    /// With the database of an earlier time.
    Old,
    /// With that, and without a journal.
    OldAlone,
    /// With nothing.
    Empty,
}

/// A broker dies, values are changed, cleared and added, and it comes back.
async fn returns(back: Back) {
    let lab = start(brokers(3)).await;
    let mut one = client(&lab, 1).await;
    for n in 0..300 {
        one.publish(&format!("t/{n}"), (n % 2) as u8, true, "old").await;
    }
    agreed(&lab, &[1, 2, 3]).await;
    let image = saved(&lab, 3).await;
    // What it still sees is newer than its database, and known to its journal.
    for n in 0..50 {
        one.publish(&format!("t/{n}"), 1, true, "").await;
    }
    agreed(&lab, &[1, 2, 3]).await;
    lab.kill("broker3").await.unwrap();
    let mut two = client(&lab, 2).await;
    for n in 50..100 {
        one.publish(&format!("t/{n}"), 1, true, "").await;
        two.publish(&format!("t/{}", n + 50), 1, true, "new").await;
        one.publish(&format!("added/{n}"), 1, true, "new").await;
    }
    match back {
        Back::Old => std::fs::write(database(&lab, 3), &image).unwrap(),
        Back::OldAlone => {
            std::fs::write(database(&lab, 3), &image).unwrap();
            std::fs::remove_file(journal(&lab, 3)).unwrap();
        }
        Back::Empty => {
            std::fs::remove_file(database(&lab, 3)).ok();
            std::fs::remove_file(journal(&lab, 3)).unwrap();
        }
    }
    // On the brokers that were there nobody is shown anything again.
    let mut inboxes = Vec::new();
    for n in [1, 2] {
        inboxes.push(Inbox::open(at(&lab, n), &Who::anonymous(), &["#"], "subscriber who was there").await);
    }
    quiet(&inboxes).await;
    let before: Vec<usize> = inboxes.iter().map(Inbox::count).collect();
    lab.restart("broker3").await.unwrap();
    let found = agreed(&lab, &[1, 2, 3]).await;
    wait_for_log(&lab, 3, &["mesh-plugin: in sync after"], 2).await;
    let values = (100..150).map(|n| (format!("t/{n}"), "new".to_owned()));
    let values = values.chain((150..300).map(|n| (format!("t/{n}"), "old".to_owned())));
    let values = values.chain((50..100).map(|n| (format!("added/{n}"), "new".to_owned())));
    assert!(found == expected(values), "{back:?}: {:?}", found.keys());
    let after: Vec<usize> = inboxes.iter().map(Inbox::count).collect();
    assert_eq!(after, before, "{back:?}: subscribers elsewhere are shown nothing");
    // And after another restart, without any change, it has all of it by itself.
    saved(&lab, 3).await;
    for broker in ["broker1", "broker2", "broker3"] {
        lab.kill(broker).await.unwrap();
    }
    lab.restart("broker3").await.unwrap();
    let alone = wait_until("a broker alone in sync", LONG, async || {
        let status = status(&lab, 3).await;
        if status.in_sync {
            Ok(status)
        } else {
            Err(format!("{status:?}"))
        }
    });
    assert_eq!(alone.await.unwrap().count, 250);
    assert!(agreed(&lab, &[3]).await == found);
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_returns_with_its_old_database_brings_nothing_back() {
    returns(Back::Old).await;
}

#[tokio::test]
async fn a_broker_that_returns_without_its_journal_brings_nothing_back() {
    returns(Back::OldAlone).await;
}

#[tokio::test]
async fn a_broker_that_returns_with_nothing_gets_everything() {
    returns(Back::Empty).await;
}

#[tokio::test]
async fn of_two_who_write_at_once_one_wins_everywhere() {
    let lab = start(brokers(5)).await;
    let inboxes = listen(&lab, &Who::anonymous(), "both/#").await;
    let mut writers = tokio::task::JoinSet::new();
    for n in [1, 3] {
        let mut client = client(&lab, n).await;
        writers.spawn(async move {
            for round in 0..30 {
                for topic in 0..20 {
                    // Every third round ends in deletions, the last one does not.
                    let value = if round % 3 == 1 {
                        String::new()
                    } else {
                        format!("{n}/{round}")
                    };
                    client
                        .publish(&format!("both/{topic}"), round % 3, true, value)
                        .await;
                }
            }
        });
    }
    writers.join_all().await;
    let brokers: Vec<usize> = all(&lab).collect();
    let found = agreed(&lab, &brokers).await;
    assert_eq!(found.len(), 20);
    // Whoever has watched has seen last what is there now.
    quiet(&inboxes).await;
    for inbox in &inboxes {
        for (topic, value) in &found {
            let last = inbox.on(topic).pop().expect("something came");
            assert_eq!(last.payload, *value, "{topic} at the {}", inbox.name());
        }
    }
    lab.stop().await.unwrap();
}

/// Publishes a value that expires.
async fn publish_expiring(lab: &Lab, n: usize, topic: &str, seconds: u32) {
    let address = at(lab, n);
    let output = tokio::process::Command::new("mosquitto_pub")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-V", "5", "-q", "1", "-r", "-t", topic, "-m", "expires"])
        .args(["-D", "publish", "message-expiry-interval", &seconds.to_string()])
        .output()
        .await
        .expect("mosquitto_pub is installed");
    assert!(output.status.success());
}

/// The time that is left to a stored value.
async fn left(lab: &Lab, n: usize, topic: &str) -> Option<u32> {
    let address = at(lab, n);
    let output = tokio::process::Command::new("mosquitto_sub")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args([
            "-V",
            "5",
            "-t",
            topic,
            "-C",
            "1",
            "-W",
            "2",
            "--retained-only",
            "-F",
            "%E",
        ])
        .output()
        .await
        .expect("mosquitto_sub is installed");
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

#[tokio::test]
async fn what_expires_is_given_on_with_the_time_that_is_left_and_counted_no_more() {
    let lab = start(brokers(3)).await;
    let mut one = client(&lab, 1).await;
    one.publish("stays", 1, true, "value").await;
    publish_expiring(&lab, 1, "late", 600).await;
    publish_expiring(&lab, 1, "soon", 20).await;
    let published = Instant::now();
    assert_eq!(agreed(&lab, &[1, 2, 3]).await.len(), 3);
    // Another one has no such value and gets it.
    lab.kill("broker3").await.unwrap();
    std::fs::remove_file(database(&lab, 3)).ok();
    std::fs::remove_file(journal(&lab, 3)).unwrap();
    lab.restart("broker3").await.unwrap();
    wait_for_log(&lab, 3, &["mesh-plugin: in sync after"], 2).await;
    for n in 1..=3 {
        let left = left(&lab, n, "late")
            .await
            .unwrap_or_else(|| panic!("broker{n}: no expiry\n{}", support::log_of(&lab, 3)));
        let most = 601 - published.elapsed().as_secs() as u32;
        assert!(
            (most - 4..=most).contains(&left),
            "broker{n}: {left} s of {most} s are left"
        );
    }
    let gone = wait_until("the value's end everywhere", LONG, async || {
        for n in 1..=3 {
            let status = status(&lab, n).await;
            if status.count != 2 {
                return Err(format!("broker{n}: {status:?}"));
            }
        }
        Ok(())
    });
    gone.await.unwrap();
    assert!(published.elapsed() > Duration::from_secs(18));
    let found = agreed(&lab, &[1, 2, 3]).await;
    assert_eq!(
        found.keys().collect::<BTreeSet<_>>(),
        [&"late".to_owned(), &"stays".to_owned()].into()
    );
    lab.stop().await.unwrap();
}

/// Publishes so many values that expire, and one that does not.
async fn publish_many_expiring(lab: &Lab, count: u32, seconds: u32) {
    let identity = Who::anonymous().identity();
    let (mut connection, _) = Connection::open(at(lab, 1), &identity).await.unwrap();
    for n in 0..=count {
        let properties = PublishProperties {
            message_expiry_interval: (n < count).then_some(seconds),
            ..PublishProperties::default()
        };
        let mut publish = Publish::new(format!("t/{n}"), QoS::AtMostOnce, "value", Some(properties));
        publish.retain = true;
        connection.queue(&Packet::Publish(publish)).unwrap();
    }
    connection.send(&Packet::PingReq(PingReq)).await.unwrap();
    while !matches!(connection.receive().await.unwrap(), Packet::PingResp(_)) {}
}

#[tokio::test]
async fn what_has_just_been_published_is_counted_no_more_soon_after_it_expires() {
    const COUNT: u32 = 1_500;
    let lab = start(brokers(3)).await;
    publish_many_expiring(&lab, COUNT, 2).await;
    let published = Instant::now();
    let gone = wait_until("the values' end everywhere", LONG, async || {
        for n in 1..=3 {
            let status = status(&lab, n).await;
            if status.count != 1 {
                return Err(format!("broker{n}: {status:?}"));
            }
        }
        Ok(())
    });
    gone.await.unwrap();
    // At a hundred values a second it would take them fifteen.
    let took = published.elapsed();
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(agreed(&lab, &[1, 2, 3]).await.len(), 1);
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_was_hung_shows_nothing_again() {
    let lab = start(brokers(3)).await;
    let mut one = client(&lab, 1).await;
    for n in 0..100 {
        one.publish(&format!("t/{n}"), 1, true, "first").await;
    }
    agreed(&lab, &[1, 2, 3]).await;
    let inboxes = listen(&lab, &Who::anonymous(), "t/#").await;
    quiet(&inboxes).await;
    // Longer than bridges wait for an answer.
    lab.hang("broker3").await.unwrap();
    for n in 0..10 {
        one.publish(&format!("t/{n}"), 1, true, "second").await;
        one.publish(&format!("t/{}", n + 10), 1, true, "").await;
    }
    wait_for_log(&lab, 1, &["mesh.link.broker1.broker3", "exceeded timeout"], 1).await;
    lab.resume("broker3").await.unwrap();
    assert_eq!(agreed(&lab, &[1, 2, 3]).await.len(), 90);
    quiet(&inboxes).await;
    for inbox in &inboxes {
        for n in 0..100 {
            let shown: Vec<String> = inbox
                .on(&format!("t/{n}"))
                .iter()
                .map(support::inbox::Message::text)
                .collect();
            let expected: &[&str] = match n {
                0..10 => &["first", "second"],
                10..20 => &["first", ""],
                _ => &["first"],
            };
            assert_eq!(shown, expected, "t/{n} at the {}", inbox.name());
        }
    }
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn without_persistence_it_is_the_same() {
    let plain = support::changed(brokers(3), |_, conf| {
        support::replace_line(&conf, "persistence true", "persistence false")
    });
    let lab = start(plain).await;
    let mut one = client(&lab, 1).await;
    for n in 0..50 {
        one.publish(&format!("t/{n}"), 1, true, "value").await;
    }
    agreed(&lab, &[1, 2, 3]).await;
    lab.kill("broker2").await.unwrap();
    one.publish("t/1", 1, true, "").await;
    // A database that the broker does not load is not taken for what it has.
    std::fs::write(database(&lab, 2), b"anything").unwrap();
    lab.restart("broker2").await.unwrap();
    assert_eq!(agreed(&lab, &[1, 2, 3]).await.len(), 49);
    assert!(!support::log_of(&lab, 2).contains("is not known to the mesh"));
    lab.kill("broker1").await.unwrap();
    lab.restart("broker1").await.unwrap();
    assert_eq!(agreed(&lab, &[1, 2, 3]).await.len(), 49);
    lab.stop().await.unwrap();
}
