//! The broker's events as plain values, in the orders in which brokers were seen to raise them.

use super::*;
use crate::options::{Ordinary, Peer};
use crate::replication::{Bounds, Content};

mod access;
mod arrivals;
mod bypass;
mod held;
mod links;
mod own;
mod routing;
mod standstill;
mod wills;

const LINK: Option<&[u8]> = Some(b"mesh-link");
const HEALTH: Option<&[u8]> = Some(b"mesh-health");
const LINK_PASSWORD: &[u8] = b"password-of-links";
const HEALTH_PASSWORD: &[u8] = b"password-of-health";

/// Clients, by the address of their context.
const TO_B2: ClientKey = ClientKey(0x20);
const TO_B3: ClientKey = ClientKey(0x30);
const FROM_B2: ClientKey = ClientKey(0x200);
const PROBE: ClientKey = ClientKey(0x40);
const READER: ClientKey = ClientKey(0x50);
const ALICE: ClientKey = ClientKey(0x1000);
const BOB: ClientKey = ClientKey(0x2000);

/// Places of stored topics.
const T1: TopicKey = TopicKey(0x7001);
const T2: TopicKey = TopicKey(0x7002);

fn options(auth: Ordinary, acl: Ordinary) -> Options {
    Options {
        broker_id: "b1".parse().unwrap(),
        peers: ["b2", "b3"]
            .map(|id| Peer {
                id: id.parse().unwrap(),
                address: "192.0.2.1:1883".parse().unwrap(),
            })
            .to_vec(),
        link_password: String::from_utf8(LINK_PASSWORD.to_vec()).unwrap(),
        health_password: String::from_utf8(HEALTH_PASSWORD.to_vec()).unwrap(),
        auth,
        acl,
        replay: Bounds {
            count: 100,
            bytes: 1 << 20,
        },
        address: "192.0.2.1:1883".parse().unwrap(),
        data_dir: "/nowhere".into(),
        tombstone_ttl_s: 3600,
        stamps: true,
    }
}

const NOW: Now = Now {
    up_ms: 0,
    wall_ms: 1_800_000_000_000,
};

const CONTENT: Content<'_> = Content {
    topic: b"a/b",
    payload: b"c",
    properties: b"",
};

fn new(options: Options) -> Policy {
    Policy::new(options, NOW)
}

/// A broker where b2 and b3 fetch and nobody else is connected.
fn linked() -> Policy {
    let mut policy = new(options(Ordinary::Allow, Ordinary::Allow));
    for (key, id) in [(TO_B2, "mesh.link.b1.b2"), (TO_B3, "mesh.link.b1.b3")] {
        assert_eq!(login(&mut policy, key, id, LINK, LINK_PASSWORD), Admission::Mesh);
        assert_eq!(policy.subscribe(key, LINK, b"#"), Verdict::Accept);
    }
    // The first turn replays the little that there is, in the second one both links are live.
    policy.tick(NOW, |_| Some(2));
    policy.tick(NOW, |_| Some(2));
    policy
}

fn login(
    policy: &mut Policy,
    client: ClientKey,
    id: &str,
    user: Option<&[u8]>,
    password: &[u8],
) -> Admission {
    policy.basic_auth(
        &Login {
            client,
            id: id.as_bytes(),
            user,
            password: Some(password),
            clean_session: true,
        },
        NOW,
    )
}

/// A READ check, as the hooks pass it on.
fn read(policy: &mut Policy, client: ClientKey, user: Option<&[u8]>, topic: TopicKey, qos: u8) -> Verdict {
    policy.delivers(client, || false);
    policy.read(client, || user, topic, qos)
}

/// A network client publishes, as the broker tells it: first whether it may, then the message.
fn publish(policy: &mut Policy, client: ClientKey, topic: TopicKey, qos: u8) -> Verdict {
    assert_eq!(policy.write(client, None, true, b"a/b"), Verdict::Accept);
    message(policy, client, None, b"alice", true, topic, qos)
}

/// The bridge that fetches from b2 brings something in; nobody is asked whether it may.
fn arrive(policy: &mut Policy, topic: TopicKey, qos: u8) -> Verdict {
    message(policy, FROM_B2, LINK, b"mesh.local.b2.b1", false, topic, qos)
}

fn message(
    policy: &mut Policy,
    client: ClientKey,
    user: Option<&[u8]>,
    id: &[u8],
    network: bool,
    topic: TopicKey,
    qos: u8,
) -> Verdict {
    let message = Published {
        client,
        id,
        user,
        network,
        topic,
        qos,
        name: b"a/b",
        length: CONTENT.payload.len(),
        retain: false,
    };
    match policy.message(&message) {
        Handling::Pass => Verdict::Accept,
        Handling::Refuse => Verdict::Refuse,
        Handling::Stamp => {
            let stamp = policy.stamp(&message, NOW).expect("nothing later is retained");
            policy.publish(topic, stamp, &CONTENT, NOW);
            Verdict::Accept
        }
        Handling::Arrive(peer) => {
            let arrival = policy.arrive(peer, None, &CONTENT);
            assert_eq!(arrival, Arrival::New(None), "it has no stamp");
            Verdict::Accept
        }
    }
}

/// Who of both links and two clients receives what is routed now.
fn routed(policy: &mut Policy, topic: TopicKey, qos: u8) -> [bool; 4] {
    [(ALICE, None), (TO_B2, LINK), (TO_B3, LINK), (BOB, None)]
        .map(|(client, user)| read(policy, client, user, topic, qos) == Verdict::Accept)
}

const TO_ALL: [bool; 4] = [true; 4];
const NOT_TO_LINKS: [bool; 4] = [true, false, false, true];
