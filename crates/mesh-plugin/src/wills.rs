//! Wills that are held back, and when they need not be.
//!
//! A broker that was hung, or cut off from its peers, does not know that its clients have long connected elsewhere;
//! their wills would declare everyone offline who moved. So a will is published at once only by a broker whose loop
//! has turned steadily and which has heard of its peers. Else it is held until that is so again and peers had time
//! to tell of clients that have moved.

use std::rc::Rc;

use crate::stamp::Hlc;
use crate::standstill::STANDSTILL_MS;

/// After a standstill wills are held for so long, in milliseconds.
const HOLD_MS: u64 = 3_000;

/// Peers tell something each second. One that was not heard of for so long may be cut off.
pub const HEARD_MS: u64 = 2_000;

/// So long a will is held if some peers are heard of, but less than half of them: the others may be dead.
const HOLD_FEW_MS: u64 = 10_000;

/// And so long if none is.
const HOLD_ALONE_MS: u64 = 60_000;

/// So many wills are held at most, and so many bytes.
const MOST: usize = 20_000;
const MOST_BYTES: usize = 16 << 20;

/// How many of its peers a broker has heard of lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// At least half of them.
    Enough,
    /// Fewer.
    Few,
    /// None.
    Alone,
}

impl Company {
    /// So many of so many.
    pub fn of(heard: usize, peers: usize) -> Self {
        match heard {
            _ if 2 * heard >= peers => Self::Enough,
            0 => Self::Alone,
            _ => Self::Few,
        }
    }
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Whose.
    pub id: Rc<[u8]>,
    /// When that client had connected.
    pub since: Hlc,
    /// The topic.
    pub topic: Box<[u8]>,
    /// The payload.
    pub payload: Box<[u8]>,
    /// The quality of service.
    pub qos: u8,
    /// Whether it is to be kept.
    pub retain: bool,
}

/// The wills of one broker, and how steadily it runs.
#[derive(Debug, Default)]
pub struct Wills {
    held: Vec<(u64, Will)>,
    bytes: usize,
    turned_ms: u64,
    unsteady_until_ms: u64,
}

impl Wills {
    /// The broker does something at that time, in milliseconds since the start.
    pub fn looked(&mut self, now_ms: u64) {
        if now_ms > self.turned_ms + STANDSTILL_MS {
            self.unsteady_until_ms = now_ms + HOLD_MS;
        }
        self.turned_ms = now_ms;
    }

    /// Whether a will need not be held at that time.
    pub fn is_steady(&self, company: Company, now_ms: u64) -> bool {
        company == Company::Enough && now_ms >= self.unsteady_until_ms
    }

    /// Holds a will; `false` if there are too many.
    pub fn hold(&mut self, will: Will, now_ms: u64) -> bool {
        let size = size(&will);
        let fits = self.held.len() < MOST && self.bytes + size <= MOST_BYTES;
        if fits {
            self.bytes += size;
            self.held.push((now_ms, will));
        }
        fits
    }

    /// Takes out the wills that need not be held any longer.
    pub fn due(&mut self, company: Company, now_ms: u64) -> Vec<Will> {
        if self.held.is_empty() {
            return Vec::new();
        }
        let hold_ms = match company {
            Company::Enough => HOLD_MS,
            Company::Few => HOLD_FEW_MS,
            Company::Alone => HOLD_ALONE_MS,
        };
        if now_ms < self.unsteady_until_ms {
            return Vec::new();
        }
        let due = self
            .held
            .extract_if(.., |(since_ms, _)| now_ms >= *since_ms + hold_ms);
        let due: Vec<Will> = due.map(|(_, will)| will).collect();
        self.bytes -= due.iter().map(size).sum::<usize>();
        due
    }
}

fn size(will: &Will) -> usize {
    will.topic.len() + will.payload.len() + will.id.len() + size_of::<Will>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn will() -> Will {
        Will {
            id: b"alice".as_slice().into(),
            since: Hlc(1),
            topic: b"status/alice".as_slice().into(),
            payload: b"offline".as_slice().into(),
            qos: 1,
            retain: true,
        }
    }

    fn turn_until(wills: &mut Wills, from_ms: u64, to_ms: u64) {
        (from_ms..=to_ms).step_by(100).for_each(|now| wills.looked(now));
    }

    #[test]
    fn a_standstill_makes_it_unsteady_for_a_while() {
        let mut wills = Wills::default();
        turn_until(&mut wills, 0, 5_000);
        assert!(wills.is_steady(Company::Enough, 5_000));
        assert!(!wills.is_steady(Company::Few, 5_000));
        wills.looked(5_501);
        assert!(!wills.is_steady(Company::Enough, 5_501));
        turn_until(&mut wills, 5_600, 8_500);
        assert!(!wills.is_steady(Company::Enough, 8_500));
        assert!(wills.is_steady(Company::Enough, 8_501));
    }

    #[test]
    fn a_will_is_held_for_as_long_as_the_company_demands() {
        for (company, hold_ms) in [
            (Company::Enough, HOLD_MS),
            (Company::Few, HOLD_FEW_MS),
            (Company::Alone, HOLD_ALONE_MS),
        ] {
            let mut wills = Wills::default();
            assert!(wills.hold(will(), 1_000));
            assert_eq!(wills.due(company, 999 + hold_ms), []);
            assert_eq!(wills.due(company, 1_000 + hold_ms), [will()]);
            assert_eq!(wills.due(company, 1_000 + hold_ms), []);
            assert_eq!(wills.bytes, 0);
        }
        let mut wills = Wills::default();
        wills.hold(will(), 1_000);
        wills.looked(100_000);
        assert_eq!(wills.due(Company::Enough, 100_000), [], "it has just stood still");
    }

    #[test]
    fn wills_are_bounded() {
        let mut wills = Wills::default();
        assert_eq!((0..MOST + 5).filter(|_| wills.hold(will(), 0)).count(), MOST);
        let mut wills = Wills::default();
        let large = Will {
            payload: vec![0; MOST_BYTES].into(),
            ..will()
        };
        assert!(!wills.hold(large, 0));
    }

    #[test]
    fn half_of_the_peers_are_enough() {
        let companies =
            [(0, 0), (2, 4), (1, 4), (0, 4), (0, 1)].map(|(heard, peers)| Company::of(heard, peers));
        let enough = Company::Enough;
        assert_eq!(
            companies,
            [enough, enough, Company::Few, Company::Alone, Company::Alone]
        );
    }
}
