//! Clients that die, and clients that were gone before.

use super::*;
use crate::presence::Presence;
use crate::stamp::Hlc;

pub(super) fn at(up_ms: u64) -> Now {
    Now {
        up_ms,
        wall_ms: NOW.wall_ms + up_ms,
    }
}

/// A broker that has been steady for a while, where alice is connected. Its peers tell that they are there.
pub(super) fn steady(acl: Ordinary) -> Policy {
    let mut policy = new(options(Ordinary::Allow, acl));
    for (key, id) in [(TO_B2, "mesh.link.b1.b2"), (TO_B3, "mesh.link.b1.b3")] {
        login(&mut policy, key, id, LINK, LINK_PASSWORD);
        policy.subscribe(key, LINK, b"#");
    }
    assert_eq!(login(&mut policy, ALICE, "alice", None, b""), Admission::Accept);
    turns(&mut policy, 0, 10_000, true);
    policy
}

pub(super) fn turns(policy: &mut Policy, from_ms: u64, to_ms: u64, heard: bool) {
    for up_ms in (from_ms..=to_ms).step_by(100) {
        if heard {
            for (peer, from) in [(0, "b2"), (1, "b3")] {
                let topic = format!("$mesh/seen/{from}");
                let topic = parse_internal(topic.as_bytes()).unwrap();
                policy.told(peer, &topic, b"1 1 1", at(up_ms));
            }
        }
        policy.tick(at(up_ms), |_| Some(2));
        policy.announcements();
        assert_eq!(policy.execute_wills(at(up_ms)), 0);
        assert_eq!(policy.next_batch(up_ms), None);
    }
}

/// As the broker tells of a will: the end of the connection, then the question, then (if it is routed) who gets it.
fn die(policy: &mut Policy, now: Now) -> Fate {
    policy.disconnect(ALICE, now);
    assert_ne!(policy.write(ALICE, None, true, b"a/b"), Verdict::Refuse);
    if policy.may_withhold() {
        policy.fate(ALICE, b"alice", (1, true), &CONTENT, now)
    } else {
        Fate::Pass
    }
}

fn links(policy: &mut Policy, now: Now) -> Vec<(usize, Stamp)> {
    for client in [BOB, TO_B2, TO_B3] {
        let user = if client == BOB { None } else { LINK };
        if policy.awaits_will() {
            policy.will_routed((client, user), T1, (1, true), &CONTENT, now);
        }
        let expected = if client == BOB {
            Verdict::Accept
        } else {
            Verdict::Refuse
        };
        assert_eq!(policy.read(client, || user, T1, 1), expected);
    }
    let mut sent = Vec::new();
    while let Some((peer, entry)) = policy.replication().next_send() {
        sent.push((peer, entry.stamp.clone()));
    }
    sent
}

/// bob connects to b2, and b2 tells.
pub(super) fn moved(policy: &mut Policy, id: &[u8], now: Now) {
    let mut there = Presence::default();
    there.login(BOB, id, || Hlc::at_ms(now.wall_ms));
    let topic = parse_internal(b"$mesh/presence/b2").unwrap();
    for message in there.turn() {
        policy.told(0, &topic, &message, now);
    }
}

#[test]
fn the_will_of_a_client_that_dies_goes_to_links_with_a_stamp() {
    let mut policy = steady(Ordinary::Allow);
    assert_eq!(die(&mut policy, at(10_050)), Fate::Pass);
    let sent = links(&mut policy, at(10_050));
    let peers: Vec<usize> = sent.iter().map(|(peer, _)| *peer).collect();
    assert_eq!(peers, [0, 1]);
    assert!(sent.iter().all(|(_, stamp)| stamp.retain && stamp.qos == 1));
    assert_eq!(sent[0].1, sent[1].1);
    // The broker stores it with that stamp.
    assert_eq!(policy.to_store.len(), 1);
    assert_eq!(policy.to_store[0].stamp, sent[0].1);
    // It was one message.
    assert_eq!(policy.counts().next().unwrap().backlog, 1);
    publish(&mut policy, BOB, T1, 1);
    assert_eq!(routed(&mut policy, T1, 1), TO_ALL);
}

