//! Bridges that connect and break.

use super::*;

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
