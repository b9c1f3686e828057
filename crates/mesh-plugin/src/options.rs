//! The `plugin_opt_` lines of the broker's configuration.
//!
//! They are rendered by us, so nothing is guessed: a wrong or missing option keeps the broker from starting. Only
//! a broker that is alone has no `peers`. All problems are reported at once. A password never appears in one.

use std::net::SocketAddr;
use std::path::PathBuf;

use mesh_model::BrokerId;

use crate::replication::{Bounds, MOST_PEERS};

/// The shortest password that is accepted for a user of the mesh.
pub const SHORTEST_PASSWORD: usize = 16;

/// What the plugin answers about a client that is no user of the mesh, where it has no reason to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordinary {
    /// Yes. For a broker that has no access control of this kind.
    Allow,
    /// Ask whoever comes next: `password_file`, `acl_file`, another plugin. If nobody does, the broker refuses.
    Defer,
}

/// Another broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its id.
    pub id: BrokerId,
    /// Where this broker's bridge connects to it.
    pub address: SocketAddr,
}

/// The options.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// The broker that this plugin runs in.
    pub broker_id: BrokerId,
    /// The other brokers.
    pub peers: Vec<Peer>,
    /// The password of links.
    pub link_password: String,
    /// The password of mesh-health.
    pub health_password: String,
    /// Whether other clients may connect.
    pub auth: Ordinary,
    /// Whether they may publish, subscribe and receive.
    pub acl: Ordinary,
    /// How much is kept of what peers have not seen: so much of own messages, and so much of all others'.
    pub replay: Bounds,
    /// The broker's own listener.
    pub address: SocketAddr,
    /// The folder of the broker's database, where this plugin keeps its journal too.
    pub data_dir: PathBuf,
    /// How long deletions are remembered, in seconds.
    pub tombstone_ttl_s: u32,
    /// Whether messages get a stamp. Without, there are no loops and that is all: it shows what the rest costs.
    pub stamps: bool,
}

impl Options {
    /// Reads the lines, given as what follows `plugin_opt_` and the rest of the line.
    ///
    /// # Errors
    ///
    /// Every problem, a sentence each.
    pub fn parse(lines: &[(String, String)]) -> Result<Self, Vec<String>> {
        let mut lines = Lines {
            lines,
            problems: Vec::new(),
        };
        lines.check_names();
        let broker_id = lines
            .value("broker_id")
            .and_then(|text| lines.broker_id("broker_id", text));
        let peers = match lines.given("peers") {
            Some(text) => lines.peers(text),
            None => Some(Vec::new()),
        };
        if let (Some(id), Some(peers)) = (&broker_id, &peers)
            && peers.iter().any(|peer| peer.id == *id)
        {
            lines.problem(format!("option peers names {id}, which is this broker itself"));
        }
        let link_password = lines.password("link_password");
        let health_password = lines.password("health_password");
        let auth = lines.ordinary("auth");
        let acl = lines.ordinary("acl");
        let replay_messages = lines.number("replay_messages");
        let replay_bytes = lines.number("replay_bytes");
        let replay = replay_messages
            .zip(replay_bytes)
            .map(|(count, bytes)| Bounds { count, bytes });
        let address = lines
            .value("address")
            .and_then(|text| lines.address("address", text));
        let data_dir = lines.value("data_dir").map(PathBuf::from);
        let tombstone_ttl_s = lines.number("tombstone_ttl_s");
        let stamps = lines.switch("stamps", true);
        match (
            broker_id,
            peers,
            link_password,
            health_password,
            auth,
            acl,
            replay,
            address,
            data_dir,
            tombstone_ttl_s,
            stamps,
        ) {
            (
                Some(broker_id),
                Some(peers),
                Some(link_password),
                Some(health_password),
                Some(auth),
                Some(acl),
                Some(replay),
                Some(address),
                Some(data_dir),
                Some(tombstone_ttl_s),
                Some(stamps),
            ) if lines.problems.is_empty() => Ok(Self {
                broker_id,
                peers,
                link_password,
                health_password,
                auth,
                acl,
                replay,
                address,
                data_dir,
                // A hundred years are for ever.
                tombstone_ttl_s: u32::try_from(tombstone_ttl_s).unwrap_or(u32::MAX),
                stamps,
            }),
            _ => Err(lines.problems),
        }
    }
}

