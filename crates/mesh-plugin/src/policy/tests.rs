//! The broker's events as plain values, in the orders in which brokers were seen to raise them.

use super::sessions::same_secret;
use super::*;
use crate::options::Peer;
use crate::replication::Bounds;

mod arrivals;
mod held;
mod own;
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
            let arrival = policy.arrive(peer, None, &CONTENT, NOW);
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

#[test]
fn what_enters_here_goes_to_every_link() {
    let mut policy = linked();
    for qos in [0, 1] {
        assert_eq!(publish(&mut policy, ALICE, T1, qos), Verdict::Accept);
        assert_eq!(routed(&mut policy, T1, qos), TO_ALL);
    }
    let counts = policy.counts().next().unwrap();
    assert_eq!((counts.sent, counts.held_back), (2, 0));
}

#[test]
fn what_came_over_a_link_goes_to_no_link() {
    let mut policy = linked();
    for qos in [0, 1] {
        assert_eq!(arrive(&mut policy, T1, qos), Verdict::Accept);
        assert_eq!(routed(&mut policy, T1, qos), NOT_TO_LINKS);
    }
    let [b2, b3] = policy.counts().collect::<Vec<_>>()[..] else {
        panic!()
    };
    assert_eq!((b2.received, b2.sent, b2.held_back), (2, 0, 2));
    assert_eq!((b3.received, b3.sent, b3.held_back), (0, 0, 2));
}

#[test]
fn a_plugin_behind_ours_may_move_the_message() {
    let mut policy = linked();
    arrive(&mut policy, T1, 1);
    assert_eq!(routed(&mut policy, T2, 1), NOT_TO_LINKS);
}

#[test]
fn the_next_local_message_is_local_again_even_in_the_same_place() {
    let mut policy = linked();
    arrive(&mut policy, T1, 0);
    publish(&mut policy, ALICE, T1, 0);
    assert_eq!(routed(&mut policy, T1, 0), TO_ALL);
}

#[test]
fn a_qos_2_message_is_known_again_when_it_is_released() {
    let mut policy = linked();
    arrive(&mut policy, T1, 2);
    publish(&mut policy, ALICE, T2, 1);
    assert_eq!(routed(&mut policy, T2, 1), TO_ALL);
    assert_eq!(routed(&mut policy, T1, 2), NOT_TO_LINKS);
    assert_eq!(policy.unreleased.len(), 0);
}

#[test]
fn a_local_qos_2_message_released_right_after_a_remote_one_reaches_the_links() {
    let mut policy = linked();
    publish(&mut policy, ALICE, T2, 2);
    arrive(&mut policy, T1, 1);
    assert_eq!(routed(&mut policy, T1, 1), NOT_TO_LINKS);
    assert_eq!(routed(&mut policy, T2, 2), TO_ALL);
    arrive(&mut policy, T1, 2);
    assert_eq!(routed(&mut policy, T1, 2), NOT_TO_LINKS);
    assert_eq!(routed(&mut policy, T2, 2), TO_ALL);
}

#[test]
fn a_local_message_in_the_place_of_a_dropped_qos_2_one_is_local() {
    let mut policy = linked();
    arrive(&mut policy, T1, 2);
    publish(&mut policy, ALICE, T1, 2);
    assert_eq!(routed(&mut policy, T1, 2), TO_ALL);
}

#[test]
fn a_log_line_in_the_middle_changes_nothing() {
    let mut policy = linked();
    assert_eq!(policy.write(ALICE, None, true, b"a"), Verdict::Accept);
    // With `log_dest topic` the broker tells its readers between the check and the message.
    assert_eq!(policy.read(BOB, || None, T2, 2), Verdict::Accept);
    assert_eq!(
        message(&mut policy, ALICE, None, b"alice", true, T1, 1),
        Verdict::Accept
    );
    assert_eq!(policy.take_alarm(), None);
    arrive(&mut policy, T1, 1);
    assert_eq!(policy.read(BOB, || None, T2, 2), Verdict::Accept);
    assert_eq!(routed(&mut policy, T1, 1), NOT_TO_LINKS);
}

