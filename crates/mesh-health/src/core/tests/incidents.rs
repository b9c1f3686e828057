//! What is remembered of a fault, and when its steps are reached.

use super::*;

#[test]
fn an_incident_has_every_step_with_its_time() {
    let mut history = History::healthy(2);
    let start = history.now;
    history.answering[1] = false;
    history.run(1200);
    history.input(Input::Reloaded(1));
    history.run(100);
    history.confirm(1);
    history.input(Input::OldWorkersStopped(1));
    history.closed(1, 5, 0);
    for reading in [
        readings::Reading::Connected(9),
        readings::Reading::MeshSessions(3),
        readings::Reading::OwnBridges(1),
    ] {
        history.input(Input::Reading {
            broker: id(2),
            reading,
            kept: false,
        });
    }
    history.answering[1] = true;
    history.run(10_400);
    let steps: Vec<String> = std::mem::take(&mut history.steps);
    let names: Vec<&str> = steps.iter().filter_map(|step| step.split(' ').nth(2)).collect();
    let phases = IncidentPhase::ALL.iter();
    let phases = phases.filter(|phase| **phase != IncidentPhase::Answering);
    let all: Vec<&str> = phases.map(|phase| phase.as_str()).collect();
    assert_eq!(names, all, "{steps:?}");
    let [incident] = &history.core.incidents().collect::<Vec<_>>()[..] else {
        panic!("one incident")
    };
    assert_eq!(
        (incident.number, incident.generation, &incident.to),
        (1, Some(1), &Some(id(2)))
    );
    assert_eq!((incident.began, incident.is_open()), (start, false));
    assert!(steps[1].starts_with("1 b1 confirmed 10"), "{steps:?}");
    // A standby's death is an incident of its own, with fewer steps.
    history.refuse(1);
    assert_eq!(history.steps, ["2 b1 first_sign 0", "2 b1 confirmed 0"]);
}

#[test]
fn a_link_that_breaks_is_an_incident_until_canaries_pass_again() {
    let mut history = History::healthy(2);
    let canary = |history: &mut History, from, to| {
        history.input(Input::Canary {
            from: id(from),
            to: id(to),
            latency: Duration::from_millis(1),
        });
    };
    let echoes = [(1, 1), (2, 2), (2, 1)];
    for (from, to) in echoes.into_iter().chain([(1, 2)]) {
        canary(&mut history, from, to);
    }
    for _ in 0..4 {
        for (from, to) in echoes {
            canary(&mut history, from, to);
        }
        history.run(1000);
    }
    assert_eq!(history.did(), ["link.down b1 b2"]);
    let (steps, began) = (
        std::mem::take(&mut history.steps),
        ["1 b1 b2 first_sign 0", "1 b1 b2 confirmed 30"],
    );
    assert!(
        steps
            .iter()
            .zip(began)
            .all(|(step, began)| step.starts_with(began)),
        "{steps:?}"
    );
    // An end dies: nobody knows what the link would do. It is no other fault.
    history.refuse(1);
    history.did();
    history.steps.clear();
    history.answering[1] = true;
    history.run(1000);
    canary(&mut history, 1, 2);
    history.run(100);
    assert!(history.did().contains(&"link.up b1 b2".to_owned()));
    let recovered = history
        .steps
        .iter()
        .filter(|step| step.starts_with("1 b1 b2 recovered"));
    assert_eq!(recovered.count(), 1, "{:?}", history.steps);
}

#[test]
fn a_refused_plan_and_a_dead_balancer_are_incidents_until_it_runs_the_wanted_plan() {
    let mut history = History::healthy(2);
    let look = |history: &mut History, answer: Result<Plan, &str>| {
        history.input(Input::Looked(Look {
            answer: answer.map_err(str::to_owned),
            unreachable: None,
            old_workers: None,
        }));
    };
    look(&mut history, Ok(first_plan(2)));
    history.run(200);
    history.refuse(1);
    let began = history.now;
    history.run(300);
    history.steps.clear();
    history.input(Input::Installed(1, Outcome::Rejected("no space".to_owned())));
    assert_eq!(history.steps, ["2  first_sign 0", "2  confirmed 300"]);
    look(&mut history, Ok(first_plan(2)));
    assert_eq!(history.steps.pop().unwrap(), "2  answering 300");
    history.run(1000);
    history.confirm(1);
    assert!(
        history.steps.contains(&"2  recovered 1300".to_owned()),
        "{:?}",
        history.steps
    );
    let [_, incident] = &history.core.incidents().collect::<Vec<_>>()[..] else {
        panic!("two incidents")
    };
    assert_eq!(
        (
            &incident.subject,
            incident.began,
            incident.generation,
            incident.reason.as_deref()
        ),
        (&Subject::Balancer, began, Some(1), Some("no space"))
    );

    let served = first_plan(2);
    let served = Plan::new(1, id(2), served.standbys.into_iter().chain([served.primary]));
    look(&mut history, Ok(served.clone()));
    history.run(500);
    history.steps.clear();
    look(&mut history, Err("refused"));
    assert_eq!(history.steps, ["3  first_sign 0", "3  confirmed 500"]);
    look(&mut history, Err("refused"));
    history.run(100);
    look(&mut history, Ok(served));
    assert_eq!(history.steps[2..], ["3  answering 600", "3  recovered 600"]);
}