#[test]
fn after_a_standstill_wills_wait() {
    let mut policy = steady(Ordinary::Allow);
    assert_eq!(die(&mut policy, at(12_000)), Fate::Hold);
    turns(&mut policy, 12_000, 14_900, true);
    policy.tick(at(15_000), |_| Some(2));
    assert_eq!(policy.execute_wills(at(15_000)), 0);
    let batch = policy.next_batch(15_000).unwrap();
    let wills = crate::salvage::parse(&batch);
    let wills: Vec<_> = wills
        .iter()
        .map(|will| (will.topic.as_bytes(), will.payload))
        .collect();
    assert_eq!(wills, [(CONTENT.topic, CONTENT.payload)]);
}

#[test]
fn the_will_of_a_client_that_has_moved_is_dropped_at_once_by_a_steady_broker_too() {
    let mut policy = steady(Ordinary::Allow);
    moved(&mut policy, b"alice", at(10_020));
    assert_eq!(die(&mut policy, at(10_050)), Fate::Drop);
}

#[test]
fn a_broker_that_hears_of_nobody_holds_wills() {
    let mut policy = steady(Ordinary::Allow);
    turns(&mut policy, 10_100, 13_000, false);
    assert_eq!(die(&mut policy, at(13_050)), Fate::Hold);
    turns(&mut policy, 13_100, 30_000, false);
}

#[test]
fn who_publishes_while_connected_has_no_will() {
    let mut policy = steady(Ordinary::Allow);
    turns(&mut policy, 10_100, 13_000, false);
    assert_eq!(policy.write(ALICE, None, true, b"a/b"), Verdict::Accept);
    assert!(policy.may_withhold());
    assert_eq!(
        policy.fate(ALICE, b"alice", (1, true), &CONTENT, at(13_050)),
        Fate::Pass
    );
}

#[test]
fn only_a_will_that_its_client_may_publish_is_published_later() {
    for allowed in [false, true] {
        let mut policy = steady(Ordinary::Defer);
        if allowed {
            assert_eq!(policy.write(ALICE, None, true, b"a/b"), Verdict::Defer);
            message(&mut policy, ALICE, None, b"alice", true, T1, 1);
        }
        assert_eq!(die(&mut policy, at(12_000)), Fate::Hold);
        turns(&mut policy, 12_000, 14_900, true);
        policy.tick(at(15_000), |_| Some(2));
        assert_eq!(policy.execute_wills(at(15_000)), usize::from(!allowed));
        assert_eq!(policy.next_batch(15_000).is_some(), allowed);
    }
}

#[test]
fn a_session_that_its_client_has_left_is_ended() {
    let mut policy = steady(Ordinary::Allow);
    moved(&mut policy, b"bob", at(10_020));
    assert!(policy.outdated_clients().is_empty());
    moved(&mut policy, b"alice", at(10_020));
    assert_eq!(policy.outdated_clients(), [b"alice".as_slice().into()]);
    // A clock that is years ahead is not believed.
    let mut policy = steady(Ordinary::Allow);
    let mad = Now {
        wall_ms: NOW.wall_ms * 2,
        ..at(10_020)
    };
    let mut there = Presence::default();
    there.login(BOB, b"alice", || Hlc::at_ms(mad.wall_ms));
    let topic = parse_internal(b"$mesh/presence/b2").unwrap();
    policy.told(0, &topic, &there.turn()[0], at(10_020));
    assert!(policy.outdated_clients().is_empty());
}

#[test]
fn a_peer_speaks_for_itself_only() {
    let mut policy = steady(Ordinary::Allow);
    let mut there = Presence::default();
    there.login(BOB, b"alice", || Hlc::at_ms(NOW.wall_ms + 20_000));
    let topic = parse_internal(b"$mesh/presence/b3").unwrap();
    policy.told(0, &topic, &there.turn()[0], at(10_020));
    assert!(policy.outdated_clients().is_empty());
}