#[test]
fn a_link_that_subscribes_gets_nothing_that_is_stored() {
    for qos in [0, 1, 2] {
        let mut policy = linked();
        arrive(&mut policy, T1, qos);
        policy.subscribe(TO_B3, LINK, b"#");
        for topic in [T1, T2] {
            assert_eq!(
                read(&mut policy, TO_B3, LINK, topic, qos),
                Verdict::Refuse,
                "QoS {qos}"
            );
            // The broker asks whether its publisher may still write; the stand-in lives on the broker's stack.
            assert_eq!(policy.write(ClientKey(1), LINK, false, b"a/b"), Verdict::Accept);
        }
        assert_eq!(read(&mut policy, TO_B3, LINK, T2, qos), Verdict::Refuse);
        // Not so anybody else.
        policy.subscribe(ALICE, None, b"#");
        assert_eq!(read(&mut policy, ALICE, None, T1, qos), Verdict::Accept);
    }
}

#[test]
fn what_is_routed_after_a_link_has_subscribed_is_known_by_who_else_gets_it() {
    let mut policy = linked();
    let message = publish(&mut policy, ALICE, T1, 2);
    assert_eq!(message, Verdict::Accept);
    policy.subscribe(TO_B3, LINK, b"#");
    assert_eq!(read(&mut policy, TO_B3, LINK, T2, 1), Verdict::Refuse, "stored");
    // The broker's log in between is no sign.
    policy.delivers(BOB, || true);
    assert_eq!(read(&mut policy, TO_B3, LINK, T2, 1), Verdict::Refuse, "stored");
    // A PUBREL raises no event.
    assert_eq!(read(&mut policy, TO_B2, LINK, T1, 2), Verdict::Accept);
}

#[test]
fn the_reader_gets_what_is_stored_whoever_may_not_and_nothing_else() {
    let mut policy = new(options(Ordinary::Allow, Ordinary::Defer));
    let wrong = login(&mut policy, READER, "mesh.read.b2", LINK, LINK_PASSWORD);
    assert!(matches!(wrong, Admission::Refuse(_)));
    let wrong = login(&mut policy, READER, "mesh.read.b1", HEALTH, HEALTH_PASSWORD);
    assert!(matches!(wrong, Admission::Refuse(_)));
    let right = login(&mut policy, READER, "mesh.read.b1", LINK, LINK_PASSWORD);
    assert_eq!(right, Admission::Mesh);
    assert_eq!(policy.subscribe(READER, LINK, b"a/b"), Verdict::Accept);
    for topic in [T1, T2] {
        assert_eq!(read(&mut policy, READER, LINK, topic, 1), Verdict::Accept);
        assert_eq!(
            policy.write(ClientKey(1), None, false, b"a/b"),
            Verdict::Accept,
            "stand-in"
        );
    }
    arrive(&mut policy, T1, 1);
    assert_eq!(read(&mut policy, READER, LINK, T1, 1), Verdict::Refuse, "live");
}

#[test]
fn stored_messages_of_the_mesh_are_delivered() {
    let mut policy = new(options(Ordinary::Allow, Ordinary::Defer));
    assert_eq!(policy.write(ClientKey(1), LINK, false, b"a/b"), Verdict::Accept);
    assert_eq!(
        policy.write(ClientKey(1), HEALTH, false, b"$mesh/canary/b1"),
        Verdict::Accept
    );
    assert_eq!(policy.write(ClientKey(1), None, false, b"a/b"), Verdict::Defer);
    assert_eq!(
        policy.write(ClientKey(1), None, false, b"$mesh/x"),
        Verdict::Refuse
    );
}

#[test]
fn everything_but_a_read_check_or_a_disconnect_forgets_the_message() {
    type Event = fn(&mut Policy);
    let events: [(&str, Event); 5] = [
        ("subscribe", |p| _ = p.subscribe(ALICE, None, b"#")),
        ("unsubscribe", |p| _ = p.other_access(ALICE, None)),
        ("write", |p| _ = p.write(ALICE, None, true, b"will")),
        ("login", |p| _ = login(p, ALICE, "alice", None, b"")),
        ("tick", |p| p.tick(NOW, |_| Some(2))),
    ];
    for (name, event) in events {
        let mut policy = linked();
        arrive(&mut policy, T1, 1);
        event(&mut policy);
        assert_eq!(routed(&mut policy, T1, 1), TO_ALL, "{name}");
    }
    let mut policy = linked();
    arrive(&mut policy, T1, 1);
    policy.disconnect(BOB, NOW);
    assert_eq!(routed(&mut policy, T1, 1), NOT_TO_LINKS);
}

