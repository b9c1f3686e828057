//! A broker that stood still, and clients that have moved meanwhile or have not.

use super::own::comes_in;
use super::wills::{at, steady, turns};
use super::*;
use crate::message::Publish;
use crate::presence::Presence;
use crate::standstill::Word;

/// Somebody publishes to `a/b`, to be kept. Returns what the broker makes of it, and the stamp.
fn set(
    policy: &mut Policy,
    client: ClientKey,
    id: &[u8],
    qos: u8,
    now: Now,
) -> Result<Option<Stamp>, Handling> {
    set_at(policy, T1, client, id, qos, now)
}

fn set_at(
    policy: &mut Policy,
    place: TopicKey,
    client: ClientKey,
    id: &[u8],
    qos: u8,
    now: Now,
) -> Result<Option<Stamp>, Handling> {
    assert_ne!(policy.write(client, None, true, CONTENT.topic), Verdict::Refuse);
    let message = Published {
        client,
        id,
        user: None,
        network: true,
        topic: place,
        qos,
        name: CONTENT.topic,
        length: CONTENT.payload.len(),
        retain: true,
    };
    match policy.message(&message) {
        Handling::Stamp => {}
        other => return Err(other),
    }
    let stamp = policy.stamp(&message, now);
    if let Some(stamp) = &stamp {
        policy.publish(place, stamp.clone(), &CONTENT, now);
        if qos < 2 {
            routed(policy, place, qos);
        }
    }
    Ok(stamp)
}

fn connect(policy: &mut Policy, client: ClientKey, id: &[u8], now: Now) {
    let login = Login {
        client,
        id,
        user: None,
        password: None,
        clean_session: true,
    };
    assert_eq!(policy.basic_auth(&login, now), Admission::Accept);
}

/// b2 tells that this client has connected to it.
fn moved(policy: &mut Policy, id: &[u8], since: Now, now: Now) {
    let mut there = Presence::default();
    there.login(BOB, id, || Hlc::at_ms(since.wall_ms));
    let topic = parse_internal(b"$mesh/presence/b2").unwrap();
    for message in there.turn() {
        policy.told(0, &topic, &message, now);
    }
}

fn stamp_of(origin: &str, seq: u64, sent: Now) -> Stamp {
    Stamp {
        origin: origin.parse().unwrap(),
        epoch: 1,
        seq,
        time: Hlc::at_ms(sent.wall_ms),
        retain: true,
        requested: false,
        qos: 1,
    }
}

/// What b2 sets there at that time of its clock comes over its link.
fn elsewhere(policy: &mut Policy, seq: u64, sent: Now, now: Now) -> Stamp {
    let stamp = stamp_of("b2", seq, sent);
    policy.arrive(Some(0), Some((stamp.clone(), now)), &CONTENT);
    stamp
}

/// What is said to each peer in this turn, and its answer if it gives one.
fn asked(policy: &mut Policy, now: Now, answers: bool) -> Vec<usize> {
    policy.tick(now, |_| Some(2));
    let mut asked = Vec::new();
    for (peer, message) in policy.announcements() {
        let Some(Word::Ask(question)) = Word::decode(&message) else {
            continue;
        };
        asked.push(peer);
        if answers {
            let from = format!("$mesh/presence/{}", ["b2", "b3"][peer]);
            let topic = parse_internal(from.as_bytes()).unwrap();
            policy.told(peer, &topic, &Word::Answer(question).encode(), now);
        }
    }
    asked
}

fn is_newest(policy: &Policy, stamp: &Stamp) -> bool {
    policy.retained.is_newest(CONTENT.topic, stamp)
}

