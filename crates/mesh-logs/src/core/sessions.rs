//! Who is connected where, kept from what brokers and the balancer log.
//!
//! Lines of different programs come in any order within a short time; each fact is applied when it comes, and what is
//! missing is filled in later. What changed is handed out by [`Tracker::changes`] and stored with the lines that told it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_model::Topology;
use mesh_model::names::CLIENT_ID_PREFIX;
use mesh_store::sessions::SessionChanges;
use mesh_store::{ProxiedConnection, Session};

use super::fact::{Connected, Fact};

/// How long one line may be behind another of the same connection.
const APART_NS: i64 = 120 * 1_000_000_000;

/// Times of lines are in whole seconds.
const TICK_NS: i64 = 1_000_000_000;

/// What never found its other half is forgotten, the oldest first, beyond so many.
const MOST_WAITING: usize = 100_000;

type Client = (Arc<str>, String);

/// The sessions of all brokers; see the module.
#[derive(Debug)]
pub struct Tracker {
    /// The balancer's address towards brokers, if it has one of its own: every other address is a client's.
    balancer: Option<IpAddr>,
    /// The brokers by their addresses, as Nginx calls them.
    brokers: HashMap<String, Arc<str>>,
    /// Sessions that are open or not complete yet.
    sessions: BTreeMap<i64, Session>,
    open: HashMap<Client, i64>,
    /// Sessions that ended because their broker was taken to be dead, which may not be the end.
    doubtful: HashMap<Client, i64>,
    /// Sessions whose real address is not known, by broker and the address that it sees.
    without_address: HashMap<Client, i64>,
    /// Connections of the balancer by source and number.
    proxied: BTreeMap<(i64, i64), ProxiedConnection>,
    /// Those whose session is not known, by broker and the address that it sees.
    without_session: HashMap<Client, (i64, i64)>,
    /// When those of them ended that are over: the broker's lines may still come.
    closed: HashMap<(i64, i64), i64>,
    next_id: i64,
    changed: BTreeSet<i64>,
    changed_proxied: BTreeSet<(i64, i64)>,
    /// Connections that are in the database.
    stored_proxied: BTreeSet<(i64, i64)>,
    gone: BTreeSet<(i64, i64)>,
    latest_ns: i64,
}

impl Tracker {
    /// Goes on with what is stored.
    pub fn new(
        topology: &Topology,
        balancer: Option<IpAddr>,
        open: Vec<Session>,
        proxied: Vec<ProxiedConnection>,
        next_id: i64,
    ) -> Self {
        let name = |broker: &mesh_model::Broker| (broker.address.to_string(), Arc::from(broker.id.as_str()));
        let mut tracker = Self {
            balancer,
            brokers: topology.brokers().iter().map(name).collect(),
            sessions: BTreeMap::new(),
            open: HashMap::new(),
            doubtful: HashMap::new(),
            without_address: HashMap::new(),
            proxied: BTreeMap::new(),
            without_session: HashMap::new(),
            closed: HashMap::new(),
            next_id,
            changed: BTreeSet::new(),
            changed_proxied: BTreeSet::new(),
            stored_proxied: BTreeSet::new(),
            gone: BTreeSet::new(),
            latest_ns: 0,
        };
        for session in open {
            let broker: Arc<str> = session.broker.as_str().into();
            if let (None, Some(address)) = (&session.remote_addr, &session.broker_addr) {
                let key = (Arc::clone(&broker), address.clone());
                tracker.without_address.insert(key, session.id);
            }
            tracker
                .open
                .insert((broker, session.client_id.clone()), session.id);
            tracker.sessions.insert(session.id, session);
        }
        for connection in proxied {
            let key = (connection.source, connection.number);
            if let (Some(address), Some(broker)) = (&connection.broker_addr, tracker.broker_of(&connection)) {
                tracker.without_session.insert((broker, address.clone()), key);
            }
            tracker.stored_proxied.insert(key);
            tracker.proxied.insert(key, connection);
        }
        tracker
    }

    /// How many sessions are open at each broker.
    pub fn open_by_broker(&self) -> BTreeMap<Arc<str>, u64> {
        let mut counts = BTreeMap::new();
        for (broker, _) in self.open.keys() {
            *counts.entry(Arc::clone(broker)).or_default() += 1;
        }
        counts
    }

