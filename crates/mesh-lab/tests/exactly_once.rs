//! A message that is published on any of five brokers reaches the subscribers of all five exactly once: every
//! protocol version, QoS and size, retained or not, and in a crowd.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use mesh_lab::Lab;
use support::client::{Client, Who};
use support::inbox::{Inbox, Message};
use support::tools::{Payload, mosquitto_pub};
use support::{all, at, brokers, listen, quiet, start};

const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];
const SIZES: [(&str, usize); 4] = [("nothing", 0), ("small", 64), ("64k", 64 << 10), ("1m", 1 << 20)];

/// A message of `mosquitto_pub`, with all that must be true of it when it arrives.
#[derive(Clone)]
struct Sent {
    broker: usize,
    version: &'static str,
    topic: String,
    payload: Bytes,
    qos: u8,
    retain: bool,
}

impl Sent {
    /// Links carry QoS 1 at most, so elsewhere a message of QoS 2 arrives with QoS 1.
    fn qos_at(&self, broker: usize) -> u8 {
        if broker == self.broker {
            self.qos
        } else {
            self.qos.min(1)
        }
    }

    async fn publish(&self, lab: &Lab, folder: &Path) {
        let file = folder.join(self.topic.replace('/', "-"));
        std::fs::write(&file, &self.payload).unwrap();
        let payload = if self.payload.is_empty() {
            Payload::Nothing
        } else {
            Payload::File(&file)
        };
        mosquitto_pub(
            at(lab, self.broker),
            self.version,
            &self.topic,
            self.qos,
            self.retain,
            payload,
        )
        .await;
        std::fs::remove_file(&file).unwrap();
    }
}

/// What is published at one broker, in this order: every combination, each on a topic of its own. A retained
/// message without payload clears a topic, so there a value comes first.
fn every_kind(broker: usize) -> Vec<Sent> {
    let mut kinds = Vec::new();
    for version in VERSIONS {
        for qos in 0..=2 {
            for (name, size) in SIZES {
                for retain in [false, true] {
                    let kept = if retain { "retained" } else { "passing" };
                    let topic = format!("kinds/{broker}/{version}/{qos}/{name}/{kept}");
                    let sent = |size| Sent {
                        broker,
                        version,
                        payload: filler(&topic, size),
                        topic: topic.clone(),
                        qos,
                        retain,
                    };
                    if size == 0 && retain {
                        kinds.push(sent(8));
                    }
                    kinds.push(sent(size));
                }
            }
        }
    }
    kinds
}

/// `size` bytes, all values among them, that no other topic has.
fn filler(topic: &str, size: usize) -> Bytes {
    let bytes = topic.bytes().chain((0..=u8::MAX).cycle());
    bytes.take(size).collect()
}

#[tokio::test]
async fn every_kind_of_message_arrives_once_and_unchanged_on_all_five() {
    let lab = start(brokers(5)).await;
    let folder = tempfile::tempdir().unwrap();
    let mut inboxes = Vec::new();
    for n in all(&lab) {
        let name = |version| format!("subscriber on broker{n} with {version}");
        let v5 = Inbox::open(at(&lab, n), &Who::anonymous(), &["kinds/#"], &name("MQTT 5")).await;
        inboxes.push((n, true, v5));
        let v311 = Inbox::open_v311(at(&lab, n), "kinds/#", &name("MQTT 3.1.1")).await;
        inboxes.push((n, false, v311));
    }

    let sent: Vec<Vec<Sent>> = all(&lab).map(every_kind).collect();
    let publish = async |n: usize| {
        for message in &sent[n - 1] {
            message.publish(&lab, folder.path()).await;
        }
    };
    tokio::join!(publish(1), publish(2), publish(3), publish(4), publish(5));
    let sent = sent.concat();
    for (_, _, inbox) in &inboxes {
        inbox
            .wait_for("every kind of message", |messages| messages.len() >= sent.len())
            .await;
    }
    let (places, inboxes): (Vec<_>, Vec<_>) = inboxes
        .into_iter()
        .map(|(n, is_v5, inbox)| ((n, is_v5), inbox))
        .unzip();
    quiet(&inboxes).await;

    let mut by_topic: BTreeMap<&str, Vec<&Sent>> = BTreeMap::new();
    for message in &sent {
        by_topic.entry(&message.topic).or_default().push(message);
    }
    for ((n, is_v5), inbox) in places.into_iter().zip(&inboxes) {
        let mut arrived: BTreeMap<String, Vec<Message>> = BTreeMap::new();
        for message in inbox.messages() {
            arrived.entry(message.topic.clone()).or_default().push(message);
        }
        for (topic, sent) in &by_topic {
            let arrived = arrived.remove(*topic).unwrap_or_default();
            let expected: Vec<Message> = sent
                .iter()
                .map(|sent| Message {
                    topic: sent.topic.clone(),
                    payload: sent.payload.clone(),
                    qos: sent.qos_at(n),
                    // With MQTT 3.1.1 a message that is passed on live never has the flag.
                    retain: sent.retain && is_v5,
                })
                .collect();
            assert!(
                arrived == expected,
                "the {} got {arrived:?} where {expected:?} was published",
                inbox.name()
            );
        }
        assert!(
            arrived.is_empty(),
            "the {} got what nobody published: {arrived:?}",
            inbox.name()
        );
    }
    drop(inboxes);

    retained_values_are_there_for_who_comes_later(&lab, &sent).await;
    a_value_can_be_cleared_on_another_broker(&lab).await;
    lab.stop().await.unwrap();
}

