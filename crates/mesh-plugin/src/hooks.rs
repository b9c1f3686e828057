//! From the broker's events to the policy and back; no decision is taken here.
//!
//! Nothing is borrowed while the broker is called (see [`crate::ffi`]): each hook asks the policy first, and
//! logs, publishes or kicks afterwards.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::time::{Instant, SystemTime};

use mesh_model::names::TOPIC_PREFIX;

use crate::counters::Board;
use crate::ffi::socket::Socket;
use crate::ffi::{self, Access, AclCheck, BasicAuth, Client, Contexts, Level, Message, abi, log};
use crate::options::Options;
use crate::policy::{self, Admission, Bypass, Login, Policy, Published, Shown, Verdict};
use crate::{salvage, startup};

/// The plugin, from the broker's start to its end.
pub struct Plugin {
    options: Options,
    policy: RefCell<Policy>,
    board: RefCell<Board>,
    contexts: Contexts,
    /// The sockets of this broker's bridges, in the order of the peers, where they are known.
    sockets: RefCell<Vec<Option<Socket>>>,
    /// Whether what a broken link leaves unread can be read.
    salvages: bool,
    /// Unwanted links are being thrown out.
    kicking: Cell<bool>,
    /// One of them was connected.
    intruder: Cell<bool>,
    started: Instant,
}

impl Plugin {
    /// Reads the options. If that fails it logs every problem and there is no plugin. `reads_ahead` tells whether
    /// the broker takes more from a socket than the packet that it handles.
    pub fn start(lines: &[(String, String)], reads_ahead: bool) -> Option<Self> {
        let mut problems = startup::problems().unwrap_or_else(|why| {
            log(
                Level::Warning,
                &format!("cannot check the broker's configuration: {why}"),
            );
            Vec::new()
        });
        let options = Options::parse(lines).map_err(|more| problems.extend(more));
        for problem in &problems {
            log(Level::Error, problem);
        }
        let Ok(options) = options else {
            return None;
        };
        if !problems.is_empty() {
            return None;
        }
        let peers: Vec<_> = options.peers.iter().map(|peer| peer.id.as_str()).collect();
        let peers = if peers.is_empty() {
            "none".to_owned()
        } else {
            peers.join(", ")
        };
        let version = env!("CARGO_PKG_VERSION");
        log(
            Level::Notice,
            &format!("{version}, broker {}, peers {peers}", options.broker_id),
        );
        let salvages = cfg!(target_os = "linux") && !reads_ahead;
        if !salvages {
            log(
                Level::Notice,
                "when a peer dies, what this broker has not yet read of it is lost: only Mosquitto 2.0 on Linux \
                 leaves that to be read",
            );
        }
        // The moment of the start, in nanoseconds since 1970: no two starts have the same.
        let boot = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
        Some(Self {
            board: RefCell::new(Board::new(options.peers.iter().map(|peer| &peer.id), boot)),
            sockets: RefCell::new(vec![None; options.peers.len()]),
            salvages,
            policy: RefCell::new(Policy::new(options.clone())),
            options,
            contexts: Contexts::default(),
            kicking: Cell::default(),
            intruder: Cell::default(),
            started: Instant::now(),
        })
    }

    /// The contexts that are looked at outside their own callbacks.
    pub(crate) fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    /// BASIC_AUTH.
    pub(crate) fn basic_auth(&self, login: &BasicAuth<'_>) -> c_int {
        let id = login.client.id().unwrap_or_default();
        let admission = self.policy.borrow_mut().basic_auth(&Login {
            client: login.client.key(),
            id,
            user: login.user,
            password: login.password,
            clean_session: login.client.clean_session(),
        });
        match admission {
            Admission::Mesh => {
                self.contexts.keep(login.client);
                abi::SUCCESS
            }
            Admission::Accept => abi::SUCCESS,
            Admission::Defer => abi::ERR_PLUGIN_DEFER,
            Admission::Refuse(why) => {
                // The id is whatever a stranger sent.
                let id: String = String::from_utf8_lossy(id).escape_debug().take(80).collect();
                log(Level::Warning, &format!("refused client \"{id}\": {why}"));
                abi::ERR_AUTH
            }
        }
    }

    /// ACL_CHECK.
    pub(crate) fn acl_check(&self, check: &AclCheck<'_>) -> c_int {
        #[cfg(feature = "panic-on-demand")]
        assert!(check.topic() != b"mesh-test/panic-acl", "panic on demand");
        let client = check.client.key();
        let user = || check.client.user();
        let mut policy = self.policy.borrow_mut();
        let verdict = match check.access {
            Access::Read => {
                if policy.watches_routing() {
                    policy.routed(&Shown {
                        topic: check.topic(),
                        length: check.length,
                        qos: check.qos,
                        retain: check.retain,
                    });
                }
                policy.read(client, user, check.topic_key, check.qos)
            }
            Access::Write => policy.write(client, user(), check.client.is_network(), check.topic()),
            Access::Subscribe => policy.subscribe(client, user()),
            Access::Other => policy.other_access(client, user()),
        };
        acl_code(verdict)
    }

