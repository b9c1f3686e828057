//! What the operator does, going back to the preferred broker, moving sessions, and the account of an incident.

use super::*;

/// Three healthy brokers of which the second serves, since the first died and returned.
fn returned(failback: Failback) -> History {
    let mut history = History::with_rules(3, Health { failback, ..rules() });
    history.found(Some(first_plan(3)));
    history.run(400);
    history.refuse(1);
    history.confirm(1);
    history.answering[1] = true;
    history.run(11_000);
    assert_eq!(history.health(1), HealthStatus::Healthy);
    assert_eq!(history.core.view(history.now).wanted.primary, id(2));
    history.did();
    history
}

#[test]
fn clients_go_back_when_the_operator_says_so() {
    let mut history = returned(Failback::Never);
    history.run(3_600_000);
    assert_eq!(history.did(), [""; 0]);
    let granted = history.core.request(Request::Failback, history.now);
    history.collect();
    let expected = Granted::Failback {
        from: id(2),
        to: id(1),
        generation: 2,
    };
    assert_eq!(granted, Ok(expected));
    let install = "install gen=2 primary=b1 standbys=b2,b3";
    assert_eq!(history.did(), ["failback.started b2 b1", install]);
    history.moved();
    history.confirm(2);
    assert_eq!(history.did(), ["failback.completed b2 b1"]);
    assert_eq!(history.moved(), ["all from b2"]);
    let refused = history.core.request(Request::Failback, history.now);
    assert_eq!(refused, Err(Refusal::NobodyPreferred(id(1))));
}

#[test]
fn clients_go_back_by_themselves_after_the_time_of_health() {
    let mut history = returned(Failback::After(Duration::from_secs(60)));
    history.run(55_000);
    assert_eq!(history.did(), [""; 0]);
    // Being suspect is no fault.
    history.answering[1] = false;
    history.run(600);
    history.answering[1] = true;
    history.run(5_000);
    assert!(history.did().contains(&"failback.started b2 b1".to_owned()));
}

#[test]
fn the_fourth_automatic_failback_within_the_window_is_held_back_and_leaving_a_dead_primary_never_is() {
    let failback = Failback::After(Duration::from_secs(1));
    let rules = Health {
        failback,
        recovery_time: Duration::from_secs(1),
        recovery_time_max: Duration::from_secs(1),
        ..rules()
    };
    let mut history = History::with_rules(2, rules);
    history.found(Some(first_plan(2)));
    history.run(400);
    for round in 0..4 {
        history.did();
        history.refuse(1);
        let left = history.did();
        assert!(left.contains(&"failover.started b1 b2".to_owned()), "{left:?}");
        history.confirm(2 * round + 1);
        history.answering[1] = true;
        history.run(4_000);
        if round < 3 {
            assert!(history.did().contains(&"failback.started b2 b1".to_owned()));
            history.confirm(2 * round + 2);
        }
    }
    let told = history.did();
    assert!(told.contains(&"failback.blocked b2 b1".to_owned()), "{told:?}");
    assert_eq!(history.state(), MeshState::Pinned);
    // The operator may; nobody else, until the window has passed the first.
    history.run(280_000);
    assert_eq!((history.did(), history.state()), (vec![], MeshState::Pinned));
    history.run(10_000);
    assert_eq!(history.did()[..1], ["failback.started b2 b1"]);
}

#[test]
fn sessions_are_closed_when_the_balancer_has_the_new_plan_and_until_none_is_left() {
    let mut history = History::healthy(3);
    history.answering[1] = false;
    history.run(1300);
    assert_eq!(history.moved(), [""; 0], "not before the plan is confirmed");
    history.confirm(1);
    assert_eq!(history.moved(), ["all from b1"]);
    history.closed(1, 100, 0);
    history.run(40);
    assert_eq!(history.moved(), [""; 0]);
    history.run(20);
    assert_eq!(history.moved(), ["all from b1"]);
    history.closed(1, 3, 0);
    history.run(450);
    assert_eq!(history.moved(), ["all from b1"]);
    history.did();
    history.closed(1, 0, 0);
    assert_eq!(history.did(), ["sessions.moved b1 b2"]);
    // It still hangs. Nginx by itself sends clients there where all others refuse.
    history.run(6_000);
    assert_eq!(history.moved(), ["all from b1"]);
    history.closed(1, 0, 0);
    history.answering[1] = true;
    history.run(60_000);
    assert_eq!(history.moved(), [""; 0]);
}

