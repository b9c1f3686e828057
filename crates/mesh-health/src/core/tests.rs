//! Histories: what happens to the brokers and Nginx on the left, what the core does on the right.

use std::time::Duration;

use super::broker::Sign;
use super::rollout::{Found, Look};
use super::*;
use mesh_model::{Broker, EventName, LinkState, MeshState};
use mesh_runtime::config::Failback;

mod incidents;
mod operations;
mod restarts;
mod simulation;

pub(super) fn id(n: usize) -> BrokerId {
    format!("b{n}").parse().unwrap()
}

pub(super) fn topology(count: usize) -> Topology {
    let broker = |n: usize| Broker::new(id(n), ([127, 0, 0, 1], 2000 + n as u16).into());
    Topology::new((1..=count).map(broker).collect()).unwrap()
}

pub(super) fn rules() -> Health {
    let ms = Duration::from_millis;
    Health {
        listen: ([127, 0, 0, 1], 1).into(),
        probe_interval: ms(200),
        suspect_after: ms(250),
        dead_after: ms(1000),
        round_trip_interval: ms(2000),
        recovery_answers: 5,
        recovery_time: ms(10_000),
        recovery_time_max: ms(600_000),
        flap_window: ms(600_000),
        max_loop_lag: ms(100),
        canary_interval: ms(1000),
        link_down_after: ms(3000),
        failback: Failback::Never,
        optional_switches: 3,
        optional_switch_window: ms(300_000),
        need_grace: ms(300),
        drain_time: ms(30_000),
        state_file: None,
    }
}

pub(super) fn first_plan(count: usize) -> Plan {
    Plan::new(0, id(1), (1..=count).map(id))
}

/// A core and what it did, with brokers that answer every 200 ms unless told otherwise.
struct History {
    core: Core,
    now: Moment,
    answering: Vec<bool>,
    done: Vec<String>,
    /// Orders to close sessions, and steps of incidents.
    moves: Vec<String>,
    steps: Vec<String>,
    /// What survives a restart of the daemon.
    kept: Memory,
}

impl History {
    /// `count` healthy brokers and an Nginx that runs the first plan.
    fn healthy(count: usize) -> Self {
        let mut history = Self::fresh(count);
        history.found(Some(first_plan(count)));
        history.run(400);
        assert_eq!(history.core.view(history.now).state, MeshState::Ok);
        history.done.clear();
        history
    }

    fn fresh(count: usize) -> Self {
        Self::with_rules(count, rules())
    }

    fn with_rules(count: usize, rules: Health) -> Self {
        let core = Core::new(topology(count), rules, first_plan(count), Moment::START);
        Self {
            core,
            now: Moment::START,
            answering: vec![true; count + 1],
            done: Vec::new(),
            moves: Vec::new(),
            steps: Vec::new(),
            kept: Memory::default(),
        }
    }

    /// The daemon is killed, and started again after `ms`, while Nginx runs `running`.
    fn restart(&mut self, ms: u64, running: Plan) {
        self.now = self.now + Duration::from_millis(ms);
        let count = self.answering.len() - 1;
        let rules = self.core.rules.clone();
        let core = Core::new(topology(count), rules, first_plan(count), self.now);
        self.core = core.recalling(self.kept.clone());
        self.found(Some(running));
    }

    fn found(&mut self, running: Option<Plan>) {
        let on_disk = running.clone();
        let is_current = running.is_some();
        self.input(Input::Found(Found {
            running,
            on_disk,
            is_current,
        }));
    }