    /// Applies what a line of `broker` (if of one) in the source with this number tells.
    pub fn apply(&mut self, fact: Fact, source: i64, broker: Option<&Arc<str>>, time_ns: i64) {
        self.latest_ns = self.latest_ns.max(time_ns);
        match (fact, broker) {
            (Fact::Connected(connected), Some(broker)) => self.connected(connected, broker, time_ns),
            (Fact::Disconnected { client_id, reason }, Some(broker)) => {
                self.disconnected((Arc::clone(broker), client_id), &reason, time_ns);
            }
            (Fact::BrokerStarts, Some(broker)) => {
                self.doubtful.retain(|(other, _), _| other != broker);
                self.end_all(broker, "broker restarted", time_ns);
            }
            (Fact::BrokerStops, Some(broker)) => {
                self.end_all(broker, "broker stopped", time_ns);
            }
            (Fact::BrokerDead { broker, reason }, _) => {
                let broker: Arc<str> = broker.into();
                let ended = self.end_all(&broker, &format!("broker dead: {reason}"), time_ns);
                self.doubtful.extend(ended);
            }
            (Fact::BrokerHealthy { broker }, _) => self.reopen(&broker),
            (Fact::Accepted { number, remote_addr }, _) => {
                self.accepted((source, number), remote_addr, time_ns)
            }
            (
                Fact::Proxied {
                    number,
                    broker_addr,
                    upstream,
                },
                _,
            ) => self.proxied((source, number), broker_addr, upstream, time_ns),
            (Fact::Closed { number }, _) => self.closed((source, number), time_ns),
            (
                Fact::Connected(_) | Fact::Disconnected { .. } | Fact::BrokerStarts | Fact::BrokerStops,
                None,
            ) => {}
        }
    }

    fn connected(&mut self, connected: Connected, broker: &Arc<str>, time_ns: i64) {
        // Links and probes are the mesh itself.
        if connected.client_id.starts_with(CLIENT_ID_PREFIX) {
            return;
        }
        let client = (Arc::clone(broker), connected.client_id.clone());
        self.disconnected(client.clone(), "taken over by a new connection", time_ns);
        let id = self.next_id;
        self.next_id += 1;
        let address = (Arc::clone(broker), connected.address.clone());
        let known = self.without_session.get(&address).copied();
        let known = known
            .and_then(|key| self.proxied.get(&key))
            .filter(|proxied| is_near(proxied.time_ns, time_ns))
            .filter(|proxied| !self.was_over((proxied.source, proxied.number), time_ns));
        let mut remote_addr = known.map(|proxied| proxied.remote_addr.clone());
        if let Some(key) = known.map(|proxied| (proxied.source, proxied.number)) {
            self.forget_proxied(key);
        } else if self
            .balancer
            .is_some_and(|balancer| !is_from(&connected.address, balancer))
        {
            remote_addr = Some(connected.address.clone());
        } else {
            self.without_address.insert(address, id);
        }
        let session = Session {
            id,
            client_id: connected.client_id,
            broker: broker.to_string(),
            username: connected.username,
            protocol: Some(connected.protocol.to_owned()),
            keep_alive: Some(connected.keep_alive),
            clean_start: Some(connected.clean_start),
            connected_at: time_ns,
            disconnected_at: None,
            reason: None,
            remote_addr,
            broker_addr: Some(connected.address),
        };
        self.sessions.insert(id, session);
        self.open.insert(client, id);
        self.changed.insert(id);
    }

    fn disconnected(&mut self, client: Client, reason: &str, time_ns: i64) {
        let id = self
            .open
            .remove(&client)
            .or_else(|| self.doubtful.remove(&client));
        if let Some(session) = id.and_then(|id| self.sessions.get_mut(&id)) {
            session.disconnected_at = Some(time_ns.max(session.connected_at));
            session.reason = Some(reason.to_owned());
            self.changed.insert(session.id);
        }
    }

    /// Ends the sessions of `broker` that began before `time_ns`.
    fn end_all(&mut self, broker: &Arc<str>, reason: &str, time_ns: i64) -> Vec<(Client, i64)> {
        let began_before = |id: &i64| {
            self.sessions
                .get(id)
                .is_some_and(|session| session.connected_at <= time_ns)
        };
        let of_broker = self
            .open
            .iter()
            .filter(|((other, _), id)| other == broker && began_before(id));
        let ended: Vec<(Client, i64)> = of_broker.map(|(client, id)| (client.clone(), *id)).collect();
        for (client, _) in &ended {
            self.disconnected(client.clone(), reason, time_ns);
        }
        ended
    }

    /// The broker was not dead after all: whoever has not left since is still there.
    fn reopen(&mut self, broker: &str) {
        let of_broker = self.doubtful.extract_if(|(other, _), _| &**other == broker);
        for (client, id) in of_broker.collect::<Vec<_>>() {
            if let Some(session) = self.sessions.get_mut(&id) {
                session.disconnected_at = None;
                session.reason = None;
                self.changed.insert(id);
                self.open.insert(client, id);
            }
        }
    }

    fn accepted(&mut self, key: (i64, i64), remote_addr: String, time_ns: i64) {
        // After a restart Nginx counts from the beginning.
        self.forget_proxied(key);
        let connection = ProxiedConnection {
            source: key.0,
            number: key.1,
            remote_addr,
            broker_addr: None,
            upstream: None,
            time_ns,
        };
        self.proxied.insert(key, connection);
        self.changed_proxied.insert(key);
        if self.gone.remove(&key) {
            self.stored_proxied.insert(key);
        }
    }