    /// ACL_CHECK, after a panic: users of the mesh get nothing, and nobody writes to its topics.
    pub(crate) fn acl_check_failed(&self, check: &AclCheck<'_>) -> c_int {
        if check.access == Access::Write {
            // Or the message that follows would look like a bypass.
            if let Ok(mut policy) = self.policy.try_borrow_mut() {
                policy.asked_to_publish(check.client.key());
            }
            if check.topic().starts_with(TOPIC_PREFIX.as_bytes()) {
                return abi::ERR_ACL_DENIED;
            }
        }
        acl_code(policy::stranger(&self.options, check.client.user()))
    }

    /// MESSAGE.
    pub(crate) fn message(&self, message: &Message<'_>) -> c_int {
        #[cfg(feature = "panic-on-demand")]
        assert!(message.topic() != b"mesh-test/panic", "panic on demand");
        let client = message.client;
        let published = Published {
            client: client.key(),
            id: client.id().unwrap_or_default(),
            user: client.user(),
            network: client.is_network(),
            topic: message.topic_key,
            qos: message.qos,
        };
        let mut policy = self.policy.borrow_mut();
        let verdict = policy.message(&published);
        let opened = policy.take_opened();
        let alarm = policy.take_alarm();
        drop(policy);
        tell(alarm);
        if let Some(peer) = opened {
            self.find_socket(peer);
        }
        acl_code(verdict)
    }

    /// MESSAGE, after a panic: nothing is known of the message, so nothing that may come from a link is routed.
    pub(crate) fn message_failed(&self, message: &Message<'_>) -> c_int {
        if policy::is_mesh_user(message.client.user()) {
            abi::ERR_ACL_DENIED
        } else {
            abi::SUCCESS
        }
    }

    /// DISCONNECT.
    pub(crate) fn disconnect(&self, client: Client<'_>) -> c_int {
        // A session that may be resumed is found even if nobody is connected, and is no intruder.
        if self.kicking.get() && client.clean_session() {
            self.intruder.set(true);
        }
        let broken = self.policy.borrow_mut().disconnect(client.key());
        if let Some(peer) = broken {
            self.salvage(peer);
        }
        abi::SUCCESS
    }

    fn find_socket(&self, peer: usize) {
        if self.salvages {
            let socket = Socket::connected_to(self.options.peers[peer].address);
            self.sockets.borrow_mut()[peer] = socket;
        }
    }

    /// Publishes what the link from a peer has left unread.
    fn salvage(&self, peer: usize) {
        let Some(socket) = self.sockets.borrow_mut()[peer].take() else {
            return;
        };
        let bytes = socket.drain(salvage::MOST);
        let messages = salvage::parse(&bytes);
        if messages.is_empty() {
            return;
        }
        let shown = messages.iter().map(|message| Shown {
            topic: message.topic.as_bytes(),
            length: message.payload.len(),
            qos: message.qos,
            retain: message.retain,
        });
        // First, so that nothing can be routed that is not known.
        self.policy.borrow_mut().salvage(peer, shown);
        let refused = messages
            .iter()
            .filter_map(|message| ffi::publish_again(message).err());
        let refused: Vec<c_int> = refused.collect();
        let peer = &self.options.peers[peer].id;
        let count = messages.len() - refused.len();
        log(
            Level::Notice,
            &format!("the link from {peer} broke; salvaged {count} messages of {peer}"),
        );
        if let Some(code) = refused.first() {
            let count = refused.len();
            log(
                Level::Error,
                &format!("lost {count} more: the broker does not publish them, error {code}"),
            );
        }
    }

    /// TICK.
    pub(crate) fn tick(&self) -> c_int {
        let mut policy = self.policy.borrow_mut();
        policy.tick(|client| self.contexts.sub_count(client));
        let alarm = policy.take_alarm();
        drop(policy);
        tell(alarm);
        self.kick_unwanted();
        if self.board.borrow_mut().due(self.started.elapsed()) {
            self.publish_counters();
        }
        // Last, since a kick asks and disconnects.
        self.policy.borrow_mut().route_salvaged();
        abi::SUCCESS
    }

    fn publish_counters(&self) {
        let board = self.board.borrow();
        let policy = self.policy.borrow();
        // Queued by the broker until its next turn: nothing is called back from here.
        let refused = board
            .lines(policy.counts(), policy.sessions(), policy.bridges())
            .find_map(|(topic, value)| ffi::publish(topic, &value.to_string()).err());
        drop(policy);
        drop(board);
        if let Some(code) = refused {
            log(
                Level::Error,
                &format!("cannot publish the counters: error {code}"),
            );
        }
    }

    fn kick_unwanted(&self) {
        let unwanted = self.policy.borrow().unwanted();
        self.kicking.set(true);
        for client_id in &unwanted {
            ffi::kick(client_id);
        }
        self.kicking.set(false);
        if self.intruder.take() {
            let mut policy = self.policy.borrow_mut();
            policy.intruded();
            let alarm = policy.take_alarm();
            drop(policy);
            tell(alarm);
        }
    }
}

fn tell(alarm: Option<Bypass>) {
    if let Some(bypass) = alarm {
        log(Level::Error, &bypass.to_string());
    }
}

fn acl_code(verdict: Verdict) -> c_int {
    match verdict {
        Verdict::Accept => abi::SUCCESS,
        Verdict::Refuse => abi::ERR_ACL_DENIED,
        Verdict::Defer => abi::ERR_PLUGIN_DEFER,
    }
}
