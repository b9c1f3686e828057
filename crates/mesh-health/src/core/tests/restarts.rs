//! Brokers that are started again before anybody notices, and the daemon itself that is.

use super::*;

/// `count` healthy brokers that have told the numbers of their starts, 1 each.
fn booted(count: usize) -> History {
    let mut history = History::healthy(count);
    (1..=count).for_each(|n| history.sign(n, Sign::Boot(1)));
    history
}

#[test]
fn a_primary_that_was_started_again_unnoticed_is_left_for_the_first_backup() {
    let mut history = booted(3);
    history.sign(1, Sign::SessionEnded);
    history.sign(1, Sign::Boot(2));
    let expected = [
        "broker.dead b1",
        "failover.started b1 b2",
        "install gen=1 primary=b2 standbys=b1,b3",
    ];
    let mut did = history.did();
    did[2] = did[2].replace("b3,b1", "b1,b3");
    assert_eq!(did, expected);
    history.confirm(1);
    assert_eq!(
        history.moved(),
        ["all from b1"],
        "who came back to it meanwhile is moved"
    );
    history.run(10_400);
    assert_eq!(
        history.health(1),
        HealthStatus::Healthy,
        "it owes the time of a recovery"
    );
    // The number is told each second, and means nothing the second time.
    history.did();
    history.sign(1, Sign::Boot(2));
    assert_eq!(history.did(), [""; 0]);
}

#[test]
fn somebody_who_throws_the_probe_out_causes_nothing() {
    let mut history = booted(3);
    for _ in 0..10 {
        history.sign(1, Sign::SessionEnded);
        history.sign(1, Sign::Boot(1));
        history.run(200);
    }
    assert_eq!(history.did(), [""; 0]);
}

#[test]
fn a_death_that_was_noticed_counts_once() {
    let mut history = booted(3);
    history.refuse(1);
    history.answering[1] = true;
    history.run(200);
    history.did();
    history.sign(1, Sign::Boot(2));
    assert_eq!(history.did(), [""; 0]);
    assert_eq!(history.core.brokers[&id(1)].past().deaths.len(), 1);
    history.sign(1, Sign::Boot(3));
    assert_eq!(history.did(), ["broker.dead b1"]);
}

#[test]
fn where_nobody_else_can_serve_the_balancer_is_made_to_forget() {
    let mut history = booted(2);
    history.refuse(2);
    history.did();
    history.sign(1, Sign::Boot(2));
    history.run(400);
    let expected = [
        "broker.dead b1",
        "broker.recovering b1",
        "install gen=1 primary=b1 standbys=b2",
    ];
    assert_eq!(history.did(), expected);
}

#[test]
fn a_primary_that_was_started_again_while_the_daemon_was_away_keeps_its_place_under_a_new_number() {
    let mut history = booted(3);
    history.restart(5_000, first_plan(3));
    history.run(1000);
    (1..=3).for_each(|n| history.sign(n, Sign::Boot(1)));
    history.run(1000);
    assert!(!history.did().iter().any(|line| line.starts_with("install")));
    history.restart(5_000, first_plan(3));
    history.sign(1, Sign::Boot(2));
    assert!(
        !history.did().iter().any(|line| line.starts_with("install")),
        "it has not answered yet"
    );
    history.run(1000);
    let did = history.did();
    assert!(
        did.contains(&"install gen=1 primary=b1 standbys=b2,b3".to_owned()),
        "{did:?}"
    );
}

#[test]
fn a_successor_knows_drained_brokers_and_passes_over_unknown_ones() {
    let mut history = History::healthy(3);
    history.admin(1, AdminState::Draining, false).unwrap();
    history.confirm(1);
    history.moved();
    history.kept.admin.insert(id(9), AdminState::Disabled);
    history.did();
    history.restart(1000, Plan::new(7, id(2), [id(3)]));
    history.run(2000);
    let expected = ["broker.healthy b1", "broker.healthy b2", "broker.healthy b3"];
    assert_eq!(history.did(), expected);
    assert_eq!(history.moved(), ["0 from b1"]);
}

