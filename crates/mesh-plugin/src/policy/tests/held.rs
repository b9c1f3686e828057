//! Messages of QoS 2 that enter the mesh here: stamped when they are published, in the log when they are released.

use super::*;
use crate::retained::replica::Action;

/// A READ check of a message of QoS 2, as the hooks tell it: who of both links gets it from the broker.
fn released(policy: &mut Policy, topic: TopicKey, length: usize) -> [bool; 2] {
    [TO_B2, TO_B3].map(|client| {
        let shown = Shown {
            topic: CONTENT.topic,
            length,
            retain: false,
        };
        policy.delivers(client, || false);
        policy.released(topic, &shown);
        policy.read(client, || LINK, topic, 2) == Verdict::Accept
    })
}

/// What is sent to links from the log now, by the sequence number and the last stamp in its properties.
fn sent(policy: &mut Policy) -> Vec<(usize, u64)> {
    let mut sent = Vec::new();
    while let Some((peer, entry)) = policy.replication().next_send() {
        sent.push((peer, entry.stamp.seq));
    }
    sent
}

fn backlog(policy: &Policy) -> u64 {
    policy.counts().next().unwrap().backlog
}

fn tick(policy: &mut Policy, up_ms: u64) {
    policy.tick(Now { up_ms, ..NOW }, |_| Some(2));
}

#[test]
fn it_is_kept_from_its_release_on() {
    let mut policy = linked();
    publish(&mut policy, ALICE, T1, 2);
    assert_eq!(backlog(&policy), 0);
    publish(&mut policy, ALICE, T2, 1);
    assert_eq!(routed(&mut policy, T2, 1), TO_ALL);
    assert_eq!(backlog(&policy), 1);
    assert_eq!(released(&mut policy, T1, 1), [true, true]);
    assert_eq!(backlog(&policy), 2);
    assert_eq!(
        released(&mut policy, T1, 1),
        [true, true],
        "asked again it is the same"
    );
    assert_eq!(backlog(&policy), 2);
}

#[test]
fn a_link_that_is_not_live_gets_it_from_the_log() {
    let mut policy = linked();
    publish(&mut policy, ALICE, T1, 2);
    policy.subscribe(TO_B2, LINK, b"#");
    assert_eq!(
        released(&mut policy, T1, 1),
        [false, true],
        "to who subscribes it looks like what is stored, to the other one it does not"
    );
    tick(&mut policy, 10);
    assert_eq!(sent(&mut policy), [(0, 1)]);
}

#[test]
fn another_message_in_its_place_is_not_it() {
    let mut policy = linked();
    publish(&mut policy, ALICE, T1, 2);
    assert_eq!(released(&mut policy, T1, 77), [true, true], "the broker's own");
    assert_eq!(backlog(&policy), 0);
    // The place is given to another publish, so the first one is gone for ever.
    publish(&mut policy, ALICE, T1, 1);
    assert_eq!(routed(&mut policy, T1, 1), TO_ALL);
    assert_eq!(backlog(&policy), 1);
    let report = policy.replication().report(0, NOW);
    assert!(report.contains("\nvoid 1\n"), "{report}");
}

#[test]
fn one_that_waits_for_too_long_gives_up_its_number_and_goes_with_another() {
    let mut policy = linked();
    publish(&mut policy, ALICE, T1, 2);
    tick(&mut policy, 30_000);
    assert!(!policy.replication().report(0, NOW).contains("void"));
    tick(&mut policy, 70_000);
    assert!(policy.replication().report(0, NOW).contains("\nvoid 1\n"));
    assert_eq!(released(&mut policy, T1, 1), [false, false]);
    assert_eq!(sent(&mut policy), [(0, 2), (1, 2)]);
    assert!(policy.to_store.is_empty(), "it is not retained");
}

#[test]
fn without_links_it_may_be_released_unseen_and_goes_to_the_first_that_comes() {
    let mut policy = new(options(Ordinary::Allow, Ordinary::Allow));
    publish(&mut policy, ALICE, T1, 2);
    login(&mut policy, TO_B2, "mesh.link.b1.b2", LINK, LINK_PASSWORD);
    policy.subscribe(TO_B2, LINK, b"#");
    tick(&mut policy, 10);
    assert_eq!(sent(&mut policy), [(0, 1)]);
    tick(&mut policy, 20);
    // If it was not released before, it goes a second time, which the peer sees by its number.
    let shown = Shown {
        topic: CONTENT.topic,
        length: 1,
        retain: false,
    };
    policy.released(T1, &shown);
    assert_eq!(policy.read(TO_B2, || LINK, T1, 2), Verdict::Accept);
    assert_eq!(backlog(&policy), 1);
}

#[test]
fn without_links_one_whose_place_is_used_again_may_have_been_released_too() {
    let mut policy = new(options(Ordinary::Allow, Ordinary::Allow));
    publish(&mut policy, ALICE, T1, 2);
    // Its PUBREL raises nothing where nobody has subscribed, and its memory is given to the next one.
    publish(&mut policy, ALICE, T1, 2);
    login(&mut policy, TO_B2, "mesh.link.b1.b2", LINK, LINK_PASSWORD);
    policy.subscribe(TO_B2, LINK, b"#");
    tick(&mut policy, 10);
    assert_eq!(sent(&mut policy), [(0, 1), (0, 2)]);
}

#[test]
fn a_retained_one_that_is_released_when_it_was_given_up_goes_and_is_stored_with_another_number() {
    for given_up in [false, true] {
        let mut policy = new(options(Ordinary::Allow, Ordinary::Allow));
        let stamp = policy.replication().stamp(true, 2, NOW);
        policy.publish(T1, stamp.clone(), &CONTENT, NOW);
        login(&mut policy, TO_B2, "mesh.link.b1.b2", LINK, LINK_PASSWORD);
        policy.subscribe(TO_B2, LINK, b"#");
        // It goes to the link, and is looked for in the store.
        for up_ms in [10, 20, 3_000, if given_up { 70_000 } else { 4_000 }] {
            tick(&mut policy, up_ms);
            while let Some(action) = policy.retained().next_action() {
                if let Action::Read(job, _) = action {
                    policy.retained().read_done(job, true);
                }
            }
        }
        assert_eq!(sent(&mut policy), [(0, 1)]);
        assert_eq!(policy.retained().status().count, u64::from(!given_up));
        let shown = Shown {
            topic: CONTENT.topic,
            length: CONTENT.payload.len(),
            retain: true,
        };
        policy.released(T1, &shown);
        assert_eq!(policy.retained().status().count, 1);
        assert_eq!(policy.to_store.len(), usize::from(given_up));
        assert_eq!(policy.retained.is_newest(CONTENT.topic, &stamp), !given_up);
    }
}
