//! Random histories against the core. A failing seed is printed; `MESH_SEED=n` replays it.

use super::*;

/// Milliseconds of one step.
const STEP: u64 = 10;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Real {
    Up,
    Hung,
    Gone,
}

/// Brokers and an Nginx as they might be, and the core that watches them.
struct World {
    random: Random,
    core: Core,
    now: Moment,
    brokers: Vec<Real>,
    /// What Nginx runs, whether it runs, and the installation that is under way with its end.
    running: Plan,
    nginx_up: bool,
    installing: Option<(Plan, Moment)>,
    highest: u64,
    previous: Option<Plan>,
    /// The primary died or an installation failed since the last plan.
    excuse: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 1 + random.below(6) as usize;
        let mut core = Core::new(topology(count), rules(), first_plan(count), Moment::START);
        let running = first_plan(count);
        core.handle(
            Input::Found(Found {
                running: Some(running.clone()),
                on_disk: Some(running.clone()),
                is_current: true,
            }),
            Moment::START,
        );
        Self {
            random,
            core,
            now: Moment::START,
            brokers: vec![Real::Up; count],
            previous: Some(running.clone()),
            running,
            nginx_up: true,
            installing: None,
            highest: 0,
            excuse: false,
        }
    }

    fn fault(&mut self) {
        let n = self.random.below(self.brokers.len() as u64) as usize;
        match self.random.below(8) {
            0 | 1 => {
                self.brokers[n] = Real::Gone;
                self.input(Input::Probe(id(n + 1), Sign::SessionEnded));
                self.input(Input::Probe(id(n + 1), Sign::Refused("refused".to_owned())));
            }
            2 => self.brokers[n] = Real::Hung,
            3 | 4 => self.brokers[n] = Real::Up,
            5 => self.nginx_up = !self.nginx_up,
            6 => {
                let asleep = Duration::from_millis(100 + self.random.below(5000));
                self.now = self.now + asleep;
                self.input(Input::Lagged(asleep));
            }
            _ => self.input(Input::Probe(id(n + 1), Sign::SessionEnded)),
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(STEP);
        let tick = self.now.elapsed().as_millis() as u64 / STEP;
        for n in 0..self.brokers.len() {
            // Each broker is asked in its own slot of 200 ms.
            if tick % 20 != n as u64 {
                continue;
            }
            let id = id(n + 1);
            match self.brokers[n] {
                Real::Up => {
                    let rtt = Duration::from_millis(1);
                    self.input(Input::Probe(id.clone(), Sign::Answer { rtt }));
                    self.input(Input::Probe(id, Sign::RoundTrip));
                }
                Real::Gone => self.input(Input::Probe(id, Sign::Refused("refused".to_owned()))),
                Real::Hung => {}
            }
        }
        if let Some((plan, _)) = self.installing.take_if(|(_, end)| *end <= self.now) {
            let outcome = match (self.nginx_up, self.random.below(10)) {
                (false, _) => Outcome::Written("Nginx does not run".to_owned()),
                (true, 0) => Outcome::Rejected("refused".to_owned()),
                (true, _) => Outcome::Confirmed,
            };
            self.excuse |= outcome != Outcome::Confirmed;
            if !matches!(outcome, Outcome::Rejected(_)) {
                self.running = plan.clone();
            }
            self.input(Input::Installed(plan.generation, outcome));
        }
        if tick.is_multiple_of(50) && self.installing.is_none() {
            let answer = match self.nginx_up {
                true => Ok(self.running.clone()),
                false => Err("Nginx does not answer".to_owned()),
            };
            self.input(Input::Looked(Look {
                answer,
                unreachable: None,
                old_workers: None,
            }));
        }
        if self.core.poll_timeout().is_some_and(|due| due <= self.now) {
            let before = self.statuses();
            self.core.handle_timeout(self.now);
            self.check(&before);
        }
    }

    fn has_converged(&self) -> bool {
        let view = self.core.view(self.now);
        let healthy = view.brokers.iter().all(|b| b.health == HealthStatus::Healthy);
        view.state == MeshState::Ok && *view.wanted == self.running && healthy
    }

    fn statuses(&self) -> Vec<HealthStatus> {
        self.core
            .view(self.now)
            .brokers
            .iter()
            .map(|b| b.health)
            .collect()
    }

    fn input(&mut self, input: Input) {
        let before = self.statuses();
        self.core.handle(input, self.now);
        self.check(&before);
    }

    /// The invariants, after every input.
    fn check(&mut self, before: &[HealthStatus]) {
        while let Some(command) = self.core.next_command() {
            match command {
                Command::Install(plan) => self.check_install(plan),
                Command::Emit(o) if o.name == EventName::FailoverStarted => {
                    let from = o.from.unwrap();
                    let view = self.core.view(self.now);
                    let health = view.brokers.iter().find(|b| *b.id == from).unwrap().health;
                    assert_eq!(
                        health,
                        HealthStatus::Dead,
                        "a primary was demoted that is not dead"
                    );
                }
                Command::Emit(o) if o.name == EventName::BrokerHealthy => {
                    let n = self.core.topology.priority(o.broker.as_ref().unwrap()).unwrap();
                    assert_ne!(
                        before[n],
                        HealthStatus::Dead,
                        "a dead broker was believed at once"
                    );
                }
                Command::Emit(_) => {}
            }
        }
        let view = self.core.view(self.now);
        let primary = view
            .brokers
            .iter()
            .find(|b| *b.id == view.wanted.primary)
            .unwrap();
        let eligible = view.brokers.iter().any(|b| b.health == HealthStatus::Healthy);
        let out = view.brokers.iter().any(|b| b.health == HealthStatus::Unknown);
        assert!(
            primary.health != HealthStatus::Dead || !eligible || out,
            "a dead primary stays though another is healthy"
        );
        self.excuse |= primary.health == HealthStatus::Dead;
    }

    fn check_install(&mut self, plan: Plan) {
        assert!(self.installing.is_none(), "two installations at a time");
        let mut listed = vec![plan.primary.clone()];
        listed.extend(plan.standbys.iter().cloned());
        listed.sort();
        let all: Vec<BrokerId> = (1..=self.brokers.len()).map(id).collect();
        assert_eq!(listed, all, "every broker once, one of them primary");
        assert!(plan.generation >= self.highest, "generations rise");
        let same = self
            .previous
            .as_ref()
            .is_some_and(|previous| previous.same_order(&plan));
        assert!(!same || self.excuse, "a reload for equal order");
        self.highest = plan.generation;
        self.excuse = false;
        self.previous = Some(plan.clone());
        let end = self.now + Duration::from_millis(20 + self.random.below(2000));
        self.installing = Some((plan, end));
    }
}

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..40 {
        for _ in 0..1 + world.random.below(400) {
            world.step();
        }
        world.fault();
    }
    // Faults stop. The longest recovery time is ten minutes.
    world.brokers.fill(Real::Up);
    world.nginx_up = true;
    for _ in 0..(620_000 / STEP) {
        world.step();
        if world.has_converged() {
            break;
        }
    }
    // And it stays so.
    (0..500).for_each(|_| world.step());
    assert!(world.has_converged(), "{:?}", world.core.view(world.now));
}

#[test]
fn whatever_happens_the_invariants_hold_and_the_mesh_converges() {
    let seeds = match std::env::var("MESH_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("MESH_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..100,
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| simulate(seed)) {
            eprintln!("replay with MESH_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
