//! Many client sessions that stay connected and come back when they are cut: who was cut, how often, for how
//! long, and where it landed.
//!
//! A session keeps silent between roll calls and has a long keep-alive, so it notices a dead broker only when its
//! connection ends. That is how most devices live, and it shows what a balancer does for them: a session that
//! nobody cuts hangs with its broker. A session that was cut connects again at once, and after a failure
//! [`FleetOptions::retry`] later. Each connection has a client id of its own, by which a broker's log tells
//! where it landed.

mod session;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_model::BrokerId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::lab::Lab;
use session::{Account, Order, Session};

/// Time between two looks at all sessions.
const STEP: Duration = Duration::from_millis(5);

/// What a fleet shall be.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// Begins every client id; no two fleets of a lab have the same.
    pub name: String,
    /// Where sessions connect, in turns.
    pub addresses: Vec<SocketAddr>,
    /// How many.
    pub sessions: usize,
    /// The pause after a connection that could not be made.
    pub retry: Duration,
    /// How long a session waits for a CONNACK.
    pub patience: Duration,
}

/// Running sessions; they end when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    accounts: Vec<Arc<Mutex<Account>>>,
    orders: watch::Sender<Order>,
    _tasks: JoinSet<()>,
}

/// What became of the sessions since an instant.
#[derive(Debug, Clone, Default)]
pub struct Since {
    /// By session, how often an open connection of it ended.
    pub disconnects: Vec<u32>,
    /// For each session that was cut and is connected again, how long after the instant that was for good.
    pub outages: Vec<Duration>,
    /// For each session that was cut, how long after the instant its first connection ended.
    pub closed: Vec<Duration>,
    /// Connections that could not be made, of all sessions, since they were started.
    pub failed_attempts: u64,
}

impl Fleet {
    /// Starts the sessions; see [`Self::wait_connected`].
    pub fn start(options: &FleetOptions) -> Self {
        let orders = watch::Sender::new(Order::default());
        let mut tasks = JoinSet::new();
        let addresses = options.addresses.iter().cycle().take(options.sessions);
        let accounts = addresses.enumerate().map(|(number, address)| {
            let account = Arc::default();
            let session = Session {
                name: format!("{}-{number}", options.name),
                address: *address,
                retry: options.retry,
                patience: options.patience,
                account: Arc::clone(&account),
            };
            tasks.spawn(session.run(orders.subscribe()));
            account
        });
        let accounts = accounts.collect();
        Self {
            accounts,
            orders,
            _tasks: tasks,
        }
    }

    /// Waits until every session is connected, at most until `deadline`; tells how many are.
    pub async fn wait_connected(&self, deadline: Duration) -> usize {
        self.wait(deadline, |account| account.connected).await
    }

    /// Asks every session whether its broker answers; tells how many did within `deadline`.
    pub async fn roll_call(&self, deadline: Duration) -> usize {
        self.orders.send_modify(|order| order.roll_call += 1);
        let round = self.orders.borrow().roll_call;
        self.wait(deadline, |account| account.connected && account.answered >= round)
            .await
    }

    /// Calls the roll until every session's broker answers, at most until `deadline` but at least once; tells how
    /// many did.
    pub async fn wait_answering(&self, deadline: Duration) -> usize {
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let answering = self.roll_call(ROLL_CALL).await;
            if answering == self.accounts.len() || left <= ROLL_CALL {
                return answering;
            }
        }
    }

    /// Makes every session end its connection and connect again, all at once.
    pub fn reconnect(&self) {
        for account in &self.accounts {
            lock(account).connected = false;
        }
        self.orders.send_modify(|order| order.reconnect += 1);
    }

    /// What became of the sessions since `start`.
    pub fn since(&self, start: Instant) -> Since {
        let mut since = Since::default();
        for account in &self.accounts {
            let account = lock(account);
            let mut losses = account.losses.iter().filter(|loss| **loss >= start);
            let first = losses.next();
            let count = first.into_iter().chain(losses).count();
            since.disconnects.push(u32::try_from(count).unwrap_or(u32::MAX));
            if let Some(first) = first {
                since.closed.push(*first - start);
                let back = account.since.filter(|_| account.connected);
                since.outages.extend(back.map(|back| back - start));
            }
            since.failed_attempts += account.failed;
        }
        since
    }

    /// How many sessions each broker has, by the logs since `marks`.
    ///
    /// # Errors
    ///
    /// If a log cannot be read.
    pub fn landed(&self, marks: &LogMarks) -> io::Result<BTreeMap<BrokerId, usize>> {
        let connections: BTreeMap<String, BrokerId> = marks.connections()?.into_iter().collect();
        let mut landed = BTreeMap::new();
        for account in &self.accounts {
            let account = lock(account);
            if let Some(broker) = connections.get(&account.client_id).filter(|_| account.connected) {
                *landed.entry(broker.clone()).or_default() += 1;
            }
        }
        Ok(landed)
    }

    async fn wait(&self, deadline: Duration, is_so: impl Fn(&Account) -> bool) -> usize {
        let end = Instant::now() + deadline;
        loop {
            let count = self
                .accounts
                .iter()
                .filter(|account| is_so(&lock(account)))
                .count();
            if count == self.accounts.len() || Instant::now() >= end {
                return count;
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

/// How long one roll call waits before the next.
const ROLL_CALL: Duration = Duration::from_millis(250);

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long every broker's log was at an instant.
#[derive(Debug)]
pub struct LogMarks(Vec<(BrokerId, PathBuf, u64)>);

impl LogMarks {
    /// The instant is now.
    pub fn now(lab: &Lab) -> Self {
        let mark = |id: &BrokerId| {
            let path = lab.log_dir(id.as_str()).join("mosquitto.log");
            let length = std::fs::metadata(&path).map_or(0, |file| file.len());
            (id.clone(), path, length)
        };
        Self(lab.config().topology.ids().map(mark).collect())
    }

    /// Every client id that has connected since, with its broker, in the order of each log.
    ///
    /// # Errors
    ///
    /// If a log cannot be read.
    pub fn connections(&self) -> io::Result<Vec<(String, BrokerId)>> {
        let mut connections = Vec::new();
        for (id, path, length) in &self.0 {
            let mut file = std::fs::File::open(path)?;
            file.seek(SeekFrom::Start(*length))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let text = String::from_utf8_lossy(&text);
            connections.extend(
                text.lines()
                    .filter_map(connected)
                    .map(|client| (client.to_owned(), id.clone())),
            );
        }
        Ok(connections)
    }
}

/// The client id in Mosquitto's line about a new connection.
fn connected(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(": New client connected from ")?;
    let (_, rest) = rest.split_once(" as ")?;
    Some(rest.rsplit_once(" (p")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_tells_who_connected() {
        let line = "2026-11-23T03:00:00: New client connected from 127.0.0.2:40000 as f1-7-2 (p5, c1, k600).";
        assert_eq!(connected(line), Some("f1-7-2"));
        assert_eq!(
            connected("2026-11-23T03:00:00: Client f1-7-2 disconnected."),
            None
        );
    }
}