    /// Lets `ms` pass in steps of 10 ms.
    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.now = self.now + Duration::from_millis(10);
            let step = self.now.elapsed().as_millis() as u64;
            for n in 1..self.answering.len() {
                if self.answering[n] && step.is_multiple_of(200) {
                    self.sign(
                        n,
                        Sign::Answer {
                            rtt: Duration::from_millis(1),
                        },
                    );
                    self.sign(n, Sign::RoundTrip);
                }
            }
            if self.core.poll_timeout().is_some_and(|due| due <= self.now) {
                self.core.handle_timeout(self.now);
                self.collect();
            }
        }
    }

    fn sign(&mut self, n: usize, sign: Sign) {
        self.input(Input::Probe(id(n), sign));
    }

    fn refuse(&mut self, n: usize) {
        self.answering[n] = false;
        self.sign(n, Sign::SessionEnded);
        self.sign(n, Sign::Refused("connection refused".to_owned()));
    }

    fn confirm(&mut self, generation: u64) {
        self.input(Input::Reloaded(generation));
        self.input(Input::Installed(generation, Outcome::Confirmed));
    }

    fn input(&mut self, input: Input) {
        self.core.handle(input, self.now);
        self.collect();
    }

    fn admin(&mut self, n: usize, wanted: AdminState, force: bool) -> Result<Granted, Refusal> {
        let request = Request::Admin {
            broker: id(n),
            wanted,
            force,
        };
        let result = self.core.request(request, self.now);
        self.collect();
        result
    }

    fn collect(&mut self) {
        while let Some(command) = self.core.next_command() {
            let done = match command {
                Command::Install(plan) => format!("install {}", mesh_render::read_back(&plan)),
                Command::MoveSessions { from, at_most, .. } => {
                    self.moves.push(match at_most {
                        Some(most) => format!("{most} from {from}"),
                        None => format!("all from {from}"),
                    });
                    continue;
                }
                Command::Remember(memory) => {
                    self.kept = *memory;
                    continue;
                }
                Command::Emit(o) => {
                    let who = [o.broker, o.from, o.to].into_iter().flatten();
                    let who: Vec<String> = who.map(|id| id.to_string()).collect();
                    let who = who.join(" ");
                    if let (Some(incident), Some(phase), Some(elapsed)) = (o.incident, o.phase, o.elapsed) {
                        self.steps
                            .push(format!("{incident} {who} {phase} {}", elapsed.as_millis()));
                        continue;
                    }
                    format!("{} {who}", o.name).trim_end().to_owned()
                }
            };
            self.done.push(done);
        }
    }

    fn closed(&mut self, n: usize, closed: u64, left: u64) {
        self.input(Input::Moved {
            from: id(n),
            result: Ok(Closed { closed, left }),
        });
    }

    /// The orders to close sessions since the last call.
    fn moved(&mut self) -> Vec<String> {
        std::mem::take(&mut self.moves)
    }

    /// What was done since the last call.
    fn did(&mut self) -> Vec<String> {
        std::mem::take(&mut self.done)
    }

    fn state(&self) -> MeshState {
        self.core.view(self.now).state
    }

    fn health(&self, n: usize) -> HealthStatus {
        self.core.view(self.now).brokers[n - 1].health
    }
}

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

#[test]
fn a_disabled_primary_hands_over_and_is_left_out() {
    let mut history = History::healthy(3);
    history.admin(1, AdminState::Draining, false).unwrap();
    let install = "install gen=1 primary=b2 standbys=b3";
    let expected = ["broker.draining b1", "failover.started b1 b2", install];
    assert_eq!(history.did(), expected);
}

#[test]
fn a_link_is_down_only_if_both_ends_are_seen_to_work() {
    let mut history = History::healthy(2);
    let canary = |from, to| Input::Canary {
        from: id(from),
        to: id(to),
        latency: Duration::from_millis(1),
    };
    let state = |history: &History| {
        let view = history.core.view(history.now);
        view.links.iter().map(|link| link.state).collect::<Vec<_>>()
    };
    for _ in 0..3 {
        for (from, to) in [(1, 1), (2, 2), (1, 2), (2, 1)] {
            history.input(canary(from, to));
        }
        history.run(1000);
    }
    assert_eq!(state(&history), [LinkState::Up, LinkState::Up]);
    for _ in 0..4 {
        for (from, to) in [(1, 1), (2, 2), (2, 1)] {
            history.input(canary(from, to));
        }
        history.run(1000);
    }
    assert_eq!(state(&history), [LinkState::Down, LinkState::Up]);
    assert_eq!(history.did(), ["link.down b1 b2"]);
    history.input(canary(1, 2));
    history.run(300);
    assert_eq!(history.did(), ["link.up b1 b2"]);
    // Our own sessions break: no news, and no alarm.
    history.run(10_000);
    assert_eq!(history.did(), [""; 0]);
}