#[test]
fn what_had_been_sent_to_a_broker_that_hung_loses_against_what_its_client_sends_elsewhere() {
    for first_old in [true, false] {
        let mut policy = steady(Ordinary::Allow);
        let before = set(&mut policy, ALICE, b"alice", 1, at(10_050)).unwrap().unwrap();
        // It hangs for three seconds, alice moves after one, and it reads in this or that order.
        let now = at(13_050);
        let new = if first_old {
            let old = set(&mut policy, ALICE, b"alice", 1, now).unwrap().unwrap();
            assert!(old.time > before.time, "its own order stays");
            let new = elsewhere(&mut policy, 1, at(11_100), now);
            assert!(new.time > old.time);
            new
        } else {
            let new = elsewhere(&mut policy, 1, at(11_100), now);
            let seq = set(&mut policy, READER, b"unknown", 0, now).map(|stamp| stamp.is_none());
            assert_eq!(
                seq,
                Ok(true),
                "who is not known is taken for somebody from before"
            );
            assert_eq!(set(&mut policy, ALICE, b"alice", 1, now), Ok(None));
            let shown = routed(&mut policy, T1, 1);
            assert_eq!(shown, [false; 4], "nobody is shown what is not stored");
            new
        };
        assert!(is_newest(&policy, &new));
        // Its numbers have no gap.
        connect(&mut policy, BOB, b"bob", now);
        let next = set(&mut policy, BOB, b"bob", 1, now);
        let expected = before.seq + if first_old { 2 } else { 1 };
        assert_eq!(next.unwrap().unwrap().seq, expected);
    }
}

#[test]
fn a_client_that_has_moved_is_refused_from_when_that_is_known() {
    let mut policy = steady(Ordinary::Allow);
    let now = at(13_000);
    assert!(set(&mut policy, ALICE, b"alice", 1, now).unwrap().is_some());
    moved(&mut policy, b"alice", at(11_000), now);
    for qos in 0..=2 {
        assert_eq!(set(&mut policy, ALICE, b"alice", qos, now), Err(Handling::Refuse));
    }
    // Back here it is served again.
    policy.disconnect(ALICE, now);
    connect(&mut policy, ALICE, b"alice", now);
    assert!(set(&mut policy, ALICE, b"alice", 1, now).unwrap().is_some());
}

#[test]
fn clients_that_have_not_moved_publish_as_ever_when_peers_have_answered() {
    let mut policy = steady(Ordinary::Allow);
    let first = elsewhere(&mut policy, 1, at(10_010), at(10_020));
    let late = set(&mut policy, ALICE, b"alice", 1, at(13_000)).unwrap().unwrap();
    assert!(late.time > first.time && late.time < Hlc::at_ms(at(10_100).wall_ms));
    // Who has come since is not concerned.
    connect(&mut policy, BOB, b"bob", at(13_000));
    let bob = set(&mut policy, BOB, b"bob", 1, at(13_000)).unwrap().unwrap();
    assert!(bob.time >= Hlc::at_ms(at(13_000).wall_ms));
    assert_eq!(asked(&mut policy, at(13_010), false), [0, 1]);
    assert_eq!(set(&mut policy, ALICE, b"alice", 1, at(13_020)), Ok(None));
    let again = asked(&mut policy, at(13_020), true);
    assert!(again.is_empty(), "they were asked already");
    assert_eq!(asked(&mut policy, at(13_260), true), [0, 1]);
    assert!(asked(&mut policy, at(13_270), true).is_empty());
    let now = set(&mut policy, ALICE, b"alice", 1, at(13_280)).unwrap().unwrap();
    assert!(now.time > bob.time);
    // Without an answer it takes five seconds.
    let mut policy = steady(Ordinary::Allow);
    for ms in (13_000..18_000).step_by(100) {
        asked(&mut policy, at(ms), false);
        let time = set(&mut policy, ALICE, b"alice", 1, at(ms))
            .unwrap()
            .unwrap()
            .time;
        assert!(time < Hlc::at_ms(at(10_100).wall_ms));
    }
    asked(&mut policy, at(18_000), false);
    let time = set(&mut policy, ALICE, b"alice", 1, at(18_000))
        .unwrap()
        .unwrap()
        .time;
    assert!(time >= Hlc::at_ms(at(18_000).wall_ms));
}

#[test]
fn a_peer_that_stood_still_is_answered_behind_what_is_known() {
    let mut policy = steady(Ordinary::Allow);
    connect(&mut policy, BOB, b"bob", at(10_050));
    let topic = parse_internal(b"$mesh/presence/b3").unwrap();
    policy.told(1, &topic, &Word::Ask(9).encode(), at(10_050));
    assert!(
        policy.is_waiting(),
        "the answer does not wait for the next millisecond"
    );
    let said = policy.announcements();
    assert_eq!(said.len(), 3, "bob to both, then the answer to one");
    assert_eq!(said[2], (1, Word::Answer(9).encode()));
    assert!(policy.announcements().is_empty());
}