const NAMES: [&str; 12] = [
    "broker_id",
    "peers",
    "link_password",
    "health_password",
    "auth",
    "acl",
    "replay_messages",
    "replay_bytes",
    "address",
    "data_dir",
    "tombstone_ttl_s",
    "stamps",
];

/// The lines and what is wrong with them so far.
struct Lines<'a> {
    lines: &'a [(String, String)],
    problems: Vec<String>,
}

impl<'a> Lines<'a> {
    fn problem(&mut self, text: String) {
        self.problems.push(text);
    }

    fn check_names(&mut self) {
        for (at, (name, _)) in self.lines.iter().enumerate() {
            if !NAMES.contains(&name.as_str()) {
                self.problem(format!("unknown option {name:?}; known are {}", NAMES.join(", ")));
            } else if self.lines[..at].iter().any(|(earlier, _)| earlier == name) {
                self.problem(format!("option {name} is given twice"));
            }
        }
    }

    fn given(&self, name: &str) -> Option<&'a str> {
        let found = self.lines.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.trim())
    }

    fn value(&mut self, name: &str) -> Option<&'a str> {
        let value = self.given(name);
        if value.is_none() {
            self.problem(format!("option {name} is missing"));
        }
        value
    }

    fn broker_id(&mut self, name: &str, text: &str) -> Option<BrokerId> {
        match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                self.problem(format!("option {name}: {error}"));
                None
            }
        }
    }

    fn peers(&mut self, text: &str) -> Option<Vec<Peer>> {
        let peers: Vec<_> = text.split(',').map(|peer| self.peer(peer.trim())).collect();
        let peers: Vec<Peer> = peers.into_iter().collect::<Option<_>>()?;
        for (at, peer) in peers.iter().enumerate() {
            if peers[..at].iter().any(|earlier| earlier.id == peer.id) {
                self.problem(format!("option peers names {} twice", peer.id));
            }
        }
        if peers.len() > MOST_PEERS {
            self.problem(format!(
                "option peers names {} brokers; at most {MOST_PEERS} can be kept in step",
                peers.len()
            ));
        }
        Some(peers)
    }

    fn number(&mut self, name: &str) -> Option<usize> {
        let text = self.value(name)?;
        match text.parse() {
            Ok(number) if number > 0 => Some(number),
            _ => {
                self.problem(format!(
                    "option {name} is {text:?}, which is not a number above 0"
                ));
                None
            }
        }
    }

    fn switch(&mut self, name: &str, default: bool) -> Option<bool> {
        match self.given(name) {
            None => Some(default),
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(text) => {
                self.problem(format!(
                    "option {name} is {text:?}, which is neither true nor false"
                ));
                None
            }
        }
    }

    fn address(&mut self, name: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.problem(format!(
                "option {name} is {text:?}, which is not an IP address and a port"
            ));
        }
        address
    }

    fn peer(&mut self, text: &str) -> Option<Peer> {
        let Some((id, address)) = text.split_once('=') else {
            self.problem(format!(
                "option peers: {text:?} is not an id and an address, as in broker2=192.0.2.2:1883"
            ));
            return None;
        };
        let id = self.broker_id("peers", id)?;
        let Ok(address) = address.parse() else {
            self.problem(format!(
                "option peers: {address:?} is not an IP address and a port"
            ));
            return None;
        };
        Some(Peer { id, address })
    }

    fn password(&mut self, name: &str) -> Option<String> {
        let text = self.value(name)?;
        if text.len() < SHORTEST_PASSWORD {
            self.problem(format!(
                "option {name} has {} characters; at least {SHORTEST_PASSWORD} are needed",
                text.len()
            ));
            return None;
        }
        Some(text.to_owned())
    }

    fn ordinary(&mut self, name: &str) -> Option<Ordinary> {
        match self.value(name)? {
            "allow" => Some(Ordinary::Allow),
            "defer" => Some(Ordinary::Defer),
            other => {
                self.problem(format!("option {name} is {other:?}; use allow or defer"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 12] = [
        ("broker_id", "broker1"),
        ("peers", "broker2=192.0.2.2:1883, broker3=[2001:db8::3]:1884"),
        ("link_password", "0123456789abcdef"),
        ("health_password", "fedcba9876543210"),
        ("auth", "allow"),
        ("acl", "defer"),
        ("replay_messages", "100000"),
        ("replay_bytes", "67108864"),
        ("address", "192.0.2.1:1883"),
        ("data_dir", "/var/lib/mosquitto/"),
        ("tombstone_ttl_s", "604800"),
        ("stamps", "false"),
    ];

    fn parse(lines: &[(&str, &str)]) -> Result<Options, Vec<String>> {
        let lines: Vec<_> = lines
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .collect();
        Options::parse(&lines)
    }

    fn with(name: &str, value: &str) -> Vec<String> {
        let lines: Vec<_> = GOOD
            .iter()
            .map(|&(k, v)| (k, if k == name { value } else { v }))
            .collect();
        parse(&lines).err().unwrap_or_default()
    }

    #[test]
    fn the_rendered_options_are_read() {
        let options = parse(&GOOD).ok().unwrap();
        assert_eq!(options.broker_id.as_str(), "broker1");
        let peers = options.peers.iter();
        let peers: Vec<_> = peers
            .map(|peer| (peer.id.as_str(), peer.address.to_string()))
            .collect();
        assert_eq!(
            peers,
            [
                ("broker2", "192.0.2.2:1883".to_owned()),
                ("broker3", "[2001:db8::3]:1884".to_owned())
            ]
        );
        assert_eq!((options.auth, options.acl), (Ordinary::Allow, Ordinary::Defer));
        assert!(!options.stamps && without("stamps").ok().unwrap().stamps);
        assert_eq!((options.replay.count, options.replay.bytes), (100_000, 64 << 20));
    }

    #[test]
    fn there_are_not_too_many_peers() {
        let peers = |count| {
            (0..count)
                .map(|n| format!("b{n}=192.0.2.2:{}", n + 1))
                .collect::<Vec<_>>()
        };
        assert_eq!(with("peers", &peers(MOST_PEERS).join(",")), Vec::<String>::new());
        assert_eq!(with("peers", &peers(MOST_PEERS + 1).join(",")).len(), 1);
    }

    fn without(name: &str) -> Result<Options, Vec<String>> {
        let lines: Vec<_> = GOOD.iter().copied().filter(|(key, _)| *key != name).collect();
        parse(&lines)
    }

    #[test]
    fn every_option_but_peers_and_stamps_is_required() {
        for name in NAMES.iter().filter(|name| !["peers", "stamps"].contains(name)) {
            assert_eq!(
                without(name).err().unwrap(),
                [format!("option {name} is missing")]
            );
        }
    }

    #[test]
    fn a_broker_may_be_alone() {
        assert_eq!(without("peers").ok().unwrap().peers, []);
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let problems = parse(&[
            ("auth", "yes"),
            ("acl", ""),
            ("colour", "red"),
            ("link_password", "short"),
        ]);
        assert_eq!(problems.err().unwrap().len(), 11);
    }

    #[test]
    fn wrong_values_are_refused() {
        for (name, value) in [
            ("broker_id", "Broker1"),
            ("broker_id", ""),
            ("broker_id", "broker2"),
            ("peers", ""),
            ("peers", "broker2=192.0.2.2:1883,,broker3=192.0.2.3:1883"),
            ("peers", "broker2=192.0.2.2:1883,broker2=192.0.2.3:1883"),
            ("peers", "broker2=192.0.2.2:1883 broker3=192.0.2.3:1883"),
            ("peers", "broker1=192.0.2.1:1883"),
            ("peers", "broker2"),
            ("peers", "broker2=192.0.2.2"),
            ("peers", "broker2=host:1883"),
            ("peers", "Broker2=192.0.2.2:1883"),
            ("link_password", "0123456789abcde"),
            ("health_password", ""),
            ("auth", "Allow"),
            ("acl", "deny"),
            ("replay_messages", "0"),
            ("replay_messages", "-1"),
            ("replay_bytes", "64 MiB"),
            ("address", "localhost:1883"),
            ("tombstone_ttl_s", "7d"),
            ("stamps", "no"),
        ] {
            assert_eq!(
                with(name, value).len(),
                1,
                "{name} = {value:?}: {:?}",
                with(name, value)
            );
        }
    }

    #[test]
    fn an_option_given_twice_is_refused() {
        let lines = [GOOD.as_slice(), &[("auth", "defer")]].concat();
        assert_eq!(parse(&lines).err().unwrap(), ["option auth is given twice"]);
    }

    #[test]
    fn a_password_never_appears_in_a_problem() {
        let problems = with("link_password", "hunter2");
        assert!(!problems[0].contains("hunter2"), "{problems:?}");
    }
}
