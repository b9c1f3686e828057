//! What happens in one history, drawn from a seed: nothing here has a clock or does anything.

use std::fmt;
use std::time::Duration;

/// Numbers that follow from a seed (splitmix64).
pub struct Random(u64);

impl Random {
    /// Numbers of `seed`; each `stream` of it has its own.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed);
        Self(random.below(u64::MAX) ^ stream.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    /// A place in a list of `length`.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A time from `least` to `most` milliseconds.
    pub fn ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least + 1))
    }
}

/// With which files a broker is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// Those that it left.
    Kept,
    /// Those that were put aside earlier, or none if there are none.
    Old,
    /// None at all.
    Gone,
}

/// One thing to do to the lab. Brokers are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM: it saves its state.
    Stop(usize),
    /// After [`Self::Kill`] and [`Self::Stop`].
    Start(usize, Files),
    /// SIGSTOP.
    Hang(usize),
    /// SIGCONT.
    Resume(usize),
    /// The publisher of the first goes on at the second, whatever it has sent and nobody has answered.
    Move(usize, usize),
    /// Nothing passes between the two.
    Cut(usize, usize),
    /// Nothing passes from the first to the second.
    CutWay(usize, usize),
    /// After [`Self::Cut`] and [`Self::CutWay`].
    Heal(usize, usize),
    /// Its state is saved and put aside, for [`Files::Old`].
    PutAside(usize),
}

/// Which kinds of faults a history may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// Brokers die, stop and hang.
    pub processes: bool,
    /// Networks are cut: needs namespaces.
    pub cuts: bool,
}

/// One history.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What all of it follows from.
    pub seed: u64,
    /// How many brokers.
    pub brokers: usize,
    /// What is done when, in order.
    pub steps: Vec<(Duration, Action)>,
    /// When the last fault is mended and publishers stop.
    pub end: Duration,
}

/// Faults begin no later than this.
const LAST_FAULT_MS: u64 = 9_000;

/// Publishers leave brokers that hang for longer than that, most of the time.
const WORTH_A_MOVE: Duration = Duration::from_millis(1_500);

impl Plan {
    /// The history of `seed`.
    pub fn new(seed: u64, kinds: Kinds) -> Self {
        let mut random = Random::new(seed, 0);
        let brokers = 3 + random.index(3);
        let mut draft = Draft {
            free_at: vec![Duration::ZERO; brokers],
            steps: Vec::new(),
            random,
        };
        let mut at = draft.random.ms(500, 2500);
        let wanted = if kinds.processes || kinds.cuts {
            3 + draft.random.below(5)
        } else {
            0
        };
        for _ in 0..wanted {
            draft.fault(at, kinds);
            at += draft.random.ms(100, 2500);
            if at > Duration::from_millis(LAST_FAULT_MS) {
                break;
            }
        }
        let mut steps = draft.steps;
        strand(seed, brokers, kinds.processes, &mut steps);
        // Stable, so that what was drawn first is done first.
        steps.sort_by_key(|(at, _)| *at);
        let mended = steps.last().map_or(Duration::from_secs(4), |(at, _)| *at);
        Self {
            seed,
            brokers,
            steps,
            end: mended + Duration::from_millis(500),
        }
    }
}

/// Publishers go away from brokers that hang, and come back later. Every other history ends with that. Drawn by itself,
/// so that a seed has the same faults with it and without.
fn strand(seed: u64, brokers: usize, is_hanging: bool, steps: &mut Vec<(Duration, Action)>) {
    let mut random = Random::new(seed, u64::MAX);
    if random.below(2) == 0 && is_hanging {
        let one = random.index(brokers);
        let begin = steps.iter().map(|(at, _)| *at).max().unwrap_or_default() + random.ms(300, 1_500);
        steps.push((begin, Action::Hang(one)));
        steps.push((begin + random.ms(1_600, 3_000), Action::Resume(one)));
    }
    let hangs = steps.iter().enumerate().filter_map(|(nth, (at, action))| {
        let Action::Hang(one) = *action else { return None };
        let resumed = steps[nth..]
            .iter()
            .find(|(end, action)| end > at && *action == Action::Resume(one));
        resumed.map(|(end, _)| (one, *at, *end))
    });
    let mut moves = Vec::new();
    for (one, at, end) in hangs {
        let other = (one + 1 + random.index(brokers - 1)) % brokers;
        let (leaves, returns) = (random.ms(0, 300), random.ms(1_000, 4_000));
        if random.below(4) > 0 && end - at > WORTH_A_MOVE {
            moves.push((at + leaves, Action::Move(one, other)));
            moves.push((end + returns, Action::Move(one, one)));
        }
    }
    steps.extend(moves);
}

