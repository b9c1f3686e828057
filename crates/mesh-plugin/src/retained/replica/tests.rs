//! Brokers that lose messages, are cut off, and come back with old databases or none hold the same in the end.

use mesh::{Mesh, START, STEP, Store, TTL};

use super::*;
use crate::retained::Version;

mod mesh;

#[test]
fn replicas_converge_whatever_happens() {
    for seed in 0..60 {
        let mut mesh = Mesh::new(seed, 2 + seed as usize % 4);
        let brokers = mesh.brokers.len();
        mesh.run(Duration::from_secs(1));
        let mut images = vec![(Store::new(), BTreeMap::new()); brokers];
        for _ in 0..12 {
            mesh.traffic(30);
            let at = mesh.random.usize(1..brokers);
            let other = mesh.random.usize(..at);
            match mesh.random.u8(..8) {
                0 => mesh.cut(at, other, false),
                1 => mesh.isolate(at, false),
                2 => mesh.isolate(at, true),
                3 => images[at] = (mesh.brokers[at].store.clone(), mesh.brokers[at].kept.clone()),
                4 => mesh.restart(at, images[at].0.clone(), mesh.brokers[at].kept.clone(), false),
                5 => mesh.restart(at, Store::new(), BTreeMap::new(), false),
                6 => mesh.restart(at, mesh.brokers[at].store.clone(), BTreeMap::new(), false),
                _ => mesh.loss = 0.05,
            }
        }
        mesh.loss = 0.0;
        for at in 0..brokers {
            mesh.isolate(at, true);
        }
        let before = mesh.said;
        mesh.settle(Duration::from_secs(150), &format!("seed {seed}"));
        let said = mesh.said - before;
        assert!(
            said < 60 * brokers * brokers,
            "seed {seed}: {said} messages for 40 topics"
        );
    }
}

#[test]
fn what_was_deleted_stays_deleted_and_what_nobody_knows_comes_back() {
    let mut mesh = Mesh::new(1, 3);
    mesh.run(Duration::from_secs(1));
    for n in 0..1000 {
        mesh.publish(n % 3, &format!("t/{n}"), false, None);
    }
    mesh.run(Duration::from_secs(1));
    let old = mesh.brokers[2].store.clone();
    mesh.isolate(2, false);
    for n in 0..500 {
        mesh.publish(0, &format!("t/{n}"), n % 2 == 0, None);
    }
    mesh.run(Duration::from_secs(1));
    mesh.restart(2, old, BTreeMap::new(), false);
    assert!(!mesh.brokers[2].replica.status().in_sync);
    mesh.settle(Duration::from_secs(10), "old database");
    assert_eq!(mesh.shown(0).len(), 750);
    mesh.restart(2, Store::new(), BTreeMap::new(), false);
    mesh.settle(Duration::from_secs(20), "no database");
    assert_eq!(mesh.shown(2).len(), 750);
    assert!(
        mesh.events
            .iter()
            .any(|(at, event)| *at == 2 && matches!(event, Event::InSync(_)))
    );
}

#[test]
fn nothing_is_said_while_nothing_differs() {
    let mut mesh = Mesh::new(2, 5);
    mesh.traffic(200);
    mesh.settle(Duration::from_secs(30), "start");
    mesh.run(Duration::from_secs(40));
    let before = mesh.said;
    mesh.run(Duration::from_secs(300));
    assert_eq!(mesh.said, before);
}

#[test]
fn an_expiry_that_only_one_broker_learns_of_is_learnt_by_all() {
    let mut mesh = Mesh::new(3, 3);
    mesh.run(Duration::from_secs(1));
    let expires = Some(mesh.now.wall + 10);
    mesh.publish(0, "expires", false, expires);
    mesh.publish(0, "stays", false, None);
    mesh.settle(Duration::from_secs(5), "published");
    assert_eq!(mesh.brokers[1].replica.status().count, 2);
    mesh.run(Duration::from_secs(15));
    mesh.settle(Duration::from_secs(10), "expired");
    assert_eq!(mesh.brokers[1].replica.status().count, 1);
    // A broker that comes back with a database from before does not show it again.
    let mut old = mesh.brokers[0].store.clone();
    old.insert("expires".to_owned(), (Version { hlc: 2, tie: 0 }, None));
    mesh.restart(1, old, BTreeMap::new(), false);
    mesh.settle(Duration::from_secs(20), "old database");
    assert_eq!(mesh.shown(0).into_keys().collect::<Vec<_>>(), ["stays"]);
}

