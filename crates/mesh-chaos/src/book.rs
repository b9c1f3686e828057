//! What all sessions of a fleet write into: the account of messages, who is connected, and how long each fault kept
//! clients away.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_model::BrokerId;

use crate::ledger::Ledger;
use crate::schedule::Kind;

/// Who is lost later than that after a fault was mended, was lost for another reason, and only from then on. Sessions of
/// a broker that hung are closed when another one serves, and by then it may have gone on.
const AFTERMATH: Duration = Duration::from_secs(2);

/// A client of the fleet, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A publisher.
    Publisher(usize),
    /// A subscriber.
    Subscriber(usize),
}

/// A fault that was put in place, and what clients felt of it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Felt {
    /// When, since the start.
    pub at: Duration,
    /// What.
    pub kind: Kind,
    /// Whom it met; `None` for a daemon.
    pub broker: Option<BrokerId>,
    /// Whether that was the primary.
    pub on_primary: bool,
    /// When it was mended.
    pub mended: Option<Duration>,
    /// For each publisher that was cut, how long after the beginning of the fault it was served again.
    pub publishers: Vec<Duration>,
    /// For each subscriber that was cut, how long after the beginning of the fault it was subscribed again.
    pub subscribers: Vec<Duration>,
    /// The longest wait for an acknowledgement, from when the message was due.
    pub longest_wait: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Pages {
    /// What became of every message.
    pub ledger: Ledger,
    /// The faults so far.
    pub faults: Vec<Felt>,
    /// How often a broker has died.
    pub deaths: u64,
    /// Connections that ended though there was no fault yet.
    pub unprovoked: u64,
    /// By place, since when each publisher has no connection; `None` while it has one.
    publishers: Vec<Option<Duration>>,
    subscribers: Vec<Option<Duration>>,
}

/// The book of a run, shared by everyone, and its clock.
#[derive(Debug, Clone)]
pub struct Book {
    start: Instant,
    pages: Arc<Mutex<Pages>>,
}

impl Book {
    /// An empty book for so many publishers, of which some have their messages retained, and subscribers.
    pub fn new(publishers: usize, is_retained: impl Fn(usize) -> bool, subscribers: usize) -> Self {
        Self {
            start: Instant::now(),
            pages: Arc::new(Mutex::new(Pages {
                ledger: Ledger::new(publishers, is_retained),
                faults: Vec::new(),
                deaths: 0,
                unprovoked: 0,
                publishers: vec![Some(Duration::ZERO); publishers],
                subscribers: vec![Some(Duration::ZERO); subscribers],
            })),
        }
    }

    /// What has passed since the start.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Opens it.
    pub fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    /// How many clients are served.
    pub fn served(&self) -> usize {
        let all = self.publishers.iter().chain(&self.subscribers);
        all.filter(|since| since.is_none()).count()
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.publishers.len() + self.subscribers.len()
    }

    /// For how long the client that waits longest has not been served.
    pub fn longest_absence(&self, now: Duration) -> Duration {
        let all = self.publishers.iter().chain(&self.subscribers).flatten();
        all.map(|since| now.saturating_sub(*since))
            .max()
            .unwrap_or_default()
    }

    /// A client's connection has ended.
    pub fn lost(&mut self, client: Client, now: Duration) {
        let since = self.since(client);
        if since.is_none() {
            *since = Some(now);
            self.unprovoked += u64::from(self.faults.is_empty());
        }
    }

    /// A client is served again; the time goes to the latest fault before it was lost.
    pub fn served_again(&mut self, client: Client, now: Duration) {
        let Some(lost) = self.since(client).take() else {
            return;
        };
        let Some(fault) = self.faults.iter_mut().rev().find(|fault| fault.at <= lost) else {
            return;
        };
        let begin = if fault.mended.is_some_and(|mended| mended + AFTERMATH < lost) {
            lost
        } else {
            fault.at
        };
        let outage = now.saturating_sub(begin);
        match client {
            Client::Publisher(_) => fault.publishers.push(outage),
            Client::Subscriber(_) => fault.subscribers.push(outage),
        }
    }

    /// A witness is subscribed for the first time, or again.
    pub fn witness_ready(&mut self, place: usize) {
        self.subscribers[place] = None;
    }

    /// A message was acknowledged so long after it was due.
    pub fn waited(&mut self, wait: Duration) {
        if let Some(fault) = self.faults.last_mut() {
            fault.longest_wait = fault.longest_wait.max(wait);
        }
    }

    fn since(&mut self, client: Client) -> &mut Option<Duration> {
        match client {
            Client::Publisher(place) => &mut self.publishers[place],
            Client::Subscriber(place) => &mut self.subscribers[place],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn an_outage_goes_to_the_fault_that_caused_it() {
        let book = Book::new(1, |_| false, 1);
        let mut pages = book.pages();
        for client in [Client::Publisher(0), Client::Subscriber(0)] {
            pages.served_again(client, S);
        }
        assert_eq!((pages.served(), pages.unprovoked), (2, 0));
        let fault = |at, mended| Felt {
            at,
            kind: Kind::Kill,
            broker: None,
            on_primary: true,
            mended,
            publishers: Vec::new(),
            subscribers: Vec::new(),
            longest_wait: Duration::ZERO,
        };
        pages.faults.push(fault(10 * S, None));
        pages.lost(Client::Publisher(0), 11 * S);
        assert_eq!(pages.longest_absence(13 * S), 2 * S);
        pages.faults.push(fault(12 * S, Some(13 * S)));
        pages.served_again(Client::Publisher(0), 14 * S);
        pages.lost(Client::Subscriber(0), 20 * S);
        pages.served_again(Client::Subscriber(0), 21 * S);
        assert_eq!(pages.faults[0].publishers, [4 * S], "from the fault on");
        assert_eq!(
            pages.faults[1].subscribers,
            [S],
            "it was lost long after it was mended"
        );
        pages.lost(Client::Subscriber(0), 14 * S);
        pages.served_again(Client::Subscriber(0), 15 * S);
        assert_eq!(
            pages.faults[1].subscribers,
            [S, 3 * S],
            "it was lost as a consequence"
        );
    }
}
