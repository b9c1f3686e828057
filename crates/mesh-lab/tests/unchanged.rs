//! What a publisher says of a message crosses the mesh as it was said: live, for who comes later, and to a broker that
//! has lost all of it.

mod support;

use mesh_lab::Lab;
use mesh_runtime::mqtt::mqttbytes::v5::{PubRel, Publish, PublishProperties};
use mesh_runtime::mqtt::{Connection, Packet};
use support::client::{Who, quality};
use support::keeper::{Keeper, seen};
use support::retained::{agreed, database, journal};
use support::{all, at, brokers, start};

/// The longest topic of MQTT, in bytes.
const LONGEST: usize = 65_535;
/// The most levels that Mosquitto takes.
const LEVELS: usize = 200;
/// Far more than fits into a packet of the network, and less than what a broker keeps for its peers.
const LARGE: usize = 1 << 20;

/// All that MQTT 5 lets a publisher say.
fn everything() -> PublishProperties {
    let user = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    PublishProperties {
        payload_format_indicator: Some(0),
        message_expiry_interval: Some(1000),
        topic_alias: None,
        response_topic: Some("unchanged/answer/ö".to_owned()),
        correlation_data: Some((0..=u8::MAX).collect::<Vec<u8>>().into()),
        // The same name twice, in this order; empty ones; one that looks like a stamp, and is none.
        user_properties: vec![
            user("b", "1"),
            user("a", "ö 日本 🦀"),
            user("b", "0"),
            user("", ""),
            user("meshed", "1 b1 1 1 1 1"),
        ],
        subscription_identifiers: Vec::new(),
        content_type: Some("application/octet-stream; v=\"1\"".to_owned()),
    }
}

/// A message for each kind of topic, and one that is large, with a QoS, to be kept or not.
fn messages(qos: u8, retain: bool) -> Vec<Publish> {
    let start = format!("unchanged/{qos}/{retain}");
    let text = format!("{start}/ö/日本 🦀/$SYS/\"' \\ %s");
    let long = format!("{start}/{}", "x".repeat(LONGEST - start.len() - 1));
    let deep = format!("{start}{}", "/d".repeat(LEVELS - 3));
    let bytes = |length: usize| (0..=u8::MAX).cycle().take(length).collect::<Vec<u8>>();
    let kinds = [
        (text, 256),
        (long, 1),
        (deep, 1),
        (format!("{start}/large"), LARGE),
        // Without a level between two slashes.
        (format!("{start}//"), 300),
    ];
    let message = |(topic, length): (String, usize)| {
        let mut publish = Publish::new(topic, quality(qos), bytes(length), Some(everything()));
        publish.retain = retain;
        publish
    };
    kinds.into_iter().map(message).collect()
}

fn every_message() -> Vec<Publish> {
    let kinds = (0..=2).flat_map(|qos| [(qos, false), (qos, true)]);
    kinds.flat_map(|(qos, retain)| messages(qos, retain)).collect()
}

/// Publishes all of it at the first broker, each when the one before is answered.
async fn publish_all(lab: &Lab) {
    let who = Who::anonymous().identity();
    let (mut connection, _) = Connection::open(at(lab, 1), &who).await.unwrap();
    for (id, mut publish) in (1..).zip(every_message()) {
        let qos = publish.qos;
        publish.pkid = if qos == quality(0) { 0 } else { id };
        connection.send(&Packet::Publish(publish)).await.unwrap();
        if qos == quality(2) {
            assert!(matches!(connection.receive().await.unwrap(), Packet::PubRec(_)));
            connection
                .send(&Packet::PubRel(PubRel::new(id, None)))
                .await
                .unwrap();
        }
        if qos > quality(0) {
            let answer = connection.receive().await.unwrap();
            assert!(
                matches!(answer, Packet::PubAck(_) | Packet::PubComp(_)),
                "{answer:?}"
            );
        }
    }
    connection.flush().await.unwrap();
}

/// What subscribers at QoS 1 are told of these messages. The order of different topics is not looked at.
fn told(messages: impl IntoIterator<Item = Publish>) -> Vec<String> {
    let told = |mut message: Publish| {
        if message.qos == quality(2) {
            message.qos = quality(1);
        }
        // The large ones would fill the screen.
        let length = message.payload.len();
        let whole = message
            .payload
            .iter()
            .copied()
            .eq((0..=u8::MAX).cycle().take(length));
        message.payload = format!("{length} bytes, as they were: {whole}").into();
        seen(&message)
    };
    let mut all: Vec<String> = messages.into_iter().map(told).collect();
    all.sort();
    all
}

fn compare(who: &str, got: Vec<Publish>, expected: Vec<Publish>) {
    let short = |text: &String| text.chars().take(300).collect::<String>();
    let (got, expected) = (told(got), told(expected));
    for (got, expected) in got.iter().zip(&expected) {
        assert!(got == expected, "{who}:\n{}\n{}", short(got), short(expected));
    }
    assert_eq!(got.len(), expected.len(), "{who}");
}

#[tokio::test]
async fn topics_payloads_and_properties_cross_the_mesh_as_they_are() {
    let lab = start(brokers(3)).await;
    let mut live = Vec::new();
    for n in all(&lab) {
        live.push(Keeper::start(&lab, n, "unchanged/#").await);
    }
    publish_all(&lab).await;
    for (n, keeper) in (1..).zip(&mut live) {
        let got = keeper.all(every_message().len()).await;
        compare(&format!("live at broker{n}"), got, every_message());
    }
    let kept = || every_message().into_iter().filter(|message| message.retain);
    let later = async |n: usize| {
        let mut keeper = Keeper::start(&lab, n, "unchanged/#").await;
        let got = keeper.all(kept().count()).await;
        compare(&format!("later at broker{n}"), got, kept().collect());
    };
    for n in all(&lab) {
        later(n).await;
    }
    lab.kill("broker3").await.unwrap();
    for file in [database(&lab, 3), journal(&lab, 3)] {
        if file.exists() {
            std::fs::remove_file(file).unwrap();
        }
    }
    lab.restart("broker3").await.unwrap();
    let brokers: Vec<usize> = all(&lab).collect();
    assert_eq!(agreed(&lab, &brokers).await.len(), kept().count());
    later(3).await;
    lab.stop().await.unwrap();
}
