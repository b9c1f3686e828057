//! Plans: the first one, one that is found, one that is refused or overtaken.

use super::*;

#[test]
fn a_start_beside_a_running_balancer_touches_nothing() {
    let mut history = History::fresh(3);
    let running = Plan::new(7, id(2), [3, 1].map(id));
    history.found(Some(running.clone()));
    history.run(2000);
    assert_eq!(
        history.did(),
        ["broker.healthy b1", "broker.healthy b2", "broker.healthy b3"]
    );
    let view = history.core.view(history.now);
    assert_eq!(
        (view.wanted, view.confirmed, view.state),
        (&running, true, MeshState::Ok)
    );
}

#[test]
fn a_plan_of_other_brokers_is_replaced_and_keeps_its_primary_if_it_can() {
    for (running, expected) in [
        (
            Plan::new(7, id(2), [1].map(id)),
            "install gen=8 primary=b2 standbys=b1,b3",
        ),
        (
            Plan::new(7, id(9), [1, 2, 3].map(id)),
            "install gen=8 primary=b1 standbys=b2,b3",
        ),
        (
            Plan::new(7, id(3), [1, 2, 4].map(id)),
            "install gen=8 primary=b3 standbys=b1,b2",
        ),
    ] {
        let mut history = History::fresh(3);
        history.found(Some(running));
        assert_eq!(history.did(), [expected]);
    }
}

#[test]
fn where_nothing_runs_and_nothing_is_written_the_first_plan_is_written_once() {
    let mut history = History::fresh(2);
    history.found(None);
    assert_eq!(history.did(), ["install gen=0 primary=b1 standbys=b2"]);
    history.input(Input::Installed(
        0,
        Outcome::Written("Nginx does not run".to_owned()),
    ));
    history.run(5_000);
    let view = history.core.view(history.now);
    assert_eq!((view.state, view.confirmed), (MeshState::Degraded, false));
    assert!(history.did().iter().all(|done| !done.starts_with("install")));
    history.input(Input::Looked(Look {
        answer: Ok(first_plan(2)),
        unreachable: None,
        old_workers: Some(0),
    }));
    assert_eq!(history.did(), ["balancer.restored"]);
    assert_eq!(history.state(), MeshState::Ok);
}

#[test]
fn a_refused_plan_is_tried_again_ever_more_rarely() {
    let mut history = History::healthy(2);
    history.refuse(1);
    let refuse = |generation| {
        let reason = "Nginx refuses the configuration: it is full".to_owned();
        Input::Installed(generation, Outcome::Rejected(reason))
    };
    history.input(refuse(1));
    assert!(history.did().contains(&"balancer.rejected".to_owned()));
    assert_eq!(history.state(), MeshState::Degraded);
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        history.run(seconds * 1000 - 50);
        assert_eq!(history.did(), [""; 0], "{seconds}");
        history.run(100);
        assert_eq!(
            history.did(),
            ["install gen=1 primary=b2 standbys=b1"],
            "{seconds}"
        );
        history.input(refuse(1));
    }
    history.run(31_000);
    history.did();
    history.confirm(1);
    assert_eq!(
        history.did(),
        [
            "balancer.restored",
            "failover.switched b1 b2",
            "failover.completed b1 b2"
        ]
    );
}

#[test]
fn a_plan_that_somebody_else_made_nginx_run_is_replaced_under_a_new_number() {
    let mut history = History::healthy(2);
    for foreign in [Plan::new(0, id(2), [id(1)]), Plan::new(9, id(2), [id(1)])] {
        let generation = foreign.generation.max(history.core.rollout.wanted().generation) + 1;
        history.input(Input::Looked(Look {
            answer: Ok(foreign),
            unreachable: None,
            old_workers: None,
        }));
        let expected = format!("install gen={generation} primary=b1 standbys=b2");
        assert_eq!(history.did(), [expected]);
        history.confirm(generation);
    }
}

#[test]
fn a_second_failure_during_an_installation_is_followed_by_a_second_plan() {
    let mut history = History::healthy(3);
    history.refuse(1);
    history.refuse(2);
    assert_eq!(
        history
            .did()
            .iter()
            .filter(|done| done.starts_with("install"))
            .count(),
        1
    );
    history.confirm(1);
    assert_eq!(history.did(), ["install gen=2 primary=b3 standbys=b1,b2"]);
    history.confirm(2);
    assert_eq!(
        history.did(),
        ["failover.switched b2 b3", "failover.completed b2 b3"]
    );
}