#[test]
fn what_is_still_to_be_stored_is_not_read_before() {
    let mut replica = Replica::new(Restored::at(START), 1, TTL, false, 1);
    let read = |replica: &mut Replica, up: u64| {
        let up = Duration::from_secs(up);
        replica.tick(Now { up, wall: START }, &[Contact::Down]);
        std::iter::from_fn(|| replica.next_action()).find(|action| matches!(action, Action::Read(..)))
    };
    let version = |hlc| Version { hlc, tie: 0 };
    // The broker has stored it with an earlier stamp than it has elsewhere.
    replica.take("t", version(5), false);
    replica.set_storing(true);
    assert_eq!(read(&mut replica, 3), None);
    replica.set_storing(false);
    let Some(Action::Read(job, topics)) = read(&mut replica, 4) else {
        panic!("it is read later");
    };
    assert_eq!(topics, ["t".into()]);
    let found = Found {
        topic: "t".into(),
        version: version(5),
        expires_in: None,
        packet: Vec::new(),
    };
    replica.found(job, found, Now::default());
    replica.read_done(job, true);
    assert_eq!(read(&mut replica, 8), None, "it is known now");
}

#[test]
fn what_may_be_stored_later_is_not_taken_for_one_that_has_expired() {
    let stamp = Stamp::parse("1 b1 1 5 5 r2").expect("it is a stamp");
    let mut replica = Replica::new(Restored::at(START), 1, TTL, false, 1);
    // All that is asked for is read, and nothing is found.
    let read = |replica: &mut Replica, up: u64| {
        let up = Duration::from_secs(up);
        replica.tick(Now { up, wall: START }, &[Contact::Down]);
        while let Some(action) = replica.next_action() {
            if let Action::Read(job, _) = action {
                replica.read_done(job, true);
            }
        }
        replica.status().count
    };
    replica.awaits(b"t", &stamp, b"x");
    replica.local(b"t", &stamp, b"x");
    assert_eq!([3, 8, 50].map(|up| read(&mut replica, up)), [1; 3]);
    // It is released in time, and expires; or too late.
    for in_time in [true, false] {
        let mut replica = Replica::new(Restored::at(START), 1, TTL, false, 1);
        replica.awaits(b"t", &stamp, b"x");
        replica.local(b"t", &stamp, b"x");
        if in_time {
            assert!(!replica.came(b"t", &stamp, b"x"));
        }
        assert_eq!(read(&mut replica, 1), u64::from(!in_time));
        assert_eq!([70, 75].map(|up| read(&mut replica, up))[1], 0);
        assert!(replica.came(b"t", &stamp, b"x"));
    }
}

#[test]
fn what_ended_elsewhere_tells_from_when_on_something_is_later() {
    let mut replica = Replica::new(Restored::at(START), 1, TTL, false, 1);
    for hlc in [7, 5] {
        replica.ended.push_back(Item {
            topic: "deleted".into(),
            mark: Mark::cleared(Version { hlc, tie: 0 }),
            expiry: Expiry::At(START),
        });
        replica.tick(
            Now {
                up: STEP,
                wall: START,
            },
            &[Contact::Up],
        );
        assert_eq!(replica.latest_ended(), 7);
    }
}

#[test]
fn what_is_stored_instead_of_something_later_is_replaced_by_that_or_by_its_end() {
    for (hlc, is_over) in [(6, false), (7, true), (8, true)] {
        let mut replica = Replica::new(Restored::at(START), 1, TTL, false, 1);
        let stamp = |hlc: u64| Stamp::parse(&format!("1 b2 1 {hlc} {hlc:x} r1")).expect("it is a stamp");
        let is_missing = |replica: &Replica, hlc: u64| replica.is_missing(b"t", &stamp(hlc), b"x");
        assert!(replica.offer(b"t", &stamp(7), b"x") && !is_missing(&replica, 7));
        replica.stored_older(b"t", &stamp(5), b"x");
        assert!(is_missing(&replica, 7) && !is_missing(&replica, 6) && !is_missing(&replica, 8));
        assert!(!replica.is_missing(b"u", &stamp(7), b"x"));
        // A peer tells that something has ended: what is missing, or something else.
        let tie = Version::of(&stamp(hlc), b"x").tie;
        replica.ended.push_back(Item {
            topic: "t".into(),
            mark: Mark::gone(Version { hlc, tie }),
            expiry: Expiry::At(START),
        });
        replica.tick(Now::default(), &[Contact::Up]);
        assert_eq!(replica.is_set_back(), !is_over, "{hlc}");
        assert_eq!(replica.offer(b"t", &stamp(7), b"x"), !is_over, "{hlc}");
        assert!(!replica.is_set_back());
    }
}

