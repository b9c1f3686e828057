use super::*;
use mesh_model::Broker;

const SECOND: i64 = 1_000_000_000;

struct Rig {
    tracker: Tracker,
    stored: BTreeMap<i64, Session>,
    waiting: BTreeMap<(i64, i64), ProxiedConnection>,
}

fn topology() -> Topology {
    let broker = |n: u16| {
        Broker::new(
            format!("broker{n}").parse().unwrap(),
            format!("127.0.0.1:{}", 18830 + n).parse().unwrap(),
        )
    };
    Topology::new(vec![broker(1), broker(2)]).unwrap()
}

impl Rig {
    fn new() -> Self {
        Self {
            tracker: Tracker::new(&topology(), None, vec![], vec![], 1),
            stored: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn apply(&mut self, fact: Fact, broker: &str, second: i64) {
        let broker: Arc<str> = broker.into();
        self.tracker.apply(fact, 7, Some(&broker), second * SECOND);
    }

    /// What the database would hold.
    fn store(&mut self) {
        let changes = self.tracker.changes();
        self.stored
            .extend(changes.sessions.into_iter().map(|session| (session.id, session)));
        for connection in changes.proxied {
            self.waiting
                .insert((connection.source, connection.number), connection);
        }
        for key in changes.gone {
            let forgotten = self.waiting.remove(&key);
            assert!(forgotten.is_some(), "{key:?} was not stored");
        }
    }

    /// The daemon is killed and started again after it stored.
    fn restart(&mut self) {
        self.store();
        let open = self
            .stored
            .values()
            .filter(|session| session.disconnected_at.is_none());
        let next = self.stored.keys().last().map_or(1, |id| id + 1);
        let waiting = self.waiting.values().cloned().collect();
        self.tracker = Tracker::new(&topology(), None, open.cloned().collect(), waiting, next);
    }

    fn session(&mut self, id: i64) -> Session {
        self.store();
        self.stored[&id].clone()
    }
}

fn connect(client_id: &str, port: u16) -> Fact {
    Fact::Connected(Connected {
        client_id: client_id.to_owned(),
        address: format!("127.0.0.2:{port}"),
        username: None,
        protocol: "5",
        keep_alive: 60,
        clean_start: true,
    })
}

fn disconnect(client_id: &str) -> Fact {
    Fact::Disconnected {
        client_id: client_id.to_owned(),
        reason: "gone".to_owned(),
    }
}

fn through_nginx(number: i64, port: u16, broker: u16) -> [Fact; 2] {
    [
        Fact::Accepted {
            number,
            remote_addr: format!("192.168.1.9:{number}"),
        },
        Fact::Proxied {
            number,
            broker_addr: format!("127.0.0.2:{port}"),
            upstream: format!("127.0.0.1:{}", 18830 + broker),
        },
    ]
}

#[test]
fn the_real_address_is_found_whichever_line_comes_first_and_over_restarts() {
    for restarts in 0..8 {
        for nginx_first in [true, false] {
            let mut rig = Rig::new();
            let [accepted, proxied] = through_nginx(5, 4000, 1);
            let connected = connect("a", 4000);
            let facts = match nginx_first {
                true => [accepted, proxied, connected],
                false => [connected, accepted, proxied],
            };
            for (step, fact) in facts.into_iter().enumerate() {
                rig.apply(fact, "broker1", 10);
                if restarts & 1 << step != 0 {
                    rig.restart();
                }
            }
            let session = rig.session(1);
            assert_eq!(
                session.remote_addr.as_deref(),
                Some("192.168.1.9:5"),
                "{restarts} {nginx_first}"
            );
            assert!(rig.waiting.is_empty());
        }
    }
}

#[test]
fn an_address_of_another_broker_or_of_long_ago_is_not_taken() {
    let mut rig = Rig::new();
    for fact in through_nginx(5, 4000, 2) {
        rig.apply(fact, "nginx", 10);
    }
    rig.apply(connect("a", 4000), "broker1", 10);
    assert_eq!(rig.session(1).remote_addr, None);
    for fact in through_nginx(6, 4001, 1) {
        rig.apply(fact, "nginx", 10);
    }
    rig.apply(connect("b", 4001), "broker1", 1000);
    assert_eq!(rig.session(2).remote_addr, None);
    assert!(rig.waiting.is_empty(), "what is old is forgotten");
}

#[test]
fn a_short_session_has_its_address_also_where_nginx_has_told_its_end_before_the_broker_its_beginning() {
    for restarts in [false, true] {
        let mut rig = Rig::new();
        for fact in through_nginx(5, 4000, 1) {
            rig.apply(fact, "nginx", 10);
        }
        rig.apply(Fact::Closed { number: 5 }, "nginx", 11);
        if restarts {
            rig.restart();
        }
        rig.apply(connect("a", 4000), "broker1", 10);
        rig.apply(disconnect("a"), "broker1", 11);
        assert_eq!(rig.session(1).remote_addr.as_deref(), Some("192.168.1.9:5"));
        assert!(rig.waiting.is_empty());
    }
}

#[test]
fn an_address_that_is_used_again_is_that_of_the_later_connection() {
    let mut rig = Rig::new();
    for fact in through_nginx(5, 4000, 1) {
        rig.apply(fact, "nginx", 10);
    }
    rig.apply(Fact::Closed { number: 5 }, "nginx", 11);
    // It comes over the next connection, of which Nginx's lines are read later.
    rig.apply(connect("b", 4000), "broker1", 20);
    assert_eq!(rig.session(1).remote_addr, None);
    for fact in through_nginx(6, 4000, 1) {
        rig.apply(fact, "nginx", 20);
    }
    assert_eq!(rig.session(1).remote_addr.as_deref(), Some("192.168.1.9:6"));
    // Nobody logged in over the first, which is known when it is old.
    rig.apply(connect("c", 4001), "broker1", 1000);
    rig.store();
    assert!(rig.waiting.is_empty() && rig.tracker.closed.is_empty());
}

#[test]
fn sessions_end_with_their_reason() {
    let mut rig = Rig::new();
    rig.apply(connect("a", 1), "broker1", 1);
    rig.apply(connect("a", 2), "broker1", 2);
    rig.apply(disconnect("a"), "broker1", 3);
    rig.apply(disconnect("a"), "broker1", 4);
    rig.apply(connect("mesh.link.broker1.broker2", 3), "broker1", 4);
    assert_eq!(
        rig.session(1).reason.as_deref(),
        Some("taken over by a new connection")
    );
    let second = rig.session(2);
    assert_eq!(
        (second.reason.as_deref(), second.disconnected_at),
        (Some("gone"), Some(3 * SECOND))
    );
    assert_eq!(rig.stored.len(), 2, "links are not clients");
}

#[test]
fn a_broker_that_dies_ends_its_sessions_and_only_those() {
    let mut rig = Rig::new();
    rig.apply(connect("a", 1), "broker1", 1);
    rig.apply(connect("b", 2), "broker2", 1);
    rig.apply(connect("late", 3), "broker1", 9);
    let dead = Fact::BrokerDead {
        broker: "broker1".to_owned(),
        reason: "refused".to_owned(),
    };
    rig.apply(dead, "health", 5);
    assert_eq!(rig.session(1).reason.as_deref(), Some("broker dead: refused"));
    assert_eq!(rig.session(2).disconnected_at, None);
    assert_eq!(
        rig.session(3).disconnected_at,
        None,
        "it connected after the restart, whose line came first"
    );
    rig.apply(Fact::BrokerStarts, "broker1", 9);
    assert_eq!(rig.session(3).reason.as_deref(), Some("broker restarted"));
    assert_eq!(rig.session(1).disconnected_at, Some(5 * SECOND));
    let counts = rig.tracker.open_by_broker();
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("broker2".into(), 1)]);
}

