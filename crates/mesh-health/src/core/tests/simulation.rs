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

    fn find(&mut self) {
        let found = Found {
            running: self.nginx_up.then(|| self.running.clone()),
            on_disk: Some(self.on_disk.clone()),
            is_current: true,
        };
        self.input(Input::Found(found));
    }

    fn fault(&mut self) {
        let n = self.random.below(self.brokers.len() as u64) as usize;
        match self.random.below(22) {
            0..=2 => self.turn(n, Real::Gone),
            3 | 4 => self.turn(n, Real::Hung),
            5 => self.turn(n, Real::Slow),
            6..=9 => self.turn(n, Real::Up),
            10 => (0..self.brokers.len()).for_each(|n| self.turn(n, Real::Hung)),
            11 => (0..self.brokers.len()).for_each(|n| self.turn(n, Real::Up)),
            12 => self.turn_nginx(!self.nginx_up),
            13 => {
                let asleep = self.random.ms(100, 5000);
                self.now = self.now + asleep;
                self.input(Input::Lagged(asleep));
            }
            14 => self.throw_probe_out(n),
            15 | 16 => {
                let wanted = AdminState::ALL[self.random.below(3) as usize];
                let force = self.random.below(4) == 0;
                self.ask(Request::Admin {
                    broker: id(n + 1),
                    wanted,
                    force,
                });
            }
            17 => self.ask(Request::Failback),
            // A reload that got lost, or a file that somebody put back and had read.
            18 => {
                self.run_plan(self.old.0.clone());
                self.excuse = true;
            }
            19 | 20 => self.restart_quickly(n),
            _ => self.restart_daemon(),
        }
    }

    fn turn(&mut self, n: usize, real: Real) {
        let before = std::mem::replace(&mut self.brokers[n].real, real);
        self.brokers[n].next_answer = self.now + 10 * MS;
        if real == Real::Up && before != Real::Up {
            // What it missed while it was away is brought in.
            self.brokers[n].in_sync_at = self.now + self.random.ms(0, 6000);
            self.brokers[n].told = None;
        }
        self.tell(&(id(n + 1), real));
        if real == Real::Gone && before != Real::Gone {
            self.brokers[n].boot += 1;
            self.waiting += std::mem::take(&mut self.brokers[n].sessions);
            self.throw_probe_out(n);
        }
    }

    fn throw_probe_out(&mut self, n: usize) {
        self.brokers[n].heard = None;
        self.input(Input::Probe(id(n + 1), Sign::SessionEnded));
    }

    /// A broker is back before the probe was refused, but maybe not before a client was.
    fn restart_quickly(&mut self, n: usize) {
        self.turn(n, Real::Gone);
        if self.random.below(2) == 0 {
            self.connect_clients();
        }
        self.turn(n, Real::Up);
    }

    fn turn_nginx(&mut self, up: bool) {
        if !up {
            for broker in &mut self.brokers {
                self.waiting += std::mem::take(&mut broker.sessions);
            }
        } else if !self.nginx_up {
            self.run_plan(self.on_disk.clone());
        }
        self.nginx_up = up;
        self.excuse = true;
    }

    fn ask(&mut self, request: Request) {
        self.is_operator = true;
        self.tell(&request);
        let before = self.core.admin.clone();
        let result = self.core.request(request.clone(), self.now);
        match (request, result) {
            (Request::Admin { broker, wanted, .. }, Ok(_)) => {
                assert_eq!(self.core.admin[&broker], wanted);
                if wanted == AdminState::Enabled && before[&broker] != wanted {
                    // Who is still connected there may stay.
                    self.owing.remove(&broker);
                    if self.core.brokers[&broker].status() != HealthStatus::Dead {
                        self.demoted.remove(&broker);
                    }
                }
            }
            (Request::Failback, Ok(Granted::Failback { to, .. })) => self.asked = Some(to),
            _ => {}
        }
        self.obey();
        self.is_operator = false;
    }

    /// The daemon is killed, in the middle of whatever it does, and started again.
    fn restart_daemon(&mut self) {
        if let Some(Installation { plan, after, .. }) = self.installing.take()
            && self.random.below(2) == 0
        {
            self.write_memory(after);
            self.on_disk = plan.clone();
            if self.random.below(2) == 0 && self.nginx_up {
                self.reload(plan);
            }
        }
        self.moving.clear();
        self.now = self.now + self.random.ms(10, 3000);
        let count = self.brokers.len();
        self.writing.clear();
        let core = Core::new(topology(count), self.rules.clone(), first_plan(count), self.now);
        self.core = core.recalling(self.kept.clone());
        self.highest = self.running.generation.max(self.on_disk.generation);
        self.excuse = true;
        // What ended a demotion may not have been kept any more.
        let again = self.kept.demoted.intersection(&self.ever_demoted);
        self.demoted.extend(again.cloned());
        let highest = self.highest;
        self.automatic.retain(|(_, generation)| *generation <= highest);
        for broker in &mut self.brokers {
            broker.heard = None;
            broker.told = None;
        }
        let known = self.kept.brokers.get(&self.running.primary);
        if known.is_none_or(|past| past.boot.is_none()) {
            // Killed before it had heard its first number: nobody can know what happened meanwhile.
            self.avoids = false;
        }
        self.find();
    }

    /// What was to be kept up to this number is on the disk.
    fn write_memory(&mut self, number: u64) {
        while let Some((_, memory, _)) = self.writing.pop_front_if(|(first, ..)| *first <= number) {
            self.kept = memory;
        }
    }

    /// Nginx runs `plan`, and begins anew with nobody to avoid. Returns what it ran before.
    fn run_plan(&mut self, plan: Plan) -> Plan {
        self.avoids = false;
        if self.core.rollout.wanted().primary == plan.primary {
            self.demoted.remove(&plan.primary);
        }
        std::mem::replace(&mut self.running, plan)
    }

    fn reload(&mut self, plan: Plan) {
        if self.core.rollout.wanted().primary != plan.primary && self.demoted.contains(&plan.primary) {
            // It was demoted again before it came to serve.
            self.owing.insert(plan.primary.clone());
        }
        self.asked.take_if(|asked| *asked == plan.primary);
        let before = self.run_plan(plan);
        self.old = (before, self.now + 100 * MS);
    }

    /// Clients without a session connect, as Nginx has them.
    fn connect_clients(&mut self) {
        if !self.nginx_up || self.waiting == 0 {
            return;
        }
        let by_old = self.now < self.old.1 && self.random.below(2) == 0;
        let plan = if by_old { &self.old.0 } else { &self.running };
        let place = |id: &BrokerId| self.core.topology.priority(id).unwrap();
        let is_gone = |n: &usize| self.brokers[*n].real == Real::Gone;
        let has_standbys = !plan.standbys.is_empty();
        let primary = Some(place(&plan.primary)).filter(|_| by_old || !self.avoids || !has_standbys);
        let avoids = primary.as_ref().is_some_and(is_gone) && has_standbys && !by_old;
        let mut places = primary.into_iter().chain(plan.standbys.iter().map(place));
        let found = places.find(|n| !is_gone(n));
        self.avoids |= avoids;
        if let Some(n) = found {
            self.brokers[n].sessions += std::mem::take(&mut self.waiting);
        }
    }

    /// A demoted broker without sessions owes nothing, once no worker sends clients there any longer.
    fn settle_debts(&mut self) {
        if !self.core.rollout.is_confirmed() || self.now < self.old.1 {
            return;
        }
        let primary = &self.core.rollout.wanted().primary;
        let sessions = |id: &BrokerId| self.brokers[self.core.topology.priority(id).unwrap()].sessions;
        self.owing.retain(|id| id != primary && sessions(id) > 0);
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

    fn answer(&mut self, n: usize) {
        let late = match self.brokers[n].real {
            Real::Slow => self.random.ms(300, 950),
            _ => self.random.ms(180, 220),
        };
        self.brokers[n].next_answer = self.now + late;
        match self.brokers[n].real {
            Real::Up | Real::Slow => {
                self.hear_boot(n);
                self.input(Input::Probe(id(n + 1), Sign::Answer { rtt: MS }));
                self.hear_boot(n);
                self.hear_sync(n);
                if self.random.below(4) == 0 {
                    self.input(Input::Probe(id(n + 1), Sign::RoundTrip));
                }
            }
            Real::Gone => self.input(Input::Probe(id(n + 1), Sign::Refused("refused".to_owned()))),
            Real::Hung => {}
        }
    }

    fn hear_sync(&mut self, n: usize) {
        let in_sync = self.now >= self.brokers[n].in_sync_at;
        if self.brokers[n].tells {
            self.brokers[n].told = Some(in_sync);
            let retained = Retained {
                count: 1,
                digest: None,
                in_sync,
            };
            self.input(Input::Reading {
                broker: id(n + 1),
                reading: Reading::Retained(retained),
                kept: false,
            });
        }
    }

    /// Whether the broker has told that it lacks something, or that it does not.
    fn has_all(&self, id: &BrokerId) -> Option<bool> {
        let n = self.core.topology.priority(id).unwrap();
        self.brokers[n].told
    }

    /// Nobody is sent to a broker that lacks something while one that does not could serve.
    fn check_sync(&self, name: EventName, from: &BrokerId, to: &BrokerId) {
        if self.has_all(to) != Some(false) {
            return;
        }
        let failover = EventName::FailoverStarted;
        assert_eq!(name, failover, "a failback to {to}, which lacks something");
        let mut others = self.core.brokers.iter().filter(|(id, broker)| {
            *id != from
                && broker.status() == HealthStatus::Healthy
                && self.core.admin[*id] == AdminState::Enabled
        });
        let better = others.find(|(id, _)| self.has_all(id) == Some(true));
        assert!(
            better.is_none(),
            "{to} lacks something and is to serve, {better:?} has all"
        );
    }

    /// The number of a start comes before the first answer, after it, or a little later.
    fn hear_boot(&mut self, n: usize) {
        let boot = self.brokers[n].boot;
        if self.brokers[n].heard != Some(boot) && self.random.below(3) == 0 {
            self.brokers[n].heard = Some(boot);
            // Nginx may have come to avoid a broker that was started again.
            self.excuse |= self.core.brokers[&id(n + 1)].past().boot != Some(boot);
            self.input(Input::Probe(id(n + 1), Sign::Boot(boot)));
        }
    }

    fn end_installation(&mut self, plan: Plan) {
        let outcome = match (self.nginx_up, self.random.below(10)) {
            (false, _) => Outcome::Written("Nginx does not run".to_owned()),
            (true, 0) => Outcome::Rejected("refused".to_owned()),
            (true, _) => Outcome::Confirmed,
        };
        self.excuse |= outcome != Outcome::Confirmed;
        if !matches!(outcome, Outcome::Rejected(_)) {
            self.on_disk = plan.clone();
        }
        if outcome == Outcome::Confirmed {
            self.input(Input::Reloaded(plan.generation));
            self.reload(plan.clone());
        }
        self.input(Input::Installed(plan.generation, outcome));
    }

    fn end_move(&mut self, from: BrokerId, at_most: Option<u32>, generation: u64) {
        let result = if self.random.below(10) == 0 {
            Err("not permitted".to_owned())
        } else {
            self.input(Input::OldWorkersStopped(generation));
            let n = self.core.topology.priority(&from).unwrap();
            let most = at_most.map_or(u64::MAX, u64::from);
            // The shell looks once more before it closes.
            let serves = self.core.rollout.wanted().primary == from;
            let broker = &mut self.brokers[n];
            let closed = if serves { 0 } else { broker.sessions.min(most) };
            broker.sessions -= closed;
            self.waiting += closed;
            Ok(Closed {
                closed,
                left: broker.sessions,
            })
        };
        self.input(Input::Moved { from, result });
    }

    fn look(&mut self) {
        let answer = match self.nginx_up {
            true => Ok(self.running.clone()),
            false => Err("Nginx does not answer".to_owned()),
        };
        let unreachable = (!self.nginx_up).then(|| "Nginx does not run".to_owned());
        self.input(Input::Looked(Look {
            answer,
            unreachable,
            old_workers: None,
        }));
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

    fn told(&mut self, occurrence: Occurrence) {
        let Occurrence {
            name,
            from,
            to,
            generation,
            ..
        } = occurrence;
        let (Some(from), Some(to)) = (from, to) else {
            return;
        };
        if !matches!(name, EventName::FailoverStarted | EventName::FailbackStarted) {
            return;
        }
        self.check_sync(name, &from, &to);
        let is_enabled = self.core.admin[&from] == AdminState::Enabled;
        if name == EventName::FailoverStarted {
            let dead = self.core.brokers[&from].status() == HealthStatus::Dead;
            assert!(dead || !is_enabled, "a primary that may serve was demoted");
        } else if !self.is_operator && self.asked.as_ref() != Some(&to) {
            assert_ne!(
                self.rules.failback,
                Failback::Never,
                "nobody asked for a failback"
            );
            let window = self.rules.optional_switch_window;
            self.automatic.retain(|(then, _)| self.now.since(*then) < window);
            self.automatic.push((self.now, generation.unwrap()));
            assert!(self.automatic.len() <= 3, "too many optional switches");
        }
        // There and back while an installation lasts: Nginx may have come to avoid the primary meanwhile.
        self.excuse = true;
        self.owing.remove(&to);
        if self.running.primary == from {
            self.owing.insert(from.clone());
        }
        self.ever_demoted.insert(from.clone());
        self.demoted.insert(from);
    }

    fn install(&mut self, plan: Plan) {
        assert!(self.installing.is_none(), "two installations at a time");
        assert!(
            !plan.standbys.contains(&plan.primary),
            "a primary among the standbys"
        );
        let standbys: BTreeSet<_> = plan.standbys.iter().collect();
        assert_eq!(standbys.len(), plan.standbys.len(), "a standby twice");
        for (id, admin) in &self.core.admin {
            let enabled = *admin == AdminState::Enabled;
            let listed = standbys.contains(id);
            assert!(
                *id == plan.primary || enabled == listed,
                "{id} is {admin}: {plan:?}"
            );
        }
        assert!(plan.generation >= self.highest, "generations rise");
        let same = self.previous.same_order(&plan);
        assert!(!same || self.excuse, "a reload for equal content");
        self.highest = plan.generation;
        // A primary that is dead still needs another plan when it returns.
        self.excuse = self.core.brokers[&plan.primary].status() == HealthStatus::Dead;
        self.previous = plan.clone();
        let end = self.now + self.random.ms(20, 2000);
        self.installing = Some(Installation {
            plan,
            end,
            after: self.versions,
        });
    }

    fn move_sessions(&mut self, from: BrokerId, generation: u64, at_most: Option<u32>) {
        let rollout = &self.core.rollout;
        assert!(rollout.is_confirmed(), "moved before the plan was confirmed");
        assert_eq!(generation, rollout.wanted().generation);
        assert_ne!(from, rollout.wanted().primary, "sessions of the primary are cut");
        let dead = self.core.brokers[&from].status() == HealthStatus::Dead;
        let unwanted = self.core.admin[&from] != AdminState::Enabled;
        assert!(
            dead || unwanted || self.demoted.contains(&from),
            "sessions of {from} are cut without a reason"
        );
        let twice = self.moving.iter().any(|(other, ..)| *other == from);
        assert!(!twice, "two orders for one broker");
        let end = self.now + self.random.ms(1, 200);
        self.moving.push((from, at_most, generation, end));
    }

    /// A primary that cannot serve stays only while nobody else can.
    fn check_primary(&mut self) {
        assert_eq!(self.core.memory(), self.core.remembered, "something is not kept");
        let primary = &self.core.rollout.wanted().primary;
        let is_dead = self.core.brokers[primary].status() == HealthStatus::Dead;
        self.excuse |= is_dead;
        if !is_dead && self.core.admin[primary] == AdminState::Enabled {
            return;
        }
        let candidates = self.core.candidates();
        let own = candidates[primary];
        let enabled = candidates
            .values()
            .filter(|other| other.admin == AdminState::Enabled);
        let out = enabled.clone().any(|other| other.status == HealthStatus::Unknown);
        let better = enabled.clone().any(Candidate::is_eligible);
        assert!(
            out || !better || !self.core.rollout.is_adopted(),
            "{own:?} stays though another is eligible"
        );
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// Everything is as it should be, but for the broker that hangs for good, if there is one.
    fn unsettled(&self) -> Option<String> {
        let view = self.core.view(self.now);
        let primary = self.core.topology.priority(&view.wanted.primary).unwrap();
        let of_others = self.brokers.iter().enumerate().filter(|(n, _)| *n != primary);
        let stuck = of_others.filter(|(_, broker)| broker.real == Real::Hung);
        let stuck: u64 = stuck.map(|(_, broker)| broker.sessions).sum();
        let healthy = view.brokers.iter().zip(&self.brokers).all(|(believed, is)| {
            let expected = match is.real {
                Real::Up => HealthStatus::Healthy,
                _ => HealthStatus::Dead,
            };
            believed.health == expected && believed.admin == AdminState::Enabled
        });
        let goes_back = self.rules.failback != Failback::Never;
        let up = self.brokers.iter().filter(|broker| broker.real == Real::Up);
        let in_sync = up
            .into_iter()
            .all(|broker| !broker.tells || broker.told == Some(true));
        let belongs = !goes_back || self.core.failback_target(&self.core.candidates()).is_none();
        let lasts = |incident: &Incident| match &incident.subject {
            Subject::Broker(id) => self.core.brokers[id].status() != HealthStatus::Dead,
            _ => true,
        };
        let lasting = self.core.incidents().filter(|i| i.is_open() && lasts(i)).count();
        let quiet = |broker: &Broker| broker.real == Real::Hung || broker.heard == Some(broker.boot);
        let settled = view.state == MeshState::Ok
            && self.brokers.iter().all(quiet)
            && *view.wanted == self.running
            && healthy
            && stuck == 0
            && self.owing.is_empty()
            && !self.avoids
            && lasting == 0
            && self.waiting == 0
            && in_sync
            && belongs;
        let (owing, avoids, waiting) = (&self.owing, self.avoids, self.waiting);
        let what = || {
            format!("{stuck} stuck, {waiting} waiting, {owing:?} owe, avoids {avoids}, {lasting} incidents")
        };
        (!settled).then(|| format!("{}: {view:#?}", what()))
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
