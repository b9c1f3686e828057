//! Histories: what happens to the brokers and Nginx on the left, what the core does on the right.

use std::time::Duration;

use super::broker::Sign;
use super::rollout::{Found, Look};
use super::*;
use mesh_model::{Broker, EventName, LinkState, MeshState};
use mesh_runtime::config::Failback;

mod deaths;
mod incidents;
mod operations;
mod plans;
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