/// A READ check of a message of QoS 2, as the hooks tell it.
fn release(policy: &mut Policy) -> Verdict {
    let shown = Shown {
        topic: CONTENT.topic,
        length: CONTENT.payload.len(),
        retain: true,
    };
    policy.delivers(TO_B2, || false);
    policy.released(T1, &shown);
    policy.read(TO_B2, || LINK, T1, 2)
}

#[test]
fn what_was_to_be_released_before_a_standstill_does_not_win_after_it() {
    let mut policy = steady(Ordinary::Allow);
    let old = set(&mut policy, ALICE, b"alice", 2, at(10_050)).unwrap().unwrap();
    let new = elsewhere(&mut policy, 1, at(11_000), at(13_000));
    let digest = policy.retained().status().digest;
    // The PUBREL lay in the socket.
    assert_eq!(release(&mut policy), Verdict::Refuse);
    assert_eq!(routed(&mut policy, T1, 2), [false; 4], "nobody is shown it");
    // Behind it lay another one, of which the broker tells nothing either.
    assert_eq!(routed(&mut policy, T2, 2), TO_ALL);
    let stored = policy.retained().status().digest;
    assert_ne!(stored, digest, "the broker has stored it, and this is known");
    assert!(!is_newest(&policy, &old), "something later was shown");
    assert_eq!(policy.counts().next().unwrap().backlog, 0, "no peer needs it");
    // Nothing in between is taken for new, from here or from elsewhere.
    assert_eq!(set_at(&mut policy, T2, ALICE, b"alice", 1, at(13_005)), Ok(None));
    // What the broker has stored now is replaced by what it is told again. Who was there has seen that; bob comes
    // when something older is stored.
    policy.subscribe(BOB, None, b"a/#");
    arrive(&mut policy, T1, 1);
    assert_eq!(elsewhere(&mut policy, 2, at(11_000), at(13_010)).time, new.time);
    assert_eq!(routed(&mut policy, T1, 1), [false, false, false, true]);
    assert_eq!(policy.retained().status().digest, digest);
    assert_eq!(policy.retained().status().count, 1);
    // What comes next is new to everybody.
    arrive(&mut policy, T1, 1);
    elsewhere(&mut policy, 3, at(13_020), at(13_020));
    assert_eq!(routed(&mut policy, T1, 1), NOT_TO_LINKS);
}

#[test]
fn a_deletion_is_told_again_to_who_came_when_something_older_was_stored() {
    let mut policy = steady(Ordinary::Allow);
    let login = login(&mut policy, READER, "mesh.read.b1", LINK, LINK_PASSWORD);
    assert_eq!(login, Admission::Mesh);
    set(&mut policy, ALICE, b"alice", 2, at(10_050)).unwrap();
    let empty = Content {
        payload: b"",
        ..CONTENT
    };
    let cleared = stamp_of("b2", 1, at(11_000));
    policy.arrive(Some(0), Some((cleared, at(13_000))), &empty);
    assert_eq!(release(&mut policy), Verdict::Refuse);
    policy.subscribe(BOB, None, b"a/#");
    let removal = Publish {
        topic: "a/b",
        payload: b"",
        qos: 0,
        retain: true,
        properties: Vec::new(),
    };
    policy.publish_own(&removal, Purpose::Removal { shown: true });
    policy.next_batch(0).unwrap();
    assert_eq!(comes_in(&mut policy, &removal), Handling::Pass);
    assert_eq!(routed(&mut policy, T1, 0), [false, false, false, true]);
    assert!(!policy.retained().is_set_back());
}

#[test]
fn of_one_client_what_is_published_after_a_release_is_later_than_it() {
    for ends in [false, true] {
        let mut policy = steady(Ordinary::Allow);
        turns(&mut policy, 13_000, 13_000, true);
        set(&mut policy, ALICE, b"alice", 2, at(13_010)).unwrap();
        // It has come between, so the release counts.
        set_at(&mut policy, T2, ALICE, b"alice", 1, at(13_020)).unwrap();
        if ends {
            asked(&mut policy, at(13_250), true);
            asked(&mut policy, at(13_260), true);
        }
        assert_eq!(release(&mut policy), Verdict::Refuse, "it comes from the log");
        let last = set_at(&mut policy, T2, ALICE, b"alice", 1, at(13_270)).unwrap();
        assert!(last.is_some_and(|last| is_newest(&policy, &last)));
        assert_eq!(policy.counts().next().unwrap().backlog, 3);
    }
}
