//! Random histories against the core. A failing seed is printed; `MESH_SEED=n` replays it. `MESH_TEST_LONG=1` runs
//! twenty times as many.
//!
//! The world below has brokers that work, are slow, hang, are gone or back before anybody notices, an Nginx with
//! clients that can be down, refuse plans, lose reloads and avoid a primary that refused a client, an operator, a disk
//! that is late, and a daemon that is held up or killed. It moves from one thing that happens to the next, and holds
//! the core against the invariants after each.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use super::readings::{Reading, Retained};
use super::*;

mod brokers;
mod faults;
mod invariants;
mod nginx;

const CLIENTS: u64 = 20;
const HISTORIES: u64 = 2000;
const MS: Duration = Duration::from_millis(1);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Real {
    Up,
    /// Answers, but late.
    Slow,
    Hung,
    Gone,
}

struct Broker {
    real: Real,
    next_answer: Moment,
    /// Clients that Nginx has connected to it.
    sessions: u64,
    /// The number of its start, and the one that the daemon's session has heard.
    boot: u64,
    heard: Option<u64>,
    /// An older plugin does not tell whether it is in sync.
    tells: bool,
    /// When it has what its peers have.
    in_sync_at: Moment,
    /// What it has told since it was last there.
    told: Option<bool>,
}

/// The rules of the histories: those of the default, with shorter times where nothing is learnt by waiting.
fn quick_rules(random: &mut Random) -> Health {
    let after = Failback::After(Duration::from_secs(2));
    Health {
        recovery_time: 2000 * MS,
        recovery_time_max: 8000 * MS,
        flap_window: 60_000 * MS,
        optional_switch_window: 20_000 * MS,
        drain_time: 3000 * MS,
        failback: [Failback::Never, after][random.below(2) as usize],
        ..rules()
    }
}

/// A plan on its way into Nginx, when it is there, and the version of the memory that is written before.
struct Installation {
    plan: Plan,
    end: Moment,
    after: u64,
}