/// A plan that is being drawn.
struct Draft {
    /// Until when each broker has a fault that another one must not meddle with.
    free_at: Vec<Duration>,
    steps: Vec<(Duration, Action)>,
    random: Random,
}

impl Draft {
    fn fault(&mut self, at: Duration, kinds: Kinds) {
        let brokers = self.free_at.len();
        let one = self.random.index(brokers);
        let other = (one + 1 + self.random.index(brokers - 1)) % brokers;
        // Shorter than a link's keepalive (5 s, and half of that again), or longer.
        let short = self.random.below(3) > 0;
        let lasts = if short {
            self.random.ms(100, 2_000)
        } else {
            self.random.ms(6_000, 9_000)
        };
        let from = if kinds.processes { 0 } else { 6 };
        let until = if kinds.cuts { 10 } else { 6 };
        match from + self.random.below(until - from) {
            0..=2 => self.death(at, one, lasts),
            3 => self.process_fault(at, one, at + lasts, Action::Hang(one), Action::Resume(one)),
            4 => self.steps.push((at, Action::PutAside(one))),
            5 => {
                self.steps.push((at, Action::PutAside(one)));
                let pause = self.random.ms(500, 2_000);
                self.death(at + pause, one, lasts);
            }
            6 | 7 => self.cut(at, Action::Cut(one, other), one, other, lasts),
            8 => self.cut(at, Action::CutWay(one, other), one, other, lasts),
            _ => {
                for peer in (0..brokers).filter(|peer| *peer != one) {
                    self.cut(at, Action::Cut(one, peer), one, peer, lasts);
                }
            }
        }
    }

    fn death(&mut self, at: Duration, one: usize, lasts: Duration) {
        let how = [
            Action::Kill(one),
            Action::Kill(one),
            Action::Kill(one),
            Action::Stop(one),
        ];
        let how = how[self.random.index(how.len())];
        let files = [Files::Kept, Files::Kept, Files::Old, Files::Gone][self.random.index(4)];
        // At least until the broker is gone in any case.
        let back = at + lasts.max(Duration::from_millis(300));
        self.process_fault(at, one, back, how, Action::Start(one, files));
    }

    /// Two faults of one process at a time would undo each other.
    fn process_fault(&mut self, at: Duration, one: usize, end: Duration, begin: Action, mend: Action) {
        if at < self.free_at[one] {
            return;
        }
        self.free_at[one] = end + Duration::from_millis(200);
        self.steps.extend([(at, begin), (end, mend)]);
    }

    fn cut(&mut self, at: Duration, how: Action, one: usize, other: usize, lasts: Duration) {
        self.steps
            .extend([(at, how), (at + lasts, Action::Heal(one, other))]);
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} brokers", self.seed, self.brokers)?;
        for (at, action) in &self.steps {
            writeln!(f, "{:7.3} {action:?}", at.as_secs_f64())?;
        }
        writeln!(f, "{:7.3} everything is mended", self.end.as_secs_f64())
    }
}

#[test]
fn a_seed_is_a_history_and_all_kinds_of_faults_occur() {
    let all = Kinds {
        processes: true,
        cuts: true,
    };
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let plan = Plan::new(seed, all);
        assert_eq!(plan.to_string(), Plan::new(seed, all).to_string());
        for (_, action) in &plan.steps {
            let text = format!("{action:?}");
            seen.insert(text.split(['(', ',']).next().unwrap_or_default().to_owned());
        }
        let loopback = Plan::new(
            seed,
            Kinds {
                processes: true,
                cuts: false,
            },
        );
        assert!(!loopback.to_string().contains("Cut"), "{loopback}");
    }
    let kinds = [
        "Kill", "Stop", "Start", "Hang", "Resume", "Move", "Cut", "CutWay", "Heal", "PutAside",
    ];
    assert_eq!(seen, kinds.map(str::to_owned).into());
}
