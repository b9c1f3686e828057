//! Who may log in, publish, subscribe and receive.

use super::super::sessions::same_secret;
use super::*;

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
