//! Who receives a message: by where it comes from, and what happens in between.

use super::*;

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
