//! Messages that come over links, and their stamps.

use super::*;
use crate::stamp::Hlc;

fn stamp(text: &str) -> Option<(Stamp, Now)> {
    let stamp = Stamp::parse(text);
    assert!(stamp.is_some(), "{text}");
    stamp.map(|stamp| (stamp, NOW))
}

/// A stamp of the time at which tests happen.
fn of(origin: &str, epoch: u64, seq: u64) -> Option<(Stamp, Now)> {
    let time = Hlc::at_ms(NOW.wall_ms).0;
    stamp(&format!("1 {origin} {epoch:x} {seq:x} {time:x} 1"))
}

#[test]
fn what_comes_a_second_time_is_dropped_whoever_brings_it() {
    let mut policy = linked();
    assert_eq!(
        policy.arrive(Some(0), of("b2", 1, 1), &CONTENT),
        Arrival::New(Some(false))
    );
    for peer in [0, 1] {
        assert_eq!(
            policy.arrive(Some(peer), of("b2", 1, 1), &CONTENT),
            Arrival::Duplicate
        );
    }
    // Another number, another boot, another broker.
    for (epoch, seq, origin) in [(1, 2, "b2"), (2, 1, "b2"), (1, 1, "b3"), (1, 1, "b4")] {
        let arrival = policy.arrive(Some(0), of(origin, epoch, seq), &CONTENT);
        assert_eq!(arrival, Arrival::New(Some(false)), "{origin} {epoch} {seq}");
    }
    let counts: Vec<LinkCounts> = policy.counts().collect();
    assert_eq!((counts[0].received, counts[0].duplicates_dropped), (6, 1));
    assert_eq!((counts[1].received, counts[1].duplicates_dropped), (1, 1));
}

#[test]
fn what_has_no_stamp_or_none_that_is_believed_passes() {
    let mut policy = linked();
    let far = Hlc::at_ms(NOW.wall_ms * 2).0;
    let absurd = stamp(&format!("1 b2 1 1 {far:x} 1"));
    for _ in 0..2 {
        assert_eq!(policy.arrive(Some(0), None, &CONTENT), Arrival::New(None));
        assert_eq!(
            policy.arrive(Some(0), absurd.clone(), &CONTENT),
            Arrival::New(None)
        );
    }
    assert!(
        policy.replication().clock().last() < Hlc(far),
        "nor does the clock believe it"
    );
}

#[test]
fn own_messages_do_not_come_back() {
    let mut policy = linked();
    assert_eq!(
        policy.arrive(Some(0), of("b1", NOW.wall_ms, 1), &CONTENT),
        Arrival::Duplicate
    );
    assert_eq!(
        policy.arrive(Some(0), of("b1", 1, 1), &CONTENT),
        Arrival::Duplicate
    );
}

#[test]
fn a_clock_that_is_off_is_said_once_until_it_is_set_or_jumps() {
    let mut policy = linked();
    let topic = parse_internal(b"$mesh/seen/b2").unwrap();
    let mut report = |off_ms: i64| {
        let wall_ms = NOW.wall_ms.saturating_add_signed(off_ms);
        policy.told(0, &topic, format!("1 1 {wall_ms:x}").as_bytes(), NOW)
    };
    assert_eq!(report(50_000), None);
    assert_eq!(report(-61_000), Some(-61_000));
    assert_eq!(report(-62_000), None);
    assert_eq!(report(1_000), None);
    assert_eq!(report(3_600_000), Some(3_600_000));
    assert_eq!(report(-3_600_000), Some(-3_600_000));
    assert_eq!(report(-3_600_500), None);
}

#[test]
fn nobody_but_plugins_writes_where_plugins_talk() {
    let mut policy = linked();
    login(&mut policy, PROBE, "mesh.probe", HEALTH, HEALTH_PASSWORD);
    for topic in ["$mesh/seen/b1", "$mesh/sync/b1", "$mesh/presence/b1"] {
        assert_eq!(
            policy.write(PROBE, HEALTH, true, topic.as_bytes()),
            Verdict::Refuse,
            "{topic}"
        );
    }
}