/// Who subscribes now gets each retained value once, with the flag, on every broker, and nothing that was cleared.
async fn retained_values_are_there_for_who_comes_later(lab: &Lab, sent: &[Sent]) {
    let kept: Vec<&Sent> = sent
        .iter()
        .filter(|message| message.retain && message.payload.len() > 8)
        .collect();
    let inboxes = listen(lab, &Who::anonymous(), "kinds/#").await;
    for inbox in &inboxes {
        inbox
            .wait_for("every retained value", |messages| messages.len() >= kept.len())
            .await;
    }
    quiet(&inboxes).await;
    for (n, inbox) in all(lab).zip(&inboxes) {
        let mut arrived = inbox.messages();
        arrived.sort_by(|a, b| a.topic.cmp(&b.topic));
        let mut expected: Vec<Message> = kept
            .iter()
            .map(|sent| Message {
                topic: sent.topic.clone(),
                payload: sent.payload.clone(),
                qos: sent.qos_at(n),
                retain: true,
            })
            .collect();
        expected.sort_by(|a, b| a.topic.cmp(&b.topic));
        assert!(
            arrived == expected,
            "who subscribes later on broker{n} gets {arrived:#?}, but {expected:#?} is retained"
        );
    }
}

async fn a_value_can_be_cleared_on_another_broker(lab: &Lab) {
    let inboxes = listen(lab, &Who::anonymous(), "moved").await;
    let mut first = Client::open(at(lab, 1), &Who::anonymous()).await;
    first.publish("moved", 1, true, "value").await;
    for inbox in &inboxes {
        inbox.first("moved").await;
    }
    let mut last = Client::open(at(lab, 5), &Who::anonymous()).await;
    last.publish("moved", 1, true, "").await;
    for inbox in &inboxes {
        inbox.wait_for("the clear", |messages| messages.len() == 2).await;
    }
    let later = listen(lab, &Who::anonymous(), "moved").await;
    quiet(&later).await;
    for inbox in &later {
        assert_eq!(
            inbox.count(),
            0,
            "the value that broker5 cleared is back for the {}",
            inbox.name()
        );
    }
    for inbox in &inboxes {
        assert_eq!(
            inbox.count(),
            2,
            "the {} got value and clear once each",
            inbox.name()
        );
    }
}

/// Ten publishers at once, all QoS mixed on the same three topics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_publishers_is_heard_in_order_and_once_on_all_five() {
    const EACH: usize = 180;
    let lab = start(brokers(5)).await;
    let inboxes = listen(&lab, &Who::anonymous(), "crowd/#").await;
    let mut publishers = tokio::task::JoinSet::new();
    for publisher in 0..10 {
        let mut client = Client::open(at(&lab, publisher % 5 + 1), &Who::anonymous()).await;
        publishers.spawn(async move {
            for number in 0..EACH {
                // 3 and 4 have no common divisor: every topic sees every QoS, and at times two the same.
                let (topic, qos) = (number % 3, [0, 1, 2, 1][number % 4]);
                let payload = format!("{publisher} {qos} {number}");
                client
                    .publish(&format!("crowd/{topic}"), qos, false, payload)
                    .await;
            }
            client.leave().await;
        });
    }
    while let Some(ended) = publishers.join_next().await {
        ended.unwrap();
    }
    for inbox in &inboxes {
        inbox
            .wait_for("everything of the crowd", |messages| messages.len() >= 10 * EACH)
            .await;
    }
    quiet(&inboxes).await;
    for inbox in &inboxes {
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        let mut last: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        for message in inbox.messages() {
            let text = message.text();
            *times.entry(text.clone()).or_default() += 1;
            let mut words = text.split(' ').map(str::to_owned);
            let (publisher, qos) = (words.next().unwrap(), words.next().unwrap());
            let number = words.next().unwrap().parse().unwrap();
            if let Some(before) = last.insert((publisher, message.topic, qos), number) {
                assert!(
                    before < number,
                    "the {} got message {before} before {text:?}",
                    inbox.name()
                );
            }
        }
        let twice: Vec<_> = times.iter().filter(|(_, times)| **times != 1).collect();
        assert!(
            twice.is_empty(),
            "the {} got more than once: {twice:?}",
            inbox.name()
        );
        assert_eq!(times.len(), 10 * EACH, "the {} got all messages", inbox.name());
    }
    lab.stop().await.unwrap();
}