/// The clients were sent from `b2`, which is well, to `b1`; Nginx runs it, and the daemon is killed at once.
fn killed_in_a_failback() -> (History, Plan) {
    let mut history = booted(2);
    history.refuse(1);
    history.confirm(1);
    history.closed(1, 0, 0);
    history.answering[1] = true;
    history.run(11_000);
    history.core.request(Request::Failback, history.now).unwrap();
    history.collect();
    history.moved();
    history.did();
    let back = Plan::new(2, id(1), [id(2)]);
    (history, back)
}

#[test]
fn a_successor_moves_the_sessions_that_a_killed_switch_left_on_a_healthy_broker() {
    let (mut history, back) = killed_in_a_failback();
    history.restart(500, back);
    history.run(1000);
    assert_eq!(history.moved(), ["all from b2"]);
    for _ in 0..3 {
        history.closed(2, 0, 0);
        history.run(1000);
    }
    history.moved();
    history.restart(500, Plan::new(2, id(1), [id(2)]));
    history.run(10_000);
    assert_eq!(
        history.moved(),
        [""; 0],
        "the job is finished, and who is there now may stay"
    );
}

#[test]
fn a_successor_sends_clients_back_if_its_predecessor_did_not_get_that_far() {
    let (mut history, _) = killed_in_a_failback();
    history.restart(500, Plan::new(1, id(2), [id(1)]));
    history.run(1000);
    let did = history.did();
    assert!(did.contains(&"failback.started b2 b1".to_owned()), "{did:?}");
    history.confirm(2);
    assert!(history.did().contains(&"failback.completed b2 b1".to_owned()));
    assert_eq!(history.moved(), ["all from b2"]);
    assert_eq!(history.kept.failback_to, None, "once is enough");
}

#[test]
fn flaps_and_the_limit_of_failbacks_survive_a_restart() {
    let after = Duration::from_secs(5);
    let rules = Health {
        failback: Failback::After(after),
        ..rules()
    };
    let mut history = History::with_rules(2, rules);
    history.found(Some(first_plan(2)));
    history.run(400);
    let mut generation = 0;
    for round in 0..4 {
        history.refuse(1);
        generation += 1;
        history.confirm(generation);
        history.restart(100, Plan::new(generation, id(2), [id(1)]));
        history.answering[1] = true;
        // It is healthy at once for a successor, which has seen no death of it, and preferred.
        history.run(6000);
        let went_back = history.did().contains(&"failback.started b2 b1".to_owned());
        assert_eq!(went_back, round < 3, "round {round}");
        if !went_back {
            break;
        }
        generation += 1;
        history.confirm(generation);
    }
    assert_eq!(history.state(), MeshState::Pinned);
    history.refuse(1);
    history.answering[1] = true;
    history.run(200);
    let reason = history.core.brokers[&id(1)].reason().unwrap().to_owned();
    assert_eq!(
        reason, "answers again; healthy after 160.0s",
        "four deaths before"
    );
}

#[test]
fn incidents_go_on_over_a_restart() {
    let mut history = booted(2);
    let began = history.now;
    history.refuse(1);
    history.confirm(1);
    history.steps.clear();
    history.restart(5_000, Plan::new(1, id(2), [id(1)]));
    history.sign(1, Sign::Refused("connection refused".to_owned()));
    assert_eq!(history.steps, [""; 0], "the same fault");
    history.answering[1] = true;
    history.run(11_000);
    assert_eq!(history.steps.len(), 1, "{:?}", history.steps);
    assert!(
        history.steps[0].starts_with("1 b1 recovered 15"),
        "{:?}",
        history.steps
    );
    let first = history.core.incidents().next().unwrap();
    assert_eq!((first.began, first.number), (began, 1));
    history.refuse(2);
    assert_eq!(history.core.incidents().last().unwrap().number, 2);
}