#[test]
fn only_the_right_password_and_client_id_make_a_user_of_the_mesh() {
    let mut policy = linked();
    for (id, user, password) in [
        ("mesh.link.b1.b2", LINK, b"".as_slice()),
        ("mesh.link.b1.b2", LINK, b"password-of-link"),
        ("mesh.link.b1.b2", LINK, b"password-of-links!"),
        ("mesh.link.b1.b2", LINK, HEALTH_PASSWORD),
        ("mesh.link.b1.b1", LINK, LINK_PASSWORD),
        ("mesh.link.b1.b4", LINK, LINK_PASSWORD),
        ("mesh.link.b2.b1", LINK, LINK_PASSWORD),
        ("mesh.local.b1.b2", LINK, LINK_PASSWORD),
        ("mesh.local.b2.b1", LINK, LINK_PASSWORD),
        ("b2", LINK, LINK_PASSWORD),
        ("mesh.probe", HEALTH, LINK_PASSWORD),
        ("probe", HEALTH, HEALTH_PASSWORD),
        ("mesh.link.b1.b2", HEALTH, HEALTH_PASSWORD),
        ("mesh.local.b2.b1", HEALTH, HEALTH_PASSWORD),
        ("mesh.", None, b""),
        ("mesh.link.b1.b2", Some(b"alice"), b""),
        ("mesh.probe", Some(b"mesh-health "), HEALTH_PASSWORD),
    ] {
        let answer = login(&mut policy, ALICE, id, user, password);
        assert!(matches!(answer, Admission::Refuse(_)), "{id} {answer:?}");
    }
    assert_eq!(policy.sessions(), 2);
    assert_eq!(
        login(&mut policy, PROBE, "mesh.probe.b1", HEALTH, HEALTH_PASSWORD),
        Admission::Mesh
    );
    assert_eq!(policy.sessions(), 3);
}

#[test]
fn no_password_is_a_wrong_password() {
    let mut policy = linked();
    let answer = policy.basic_auth(
        &Login {
            client: ALICE,
            id: b"mesh.link.b1.b2",
            user: LINK,
            password: None,
            clean_session: true,
        },
        NOW,
    );
    assert_eq!(answer, Admission::Refuse("wrong password"));
}

#[test]
fn others_are_let_in_or_left_to_the_next() {
    for (auth, answer) in [
        (Ordinary::Allow, Admission::Accept),
        (Ordinary::Defer, Admission::Defer),
    ] {
        let mut policy = new(options(auth, Ordinary::Allow));
        assert_eq!(login(&mut policy, ALICE, "alice", Some(b"alice"), b"x"), answer);
        assert_eq!(login(&mut policy, BOB, "", None, b""), answer);
        assert_eq!(policy.sessions(), 0);
    }
}

#[test]
fn accesses_of_others_are_allowed_or_left_to_the_next() {
    for (acl, answer) in [
        (Ordinary::Allow, Verdict::Accept),
        (Ordinary::Defer, Verdict::Defer),
    ] {
        let mut policy = new(options(Ordinary::Allow, acl));
        assert_eq!(policy.read(ALICE, || None, T1, 0), answer);
        assert_eq!(policy.subscribe(ALICE, Some(b"alice"), b"#"), answer);
        assert_eq!(policy.other_access(ALICE, None), answer);
        assert_eq!(policy.write(ALICE, None, true, b"mesh/x"), answer);
        assert_eq!(policy.write(ALICE, None, true, b"$mesh/x"), Verdict::Refuse);
    }
}

#[test]
fn who_only_has_the_name_gets_nothing() {
    let mut policy = linked();
    for user in [LINK, HEALTH] {
        assert_eq!(policy.read(ALICE, || user, T1, 0), Verdict::Refuse);
        assert_eq!(policy.subscribe(ALICE, user, b"#"), Verdict::Refuse);
        assert_eq!(policy.other_access(ALICE, user), Verdict::Refuse);
        assert_eq!(policy.write(ALICE, user, true, b"$mesh/x"), Verdict::Refuse);
        assert_eq!(policy.write(ALICE, user, true, b"x"), Verdict::Refuse);
    }
}

