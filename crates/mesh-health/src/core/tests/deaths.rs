//! Deaths: what is one, what follows, and how a broker comes back.

use super::*;

#[test]
fn a_killed_primary_is_left_at_once_for_the_first_backup() {
    let mut history = History::healthy(3);
    history.refuse(1);
    assert_eq!(
        history.did(),
        [
            "broker.dead b1",
            "failover.started b1 b2",
            "install gen=1 primary=b2 standbys=b3,b1"
        ]
    );
    assert_eq!(history.state(), MeshState::FailingOver);
    history.confirm(1);
    assert_eq!(
        history.did(),
        ["failover.switched b1 b2", "failover.completed b1 b2"]
    );
    assert_eq!(history.state(), MeshState::Ok);
}

#[test]
fn a_hung_primary_is_suspect_first_and_left_at_the_deadline() {
    let mut history = History::healthy(3);
    history.answering[1] = false;
    history.run(900);
    assert_eq!(history.did(), ["broker.suspect b1"]);
    history.run(120);
    assert_eq!(history.did()[..2], ["broker.dead b1", "failover.started b1 b2"]);
    let reason = history.core.view(history.now).brokers[0]
        .reason
        .unwrap()
        .to_owned();
    assert!(reason.starts_with("no answer for 10"), "{reason}");
}

#[test]
fn a_slow_answer_has_no_consequence() {
    let mut history = History::healthy(2);
    for _ in 0..3 {
        history.answering[1] = false;
        history.run(700);
        history.answering[1] = true;
        history.run(500);
    }
    let expected = ["broker.suspect b1", "broker.healthy b1"];
    assert_eq!(history.did(), expected.repeat(3));
}

#[test]
fn a_closed_session_means_nothing_until_a_fresh_connection_was_refused() {
    let mut history = History::healthy(2);
    for _ in 0..5 {
        history.sign(1, Sign::SessionEnded);
        history.run(200);
    }
    assert_eq!(history.did(), [""; 0]);
}

#[test]
fn silence_while_the_daemon_itself_was_asleep_proves_nothing() {
    let mut history = History::healthy(2);
    history.now = history.now + Duration::from_secs(5);
    history.input(Input::Lagged(Duration::from_secs(5)));
    history.core.handle_timeout(history.now);
    history.run(200);
    assert_eq!(history.did(), [""; 0]);
    // But silence that lasts still counts.
    history.answering[1] = false;
    history.run(1300);
    assert!(history.did().contains(&"failover.started b1 b2".to_owned()));
}

#[test]
fn a_returning_broker_owes_time_twice_as_much_for_each_death() {
    let mut history = History::healthy(2);
    for seconds in [10, 20, 40] {
        history.refuse(2);
        history.run(1000);
        history.answering[2] = true;
        history.run(seconds * 1000 - 400);
        assert_eq!(history.health(2), HealthStatus::Recovering, "{seconds}");
        history.run(800);
        assert_eq!(history.health(2), HealthStatus::Healthy, "{seconds}");
    }
    // A dead standby is no reason to touch Nginx.
    assert!(history.did().iter().all(|done| done.starts_with("broker.")));
}

#[test]
fn a_returned_primary_becomes_a_standby_and_nothing_is_reloaded() {
    let mut history = History::healthy(2);
    history.refuse(1);
    history.confirm(1);
    history.did();
    history.answering[1] = true;
    history.run(60_000);
    assert_eq!(history.did(), ["broker.recovering b1", "broker.healthy b1"]);
    assert_eq!(history.core.view(history.now).wanted.primary, id(2));
}

#[test]
fn where_all_are_dead_nothing_is_touched_and_the_first_that_returns_serves() {
    let mut history = History::healthy(2);
    history.answering[1] = false;
    history.answering[2] = false;
    history.run(1300);
    assert!(history.did().contains(&"failover.blocked b1".to_owned()));
    history.run(60_000);
    assert_eq!(
        (history.did(), history.state()),
        (vec![], MeshState::NoEligibleBroker)
    );
    history.answering[2] = true;
    history.run(200);
    assert_eq!(history.did(), ["broker.recovering b2"]);
    // It is chosen in need, so the primary has a moment to return as well.
    history.run(300);
    let expected = ["failover.started b1 b2", "install gen=1 primary=b2 standbys=b1"];
    assert_eq!(history.did(), expected);
    history.confirm(1);
    assert_eq!(history.state(), MeshState::Degraded);
    history.run(11_000);
    assert_eq!(history.state(), MeshState::Ok);
    assert!(history.did().contains(&"failover.completed b1 b2".to_owned()));
}

/// Nginx avoids a primary that refused a connection for an hour, whatever happens then; only a reload ends that.
#[test]
fn a_primary_that_died_alone_and_returns_is_given_a_new_generation() {
    let mut history = History::healthy(2);
    history.refuse(2);
    history.refuse(1);
    history.did();
    history.answering[1] = true;
    history.run(200);
    assert_eq!(
        history.did(),
        ["broker.recovering b1", "install gen=1 primary=b1 standbys=b2"]
    );
    history.confirm(1);
    history.run(60_000);
    assert_eq!(history.did(), ["broker.healthy b1"]);
}
