//! What goes wrong when: drawn from a seed. Nothing here has a clock or does anything.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A broker is killed (SIGKILL), and started again at the end.
    Kill,
    /// A broker stands still (SIGSTOP) with its sockets open.
    Hang,
    /// A broker's machine is cut off from everyone without a word.
    Cut,
    /// Two brokers do not reach each other; clients and the balancer reach both.
    CutPair,
    /// What one broker sends to another does not arrive; what comes back does.
    CutWay,
    /// A fifth of the packets from and to a broker's machine is dropped.
    Loss,
    /// mesh-health is killed; its supervisor starts it again.
    Health,
    /// Nginx is killed, and every session with it; its supervisor starts it again.
    Balancer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Kill,
        Self::Hang,
        Self::Cut,
        Self::CutPair,
        Self::CutWay,
        Self::Loss,
        Self::Health,
        Self::Balancer,
    ];

    /// Whether it needs a network for each broker.
    pub fn needs_namespaces(self) -> bool {
        matches!(self, Self::Cut | Self::CutPair | Self::CutWay | Self::Loss)
    }

    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Cut => "cut",
            Self::CutPair => "cut-pair",
            Self::CutWay => "cut-way",
            Self::Loss => "loss",
            Self::Health => "health",
            Self::Balancer => "balancer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("there is no fault {text:?}; there are {known}")
        })
    }
}

/// Whom a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// Whoever is the primary then.
    Primary,
    /// The broker with this place in the order, from 0.
    Broker(usize),
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When it begins, since the start.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// To whom.
    pub victim: Victim,
    /// For faults between two brokers, how many places behind the victim the other one is, at least 1.
    pub other: usize,
    /// How long until it is mended.
    pub lasts: Duration,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, kind, lasts, .. } = self;
        write!(f, "{:8.1} s  {kind}", at.as_secs_f64())?;
        match self.victim {
            _ if matches!(kind, Kind::Health | Kind::Balancer) => {}
            Victim::Primary => f.write_str(" the primary")?,
            Victim::Broker(place) => write!(f, " broker {}", place + 1)?,
        }
        write!(f, ", for {:.1} s", lasts.as_secs_f64())
    }
}

/// The longest that a fault lasts, however rarely faults come.
pub const LONGEST: Duration = Duration::from_secs(20);

/// The steps that follow from a seed, without end, in order.
///
/// Kinds come in turn, each as often as every other, in an order that is drawn anew for each round. Every second victim
/// is the primary. A fault is mended before the next one begins.
#[derive(Debug, Clone)]
pub struct Schedule {
    random: fastrand::Rng,
    kinds: Vec<Kind>,
    /// What is left of this round.
    round: Vec<Kind>,
    every: Duration,
    brokers: usize,
    next: u32,
}

impl Schedule {
    /// The schedule of `seed` for `kinds`, of which there must be one, with a fault `every` so often, on a mesh of
    /// `brokers`, at least two.
    pub fn new(seed: u64, kinds: &[Kind], every: Duration, brokers: usize) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            kinds: kinds.to_vec(),
            round: Vec::new(),
            every,
            brokers,
            next: 1,
        }
    }
}

impl Iterator for Schedule {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.round.is_empty() {
            self.round.clone_from(&self.kinds);
            self.random.shuffle(&mut self.round);
        }
        let kind = self.round.pop()?;
        let victim = match self.random.usize(0..2 * self.brokers) {
            place if place < self.brokers => Victim::Broker(place),
            _ => Victim::Primary,
        };
        let other = 1 + self.random.usize(0..self.brokers.max(2) - 1);
        let share = 0.2 + 0.4 * self.random.f64();
        let at = self.every * self.next;
        self.next += 1;
        Some(Step {
            at,
            kind,
            victim,
            other,
            lasts: self.every.mul_f64(share).min(LONGEST),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    #[test]
    fn a_seed_is_a_schedule() {
        let steps = |seed| -> Vec<Step> { Schedule::new(seed, &Kind::ALL, EVERY, 5).take(100).collect() };
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }

    #[test]
    fn every_kind_comes_as_often_the_primary_more_often_and_nothing_overlaps() {
        let steps: Vec<Step> = Schedule::new(1, &Kind::ALL, EVERY, 5).take(800).collect();
        for kind in Kind::ALL {
            assert_eq!(steps.iter().filter(|step| step.kind == kind).count(), 100);
        }
        let of = |victim| steps.iter().filter(|step| step.victim == victim).count();
        assert!((300..500).contains(&of(Victim::Primary)));
        for place in 0..5 {
            assert!((40..140).contains(&of(Victim::Broker(place))));
        }
        for pair in steps.windows(2) {
            assert!(pair[0].at + pair[0].lasts < pair[1].at);
        }
        assert!(steps.iter().all(|step| (1..5).contains(&step.other)));
        let rare = Schedule::new(1, &Kind::ALL, EVERY * 100, 5).next();
        assert!(rare.is_some_and(|step| step.lasts == LONGEST));
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!(
            "fire"
                .parse::<Kind>()
                .is_err_and(|error| error.contains("cut-pair"))
        );
    }
}
