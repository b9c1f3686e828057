//! How it is noticed that somebody else answers in our place, and what does not mean that.

use super::*;

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