#[test]
fn links_only_listen_and_health_writes_below_mesh() {
    let mut policy = linked();
    login(&mut policy, PROBE, "mesh.probe", HEALTH, HEALTH_PASSWORD);
    assert_eq!(policy.write(TO_B2, LINK, true, b"a"), Verdict::Refuse);
    assert_eq!(policy.write(TO_B2, LINK, true, b"$mesh/a"), Verdict::Refuse);
    assert_eq!(policy.write(PROBE, HEALTH, true, b"a"), Verdict::Refuse);
    assert_eq!(policy.write(PROBE, HEALTH, true, b"$mesh"), Verdict::Refuse);
    assert_eq!(
        policy.write(PROBE, HEALTH, true, b"$mesh/canary/b1"),
        Verdict::Accept
    );
    assert_eq!(policy.subscribe(PROBE, HEALTH, b"#"), Verdict::Accept);
    assert_eq!(policy.read(PROBE, || HEALTH, T1, 2), Verdict::Accept);
}

#[test]
fn a_canary_crosses_each_link_once() {
    let mut policy = linked();
    login(&mut policy, PROBE, "mesh.probe", HEALTH, HEALTH_PASSWORD);
    assert_eq!(
        policy.write(PROBE, HEALTH, true, b"$mesh/canary/b1"),
        Verdict::Accept
    );
    message(&mut policy, PROBE, HEALTH, b"mesh.probe", true, T1, 0);
    assert_eq!(routed(&mut policy, T1, 0), TO_ALL);
}

#[test]
fn a_context_that_is_used_again_is_nobody() {
    let mut policy = linked();
    assert_eq!(
        login(&mut policy, TO_B2, "alice", Some(b"alice"), b""),
        Admission::Accept
    );
    assert_eq!(policy.sessions(), 1);
    assert_eq!(
        policy.read(TO_B2, || Some(b"alice".as_slice()), T1, 0),
        Verdict::Accept
    );
    // Nor does it help to take the name later.
    assert_eq!(policy.read(TO_B2, || LINK, T1, 0), Verdict::Refuse);
}

#[test]
fn the_old_connection_of_a_link_may_end_after_the_new_one_began() {
    let mut policy = linked();
    let new = ClientKey(0x21);
    assert_eq!(
        login(&mut policy, new, "mesh.link.b1.b2", LINK, LINK_PASSWORD),
        Admission::Mesh
    );
    policy.disconnect(TO_B2, NOW);
    assert_eq!(policy.subscribe(new, LINK, b"#"), Verdict::Accept);
    policy.tick(NOW, |_| Some(2));
    policy.tick(NOW, |_| Some(2));
    publish(&mut policy, ALICE, T1, 1);
    assert_eq!(policy.read(new, || LINK, T1, 1), Verdict::Accept);
    assert_eq!(policy.read(TO_B2, || LINK, T1, 1), Verdict::Refuse);
}

#[test]
fn a_publish_that_we_were_not_asked_about_ends_the_mesh_here() {
    let mut policy = linked();
    login(&mut policy, PROBE, "mesh.probe", HEALTH, HEALTH_PASSWORD);
    assert_eq!(
        message(&mut policy, ALICE, None, b"alice", true, T1, 1),
        Verdict::Accept
    );
    assert_eq!(policy.take_alarm(), Some(Bypass::Publish));
    assert_eq!(routed(&mut policy, T1, 1), NOT_TO_LINKS);
    assert_eq!(arrive(&mut policy, T1, 1), Verdict::Refuse);
    policy.tick(NOW, |_| Some(2));
    assert_eq!(policy.unwanted(0), ["mesh.link.b1.b2", "mesh.link.b1.b3"]);
    let again = login(
        &mut policy,
        ClientKey(0x21),
        "mesh.link.b1.b2",
        LINK,
        LINK_PASSWORD,
    );
    assert_eq!(again, Admission::Refuse("this broker has left the mesh"));
    // It is said once, and clients and probes are served on.
    message(&mut policy, ALICE, None, b"alice", true, T1, 1);
    assert_eq!(policy.take_alarm(), None);
    assert_eq!(publish(&mut policy, ALICE, T1, 1), Verdict::Accept);
    assert_eq!(policy.read(PROBE, || HEALTH, T1, 1), Verdict::Accept);
}

