//! What the plugin publishes itself, over a session of its own.

use std::rc::Rc;

use super::*;
use crate::message::Publish;
use crate::presence::Presence;

fn of<'a>(topic: &'a str, payload: &'a [u8], retain: bool) -> Publish<'a> {
    Publish {
        topic,
        payload,
        qos: 1,
        retain,
        properties: Vec::new(),
    }
}

fn with_session() -> Policy {
    let mut policy = linked();
    let login = login(&mut policy, READER, "mesh.read.b1", LINK, LINK_PASSWORD);
    assert_eq!(login, Admission::Mesh);
    policy
}

/// The broker tells that this has come in over the plugin's session.
pub(super) fn comes_in(policy: &mut Policy, message: &Publish<'_>) -> Handling {
    let name = message.topic.as_bytes();
    assert_eq!(policy.write(READER, LINK, true, name), Verdict::Accept);
    policy.message(&Published {
        client: READER,
        id: b"mesh.read.b1",
        user: LINK,
        network: true,
        topic: T1,
        name,
        length: message.payload.len(),
        qos: message.qos,
        retain: message.retain,
    })
}

/// A value that a client publishes here.
fn value(policy: &mut Policy, topic: &str, payload: &[u8]) -> Stamp {
    let stamp = policy.replication().stamp(true, 1, NOW);
    policy.retained().local(topic.as_bytes(), &stamp, payload);
    stamp
}

#[test]
fn what_is_salvaged_comes_in_as_if_over_the_link() {
    let mut policy = with_session();
    let messages = [of("a", b"1", false), of("a", b"2", false)];
    for message in &messages {
        policy.publish_own(message, Purpose::Salvaged(1));
    }
    let sent = policy.next_batch(0).unwrap();
    let packets = crate::salvage::parse(&sent);
    assert_eq!(packets, messages);
    assert_eq!(policy.next_batch(0), None, "one batch after the other");
    for message in &messages {
        assert_eq!(comes_in(&mut policy, message), Handling::Arrive(Some(1)));
        assert_eq!(routed(&mut policy, T1, 1), NOT_TO_LINKS);
    }
    assert_eq!(
        comes_in(&mut policy, &messages[0]),
        Handling::Refuse,
        "nobody sent it"
    );
    assert_eq!(policy.batch_done(true, 0), None);
    assert!(policy.own.is_idle());
    assert_eq!(policy.counts().nth(1).unwrap().salvaged, 2);
}

#[test]
fn a_removal_is_told_to_no_link_and_if_hidden_to_nobody() {
    for shown in [true, false] {
        let mut policy = with_session();
        let removal = of("a", b"", true);
        policy.publish_own(&removal, Purpose::Removal { shown });
        policy.next_batch(0).unwrap();
        assert_eq!(comes_in(&mut policy, &removal), Handling::Pass);
        let expected = if shown { NOT_TO_LINKS } else { [false; 4] };
        assert_eq!(routed(&mut policy, T1, 1), expected);
        // A message of QoS 2 that is released next raises no event, and is something else.
        assert_eq!(routed(&mut policy, T2, 2), TO_ALL);
        // What follows is something else.
        publish(&mut policy, ALICE, T1, 1);
        assert_eq!(routed(&mut policy, T1, 1), TO_ALL);
    }
}

#[test]
fn what_was_stored_in_the_meantime_is_neither_removed_nor_overwritten() {
    let mut policy = with_session();
    let (removal, old) = (of("a", b"", true), of("b", b"old", true));
    let stamp = value(&mut policy, "b", b"old");
    for _ in 0..2 {
        policy.publish_own(&removal, Purpose::Removal { shown: true });
        policy.publish_own(&old, Purpose::Store(stamp.clone()));
    }
    policy.next_batch(0).unwrap();
    assert_eq!(comes_in(&mut policy, &removal), Handling::Pass);
    assert_eq!(comes_in(&mut policy, &old), Handling::Pass);
    assert_eq!(routed(&mut policy, T1, 1), [false; 4]);
    value(&mut policy, "a", b"new");
    value(&mut policy, "b", b"new");
    assert_eq!(comes_in(&mut policy, &removal), Handling::Refuse);
    assert_eq!(comes_in(&mut policy, &old), Handling::Refuse);
}

#[test]
fn a_will_enters_the_mesh_here_unless_its_client_has_moved() {
    for moved in [false, true] {
        let mut policy = with_session();
        let (id, will) = (Rc::from(b"alice".as_slice()), of("a", b"gone", true));
        policy.publish_own(&will, Purpose::Will(id, Hlc::at_ms(NOW.wall_ms)));
        policy.next_batch(0).unwrap();
        if moved {
            let mut there = Presence::default();
            there.login(BOB, b"alice", || Hlc::at_ms(NOW.wall_ms + 1));
            let topic = parse_internal(b"$mesh/presence/b2").unwrap();
            policy.told(0, &topic, &there.turn()[0], NOW);
        }
        let expected = if moved { Handling::Refuse } else { Handling::Stamp };
        assert_eq!(comes_in(&mut policy, &will), expected);
    }
}

#[test]
fn what_a_broken_connection_has_left_over_goes_out_again_in_order() {
    let mut policy = with_session();
    let messages = ["a", "b", "c", "d"].map(|topic| of(topic, b"", true));
    for message in &messages {
        policy.publish_own(message, Purpose::Removal { shown: true });
    }
    policy.next_batch(0).unwrap();
    comes_in(&mut policy, &messages[0]);
    // The broker did not take the second one.
    comes_in(&mut policy, &messages[2]);
    assert_eq!(policy.batch_done(false, 0), None);
    assert_eq!(policy.next_batch(0), None, "not at once");
    let again = policy.next_batch(10_000).unwrap();
    assert_eq!(crate::salvage::parse(&again), messages[3..]);
    // It ends the connection again and again.
    assert_eq!(policy.batch_done(false, 10_000), None);
    policy.next_batch(20_000).unwrap();
    assert_eq!(policy.batch_done(false, 20_000).as_deref(), Some(b"d".as_slice()));
    assert!(policy.own.is_idle());
}

#[test]
fn nothing_is_published_once_the_mesh_is_left() {
    let mut policy = with_session();
    let removal = of("a", b"", true);
    policy.publish_own(&removal, Purpose::Removal { shown: true });
    policy.next_batch(0).unwrap();
    policy.intruded();
    assert_eq!(comes_in(&mut policy, &removal), Handling::Refuse);
}