#[test]
fn a_hung_broker_that_a_predecessor_demoted_is_emptied() {
    let mut history = History::fresh(3);
    history.answering[1] = false;
    history.found(Some(Plan::new(7, id(2), [3, 1].map(id))));
    history.run(900);
    assert_eq!(history.moved(), [""; 0], "silence is not death yet");
    history.run(400);
    assert_eq!(history.moved(), ["all from b1"]);
}

#[test]
fn a_draining_broker_hands_over_in_slices_and_serves_again_when_enabled() {
    let mut history = History::healthy(3);
    history.admin(1, AdminState::Draining, false).unwrap();
    history.did();
    history.confirm(1);
    assert_eq!(history.moved(), ["0 from b1"], "counting comes first");
    let mut left = 300;
    history.closed(1, 0, left);
    while left > 0 {
        history.run(1000);
        let orders = history.moved();
        let [order] = &orders[..] else {
            panic!("{orders:?}")
        };
        let size = order.split(' ').next().unwrap().parse().unwrap_or(left);
        assert!(size <= 12, "{order}");
        let closed = size.min(left);
        left -= closed;
        history.closed(1, closed, left);
        assert_eq!(
            history.core.view(history.now).brokers[0].sessions_left,
            Some(left)
        );
    }
    history.run(1000);
    history.closed(1, 0, 0);
    assert!(history.did().contains(&"broker.drained b1".to_owned()));
    assert_eq!(history.state(), MeshState::Ok);
    history.admin(1, AdminState::Enabled, false).unwrap();
    let expected = ["broker.enabled b1", "install gen=2 primary=b2 standbys=b1,b3"];
    assert_eq!(history.did(), expected);
}

#[test]
fn the_last_broker_that_can_serve_is_given_up_only_by_force() {
    let mut history = History::healthy(2);
    history.admin(2, AdminState::Disabled, false).unwrap();
    let refused = history.admin(1, AdminState::Draining, false);
    assert_eq!(refused, Err(Refusal::LastEligible(id(1))));
    history.confirm(1);
    history.did();
    history.admin(1, AdminState::Draining, true).unwrap();
    // It serves on, since nobody else can, and loses no session.
    history.run(5_000);
    assert_eq!(history.did(), ["broker.draining b1"]);
    assert!(history.moved().iter().all(|order| order.ends_with("b2")));
    assert_eq!(history.state(), MeshState::Degraded);
    let unknown = history.admin(3, AdminState::Enabled, false);
    assert_eq!(unknown, Err(Refusal::UnknownBroker(id(3))));
}

#[test]
fn where_all_hang_at_once_nobody_is_moved() {
    let mut history = History::healthy(3);
    for n in 1..=3 {
        history.answering[n] = false;
        history.run(60);
    }
    history.run(10_000);
    let told = history.did();
    assert!(told.contains(&"failover.blocked b1".to_owned()), "{told:?}");
    assert!(
        told.iter().all(|done| !done.starts_with("failover.started")),
        "{told:?}"
    );
    // They resume, the primary not first.
    history.answering[3] = true;
    history.run(200);
    history.answering[1] = true;
    history.run(10_000);
    let told = history.did();
    assert!(
        told.contains(&"install gen=1 primary=b1 standbys=b2,b3".to_owned()),
        "{told:?}"
    );
    assert!(
        told.iter().all(|done| !done.starts_with("failover.started")),
        "{told:?}"
    );
}