struct World {
    random: Random,
    rules: Health,
    core: Core,
    now: Moment,
    brokers: Vec<Broker>,
    /// Clients without a session.
    waiting: u64,
    running: Plan,
    on_disk: Plan,
    nginx_up: bool,
    /// Until then, workers of an earlier generation accept clients too, by this plan.
    old: (Plan, Moment),
    /// Nginx leaves out the primary of what it runs, which refused a client.
    avoids: bool,
    installing: Option<Installation>,
    moving: Vec<(BrokerId, Option<u32>, u64, Moment)>,
    next_look: Moment,
    /// What survives a restart of the daemon.
    kept: Memory,
    /// What is being written, by number, and when it is.
    writing: VecDeque<(u64, Memory, Moment)>,
    versions: u64,
    highest: u64,
    previous: Plan,
    /// There is a reason to install equal content once more.
    excuse: bool,
    demoted: BTreeSet<BrokerId>,
    /// Those that ever were.
    ever_demoted: BTreeSet<BrokerId>,
    /// Those of them whose sessions are still to be moved.
    owing: BTreeSet<BrokerId>,
    is_operator: bool,
    /// Where the operator wanted clients to go back to.
    asked: Option<BrokerId>,
    /// When clients went back by themselves, with which generation.
    automatic: Vec<(Moment, u64)>,
    /// A replay tells what happens.
    is_told: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let count = 1 + random.below(6) as usize;
        let rules = quick_rules(&mut random);
        let first = first_plan(count);
        let broker = |n: usize| Broker {
            real: Real::Up,
            next_answer: Moment::after_start(Duration::from_millis(30 * n as u64)),
            sessions: 0,
            boot: 1,
            heard: None,
            tells: n % 4 != 3,
            in_sync_at: Moment::START,
            told: None,
        };
        let mut world = Self {
            core: Core::new(topology(count), rules.clone(), first.clone(), Moment::START),
            random,
            rules,
            now: Moment::START,
            brokers: (0..count).map(broker).collect(),
            waiting: CLIENTS,
            running: first.clone(),
            on_disk: first.clone(),
            nginx_up: true,
            old: (first.clone(), Moment::START),
            avoids: false,
            installing: None,
            moving: Vec::new(),
            next_look: Moment::START + 100 * MS,
            kept: Memory::default(),
            writing: VecDeque::new(),
            versions: 0,
            highest: 0,
            previous: first,
            excuse: false,
            demoted: BTreeSet::new(),
            ever_demoted: BTreeSet::new(),
            owing: BTreeSet::new(),
            is_operator: false,
            asked: None,
            automatic: Vec::new(),
            is_told: std::env::var_os("MESH_SEED").is_some(),
        };
        world.find();
        world
    }

    /// Goes to the next thing that happens, at the latest to `end`.
    fn step(&mut self, end: Moment) {
        let answers = self.brokers.iter().map(|broker| broker.next_answer);
        let others = [
            Some(end),
            Some(self.next_look),
            self.installing.as_ref().map(|installation| installation.end),
            self.writing.front().map(|(.., end)| *end),
            self.moving.iter().map(|(.., end)| *end).min(),
            self.core.poll_timeout(),
        ];
        let next = answers.chain(others.into_iter().flatten()).min().unwrap_or(end);
        // What fell due while the daemon was held up happens now.
        self.now = self.now.max(next);
        while let Some((number, ..)) = self.writing.front().filter(|(.., end)| *end <= self.now) {
            self.write_memory(*number);
        }
        self.connect_clients();
        self.settle_debts();
        for n in 0..self.brokers.len() {
            if self.brokers[n].next_answer <= self.now {
                self.answer(n);
            }
        }
        let now = self.now;
        if let Some(Installation { plan, after, .. }) = self.installing.take_if(|i| i.end <= now) {
            self.write_memory(after);
            self.end_installation(plan);
        }
        while let Some(at) = self.moving.iter().position(|(.., end)| *end <= self.now) {
            let (from, at_most, generation, _) = self.moving.swap_remove(at);
            self.end_move(from, at_most, generation);
        }
        if self.next_look <= self.now {
            self.next_look = self.now + 500 * MS;
            if self.installing.is_none() {
                self.look();
            }
        }
        if self.core.poll_timeout().is_some_and(|due| due <= self.now) {
            self.core.handle_timeout(self.now);
            self.obey();
            self.check_primary();
            let due = self.core.poll_timeout();
            assert!(due.is_none_or(|due| due > self.now), "a busy loop");
        }
    }

    fn input(&mut self, input: Input) {
        if !matches!(input, Input::Probe(..)) {
            self.tell(&input);
        }
        let before = self.statuses();
        self.core.handle(input, self.now);
        self.obey();
        for (before, status) in before.into_iter().zip(self.statuses()) {
            let believed_at_once = before == HealthStatus::Dead && status == HealthStatus::Healthy;
            assert!(!believed_at_once, "a dead broker was believed at once");
        }
        self.check_primary();
    }

    fn statuses(&self) -> Vec<HealthStatus> {
        self.core.brokers.values().map(BrokerHealth::status).collect()
    }

    fn obey(&mut self) {
        while let Some(command) = self.core.next_command() {
            self.tell(&command);
            match command {
                Command::Install(plan) => self.install(plan),
                Command::MoveSessions {
                    from,
                    generation,
                    at_most,
                } => self.move_sessions(from, generation, at_most),
                Command::Remember(memory) => {
                    self.versions += 1;
                    let last = self.writing.back().map_or(self.now, |(.., end)| *end);
                    let end = last.max(self.now + self.random.ms(1, 50));
                    self.writing.push_back((self.versions, *memory, end));
                }
                Command::Emit(occurrence) => self.told(occurrence),
            }
        }
    }

    fn tell(&self, what: &impl std::fmt::Debug) {
        if self.is_told {
            eprintln!("{:.3} {what:?}", self.now.elapsed().as_secs_f64());
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }
}

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..25 {
        let calm = [50, 500, 2500][world.random.below(3) as usize];
        let calm = world.random.ms(10, calm);
        world.run(calm);
        world.fault();
    }
    // Faults stop; at most one broker hangs for good.
    let count = world.brokers.len() as u64;
    let hangs = world.random.below(4 * count) as usize;
    for n in 0..world.brokers.len() {
        let real = if n == hangs && count > 1 {
            Real::Hung
        } else {
            Real::Up
        };
        world.turn(n, real);
        world.ask(Request::Admin {
            broker: id(n + 1),
            wanted: AdminState::Enabled,
            force: false,
        });
    }
    world.turn_nginx(true);
    // The longest recovery and retries of Nginx and of moves, 30 s; then the window of optional switches.
    let end = world.now + 75_000 * MS;
    while world.unsettled().is_some() {
        assert!(world.now < end, "no convergence: {}", world.unsettled().unwrap());
        world.run(100 * MS);
    }
    // And it stays so, and nothing more is installed.
    let generation = world.running.generation;
    world.run(4000 * MS);
    if let Some(what) = world.unsettled() {
        panic!("it did not stay so: {what}");
    }
    assert_eq!(world.running.generation, generation, "a reload without a reason");
}

#[test]
fn whatever_happens_the_invariants_hold_and_the_mesh_converges() {
    if let Ok(seed) = std::env::var("MESH_SEED") {
        return simulate(seed.parse().expect("MESH_SEED is a number"));
    }
    let is_long = std::env::var_os("MESH_TEST_LONG").is_some_and(|value| value == "1");
    let count = if is_long { 20 * HISTORIES } else { HISTORIES };
    let next = AtomicU64::new(0);
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < count
        {
            if let Err(panic) = std::panic::catch_unwind(|| simulate(seed)) {
                eprintln!("replay with MESH_SEED={seed}");
                next.store(count, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
}