#[test]
fn a_publish_under_the_name_of_a_link_is_no_way_in() {
    let mut policy = linked();
    message(&mut policy, ALICE, LINK, b"alice", true, T1, 1);
    assert_eq!(policy.take_alarm(), Some(Bypass::Publish));
    // Nor is a session that did log in as a link.
    let mut policy = linked();
    message(&mut policy, TO_B2, LINK, b"mesh.link.b1.b2", true, T1, 1);
    assert_eq!(policy.take_alarm(), Some(Bypass::Publish));
}

#[test]
fn a_check_for_somebody_else_is_no_check() {
    let mut policy = linked();
    policy.write(BOB, None, true, b"a");
    message(&mut policy, ALICE, None, b"alice", true, T1, 1);
    assert_eq!(policy.take_alarm(), Some(Bypass::Publish));
}

#[test]
fn a_subscription_that_we_were_not_asked_about_ends_the_mesh_here() {
    let mut policy = new(options(Ordinary::Allow, Ordinary::Allow));
    login(&mut policy, TO_B2, "mesh.link.b1.b2", LINK, LINK_PASSWORD);
    for subscriptions in [Some(0), None] {
        policy.tick(NOW, |_| subscriptions);
        assert_eq!(policy.take_alarm(), None);
    }
    assert_eq!(policy.unwanted(0), ["mesh.link.b1.b3"]);
    policy.tick(NOW, |_| Some(1));
    assert_eq!(policy.take_alarm(), Some(Bypass::Subscribe));
    assert_eq!(policy.unwanted(0), ["mesh.link.b1.b2", "mesh.link.b1.b3"]);
}

#[test]
fn a_link_that_did_not_log_in_with_us_is_unwanted_and_ends_the_mesh_here() {
    let mut policy = linked();
    assert_eq!(policy.unwanted(0), Vec::<String>::new());
    policy.disconnect(TO_B3, NOW);
    assert_eq!(policy.unwanted(0), ["mesh.link.b1.b3"]);
    // It is not there, and comes back through us: all is well.
    login(&mut policy, TO_B3, "mesh.link.b1.b3", LINK, LINK_PASSWORD);
    assert_eq!(policy.unwanted(0), Vec::<String>::new());
    assert_eq!(policy.take_alarm(), None);

    policy.disconnect(TO_B3, NOW);
    policy.intruded();
    assert_eq!(policy.take_alarm(), Some(Bypass::Login));
    assert_eq!(policy.unwanted(0), ["mesh.link.b1.b2", "mesh.link.b1.b3"]);
    assert_eq!(arrive(&mut policy, T1, 1), Verdict::Refuse);
    policy.intruded();
    assert_eq!(policy.take_alarm(), None, "it is said once");
}

#[test]
fn a_session_of_a_link_that_nobody_uses_is_left_alone_for_a_while() {
    let mut policy = linked();
    policy.disconnect(TO_B2, NOW);
    policy.disconnect(TO_B3, NOW);
    policy.is_vacant("mesh.link.b1.b3", 500);
    assert_eq!(policy.unwanted(500), ["mesh.link.b1.b2"]);
    assert_eq!(policy.unwanted(10_499), ["mesh.link.b1.b2"]);
    assert_eq!(policy.unwanted(10_500), ["mesh.link.b1.b2", "mesh.link.b1.b3"]);
}

#[test]
fn a_reload_that_asks_about_every_client_again_is_no_alarm() {
    let mut policy = linked();
    assert_eq!(
        login(&mut policy, TO_B2, "mesh.link.b1.b2", LINK, LINK_PASSWORD),
        Admission::Mesh
    );
    assert_eq!(policy.sessions(), 2);
    policy.tick(NOW, |_| Some(2));
    assert_eq!(policy.take_alarm(), None);
}

#[test]
fn a_resumed_session_is_no_alarm() {
    let mut policy = linked();
    policy.basic_auth(
        &Login {
            client: ClientKey(0x21),
            id: b"mesh.link.b1.b2",
            user: LINK,
            password: Some(LINK_PASSWORD),
            clean_session: false,
        },
        NOW,
    );
    policy.tick(NOW, |_| Some(2));
    assert_eq!(policy.take_alarm(), None);
}