#[test]
fn a_broker_that_only_hung_has_its_sessions_back() {
    let mut rig = Rig::new();
    rig.apply(connect("stays", 1), "broker1", 1);
    rig.apply(connect("moved", 2), "broker1", 1);
    let dead = Fact::BrokerDead {
        broker: "broker1".to_owned(),
        reason: "silent".to_owned(),
    };
    rig.apply(dead, "health", 5);
    rig.store();
    rig.apply(disconnect("moved"), "broker1", 6);
    let healthy = Fact::BrokerHealthy {
        broker: "broker1".to_owned(),
    };
    rig.apply(healthy, "health", 20);
    assert_eq!(rig.session(1).disconnected_at, None);
    let moved = rig.session(2);
    assert_eq!(
        (moved.reason.as_deref(), moved.disconnected_at),
        (Some("gone"), Some(6 * SECOND))
    );
}

#[test]
fn nothing_is_kept_of_sessions_that_are_over() {
    let mut rig = Rig::new();
    for number in 0..1000_i64 {
        let port = 2000 + u16::try_from(number).unwrap();
        for fact in through_nginx(number, port, 1) {
            rig.apply(fact, "nginx", number);
        }
        rig.apply(connect("a", port), "broker1", number);
        rig.apply(Fact::Closed { number }, "nginx", number);
        rig.store();
    }
    assert_eq!(rig.stored.len(), 1000);
    assert!(rig.tracker.sessions.len() < 3 && rig.tracker.proxied.is_empty());
}