#[test]
fn what_is_missing_stays_so_while_more_that_is_older_comes_and_is_removed() {
    let stamp = |hlc: u64| Stamp::parse(&format!("1 b2 1 {hlc} {hlc:x} r1")).expect("it is a stamp");
    let mut replica = Replica::new(Restored::at(START), 1, TTL, false, 1);
    replica.offer(b"t", &stamp(9), b"x");
    replica.stored_older(b"t", &stamp(5), b"");
    replica.stored_older(b"t", &stamp(6), b"x");
    assert!(replica.removed(b"t"), "it is older than what was shown");
    assert!(!replica.is_newest(b"t", &stamp(8)) && replica.is_missing(b"t", &stamp(9), b"x"));
    assert!(replica.offer(b"t", &stamp(9), b"x"));
    // What was shown is a deletion: when that has been carried out again, nothing is missing.
    replica.offer(b"t", &stamp(10), b"");
    replica.stored_older(b"t", &stamp(7), b"x");
    assert!(replica.removed(b"t") && !replica.is_set_back());
    assert!(!replica.removed(b"t"));
}

#[test]
fn what_expires_is_counted_no_more_within_a_second_or_two() {
    let mut mesh = Mesh::new(6, 3);
    mesh.run(Duration::from_secs(5));
    let expires = mesh.now.wall + 4;
    // The digests of values that are on their way differ, and somebody may ask; from then on nobody needs to.
    for n in 0..900 {
        mesh.publish(n % 3, &format!("expires/{n}"), false, Some(expires));
        mesh.publish(n % 3, &format!("stays/{}", n / 100), false, None);
    }
    mesh.run(Duration::from_secs(3));
    let counts = |mesh: &Mesh| {
        mesh.brokers
            .iter()
            .map(|broker| broker.replica.status().count)
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(&mesh), [909; 3]);
    let before = mesh.said;
    mesh.run(Duration::from_millis(2_500));
    assert_eq!(counts(&mesh), [9; 3]);
    assert_eq!(mesh.said, before, "each knew it by itself");
    mesh.settle(Duration::from_secs(1), "expired");
}

#[test]
fn who_was_away_for_long_takes_a_copy() {
    let mut mesh = Mesh::new(4, 3);
    mesh.run(Duration::from_secs(1));
    mesh.publish(0, "kept", false, None);
    mesh.publish(0, "deleted", false, None);
    mesh.run(Duration::from_secs(1));
    let old = mesh.brokers[2].store.clone();
    mesh.isolate(2, false);
    mesh.publish(0, "deleted", true, None);
    // The deletion is forgotten by everyone.
    mesh.run(Duration::from_secs(u64::from(TTL) + 120));
    assert_eq!(mesh.brokers[0].replica.ended(), 0);
    mesh.restart(2, old, BTreeMap::new(), true);
    mesh.settle(Duration::from_secs(20), "copy");
    assert_eq!(mesh.shown(2).into_keys().collect::<Vec<_>>(), ["kept"]);
    assert!(mesh.events.contains(&(2, Event::Dropped(1))));
}

#[test]
fn if_everybody_was_away_for_long_nothing_is_dropped() {
    let mut mesh = Mesh::new(5, 3);
    let stores: Vec<Store> = (0..3)
        .map(|at| {
            let own = [(format!("only/{at}"), (Version { hlc: 5, tie: at }, None))];
            let both = [("same".to_owned(), (Version { hlc: 6 + at, tie: at }, None))];
            own.into_iter().chain(both).collect()
        })
        .collect();
    for (at, store) in stores.into_iter().enumerate() {
        mesh.restart(at, store, BTreeMap::new(), true);
    }
    mesh.settle(Duration::from_secs(60), "everybody was away");
    assert_eq!(mesh.shown(0).len(), 4);
    assert_eq!(mesh.shown(0)["same"], Version { hlc: 8, tie: 2 });
}

#[test]
fn who_is_alone_serves_and_who_meets_somebody_again_compares_first() {
    let mut mesh = Mesh::new(6, 2);
    mesh.isolate(1, false);
    mesh.run(Duration::from_secs(4));
    assert!(!mesh.brokers[0].replica.status().in_sync);
    mesh.run(Duration::from_secs(2));
    assert!(mesh.brokers[0].replica.status().in_sync);
    mesh.publish(0, "a", false, None);
    mesh.publish(1, "b", false, None);
    mesh.isolate(1, true);
    mesh.step();
    assert!(!mesh.brokers[0].replica.status().in_sync);
    mesh.settle(Duration::from_secs(5), "met");
    assert_eq!(mesh.shown(0).len(), 2);
}

#[test]
fn the_index_follows_the_store() {
    let mut mesh = Mesh::new(7, 2);
    mesh.run(Duration::from_secs(1));
    mesh.publish(0, "t", false, None);
    mesh.run(Duration::from_secs(1));
    // Published, and then refused by a plugin behind ours.
    let version = Version { hlc: 99, tie: 0 };
    mesh.brokers[0].replica.take("t", version, false);
    mesh.settle(Duration::from_secs(20), "refused");
    assert_eq!(mesh.indexed(0)["t"], Version { hlc: 2, tie: 0 });
}