#[test]
fn a_bridge_of_the_operator_is_a_local_source() {
    let mut policy = linked();
    for user in [None, Some(b"cloud".as_slice())] {
        assert_eq!(
            message(&mut policy, BOB, user, b"local.cloud", false, T1, 1),
            Verdict::Accept
        );
        assert_eq!(routed(&mut policy, T1, 1), TO_ALL);
        assert_eq!(policy.take_alarm(), None);
    }
}

#[test]
fn a_bridge_of_the_mesh_under_an_unknown_id_is_remote_all_the_same() {
    let mut policy = linked();
    message(&mut policy, FROM_B2, LINK, b"host.from-b2", false, T1, 1);
    assert_eq!(routed(&mut policy, T1, 1), NOT_TO_LINKS);
    assert_eq!(policy.take_alarm(), None);
}

#[test]
fn a_check_that_failed_was_a_check_all_the_same() {
    let mut policy = linked();
    arrive(&mut policy, T1, 1);
    policy.asked_to_publish(ALICE);
    message(&mut policy, ALICE, None, b"alice", true, T1, 1);
    assert_eq!(policy.take_alarm(), None);
    assert_eq!(routed(&mut policy, T1, 1), TO_ALL);
}

#[test]
fn a_bridge_counts_as_connected_from_its_first_message_on() {
    let mut policy = linked();
    assert_eq!(policy.bridges(), 0);
    arrive(&mut policy, T1, 1);
    arrive(&mut policy, T1, 0);
    assert_eq!(policy.bridges(), 1);
    policy.disconnect(TO_B2, NOW);
    assert_eq!(policy.bridges(), 1);
    policy.disconnect(FROM_B2, NOW);
    assert_eq!(policy.bridges(), 0);
}

#[test]
fn secrets_are_compared_whole() {
    assert!(same_secret(Some(b"abc"), "abc"));
    for given in [
        None,
        Some(b"".as_slice()),
        Some(b"ab"),
        Some(b"abd"),
        Some(b"abcd"),
        Some(b"abc\0"),
    ] {
        assert!(!same_secret(given, "abc"), "{given:?}");
    }
}

#[test]
fn a_link_breaks_inside_a_message_only_if_nothing_but_read_checks_came_between() {
    let between: [fn(&mut Policy); 6] = [
        |policy| policy.tick(NOW, |_| Some(2)),
        |policy| {
            policy.disconnect(ALICE, NOW);
        },
        |policy| {
            publish(policy, ALICE, T2, 1);
        },
        |policy| {
            policy.subscribe(ALICE, None, b"#");
        },
        |policy| {
            login(policy, ALICE, "alice", None, b"");
        },
        |policy| {
            message(policy, ClientKey(0x300), LINK, b"mesh.local.b3.b1", false, T2, 1);
        },
    ];
    for event in between {
        let mut policy = linked();
        arrive(&mut policy, T1, 1);
        event(&mut policy);
        assert_eq!(policy.disconnect(FROM_B2, NOW), None);
        assert_eq!(policy.disconnect(FROM_B2, NOW), None);
    }
    let mut policy = linked();
    publish(&mut policy, ALICE, T2, 1);
    assert_eq!(policy.disconnect(ALICE, NOW), None, "no link");
}

#[test]
fn the_first_message_of_a_connected_bridge_is_told_once() {
    let mut policy = linked();
    for _ in 0..2 {
        arrive(&mut policy, T1, 1);
        assert_eq!(policy.take_opened(), Some(0));
        arrive(&mut policy, T1, 1);
        assert_eq!(policy.take_opened(), None);
        policy.disconnect(FROM_B2, NOW);
    }
}

#[test]
fn nothing_is_salvaged_once_the_mesh_is_left() {
    let mut policy = linked();
    message(&mut policy, ALICE, None, b"alice", true, T1, 1);
    assert!(policy.take_alarm().is_some());
    assert_eq!(arrive(&mut policy, T1, 1), Verdict::Refuse);
    assert_eq!(policy.disconnect(FROM_B2, NOW), None);
}