    fn proxied(&mut self, key: (i64, i64), broker_addr: String, upstream: String, time_ns: i64) {
        let Some(connection) = self.proxied.get_mut(&key) else {
            return;
        };
        connection.broker_addr = Some(broker_addr.clone());
        connection.upstream = Some(upstream);
        connection.time_ns = time_ns;
        self.changed_proxied.insert(key);
        let connection = connection.clone();
        let Some(broker) = self.broker_of(&connection) else {
            return;
        };
        let address = (broker, broker_addr);
        let waiting = self.without_address.get(&address).copied();
        let session = waiting.and_then(|id| self.sessions.get_mut(&id));
        match session.filter(|session| is_near(session.connected_at, time_ns)) {
            Some(session) => {
                session.remote_addr = Some(connection.remote_addr);
                self.changed.insert(session.id);
                self.without_address.remove(&address);
                self.forget_proxied(key);
            }
            None => {
                self.without_session.insert(address, key);
            }
        }
    }

    /// One that reached a broker may have a session of which nothing has been read yet: of two files, the balancer's may be
    /// ahead.
    fn closed(&mut self, key: (i64, i64), time_ns: i64) {
        match self.proxied.get(&key) {
            Some(connection) if connection.broker_addr.is_some() => {
                self.closed.insert(key, time_ns);
            }
            _ => self.forget_proxied(key),
        }
    }

    /// Whether a connection was over at this time, so that whoever came from its address then came over another one.
    fn was_over(&self, key: (i64, i64), time_ns: i64) -> bool {
        let closed = self.closed.get(&key);
        closed.is_some_and(|closed| closed.saturating_add(TICK_NS) < time_ns)
    }

    fn broker_of(&self, connection: &ProxiedConnection) -> Option<Arc<str>> {
        self.brokers.get(connection.upstream.as_ref()?).cloned()
    }

    fn forget_proxied(&mut self, key: (i64, i64)) {
        self.closed.remove(&key);
        if let Some(connection) = self.proxied.remove(&key) {
            if let (Some(broker), Some(address)) = (self.broker_of(&connection), connection.broker_addr) {
                let address = (broker, address);
                if self.without_session.get(&address) == Some(&key) {
                    self.without_session.remove(&address);
                }
            }
            self.changed_proxied.remove(&key);
            if self.stored_proxied.remove(&key) {
                self.gone.insert(key);
            }
        }
    }

    /// What has changed since this was called last, to be stored with the lines that told it.
    pub fn changes(&mut self) -> SessionChanges {
        self.forget_what_is_old();
        let sessions = std::mem::take(&mut self.changed);
        let sessions: Vec<Session> = sessions
            .iter()
            .filter_map(|id| self.sessions.get(id).cloned())
            .collect();
        let proxied = std::mem::take(&mut self.changed_proxied);
        self.stored_proxied.extend(&proxied);
        let changes = SessionChanges {
            sessions,
            proxied: proxied
                .iter()
                .filter_map(|key| self.proxied.get(key).cloned())
                .collect(),
            gone: std::mem::take(&mut self.gone).into_iter().collect(),
        };
        self.drop_what_is_complete();
        changes
    }

    /// A connection that nobody logged in over, or whose end was not told.
    fn forget_what_is_old(&mut self) {
        let is_old = |connection: &ProxiedConnection| self.latest_ns - connection.time_ns > APART_NS;
        let mut old: Vec<(i64, i64)> = self
            .proxied
            .iter()
            .filter(|(_, c)| is_old(c))
            .map(|(key, _)| *key)
            .collect();
        let excess = (self.proxied.len() - old.len()).saturating_sub(MOST_WAITING);
        old.extend(self.proxied.keys().take(excess));
        for key in old {
            self.forget_proxied(key);
        }
    }

    /// Sessions that are over and of which nothing is to be learned any more. They are in the database.
    fn drop_what_is_complete(&mut self) {
        let latest = self.latest_ns;
        let sessions = &self.sessions;
        // Nginx's line would have come by now.
        self.without_address.retain(|_, id| {
            sessions
                .get(id)
                .is_some_and(|session| latest - session.connected_at <= APART_NS)
        });
        let waiting: BTreeSet<i64> = self.without_address.values().copied().collect();
        let doubtful: BTreeSet<i64> = self.doubtful.values().copied().collect();
        self.sessions.retain(|id, session| {
            session.disconnected_at.is_none() || waiting.contains(id) || doubtful.contains(id)
        });
    }
}

fn is_near(a: i64, b: i64) -> bool {
    a.abs_diff(b) <= APART_NS.unsigned_abs()
}

/// Whether an address is that of the balancer towards brokers.
fn is_from(address: &str, balancer: IpAddr) -> bool {
    address
        .parse::<SocketAddr>()
        .is_ok_and(|address| address.ip() == balancer)
}

#[cfg(test)]
mod tests;
