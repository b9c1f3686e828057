//! From the broker's events to the policy and back; no decision is taken here.
//!
//! Nothing is borrowed while the broker is called (see [`crate::ffi`]): each hook asks the policy first, and
//! logs, publishes or kicks afterwards.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::time::Instant;

use mesh_model::BrokerId;
use mesh_model::names::TOPIC_PREFIX;

use crate::counters::Board;
use crate::ffi::{self, Access, AclCheck, BasicAuth, Client, Contexts, Level, Message, abi, log};
use crate::options::Options;
use crate::policy::{self, Admission, Bypass, Login, Policy, Published, Verdict};
use crate::startup;

/// The plugin, from the broker's start to its end.
pub struct Plugin {
    options: Options,
    policy: RefCell<Policy>,
    board: RefCell<Board>,
    contexts: Contexts,
    /// Unwanted links are being thrown out.
    kicking: Cell<bool>,
    /// One of them was connected.
    intruder: Cell<bool>,
    started: Instant,
}

impl Plugin {
    /// Reads the options. If that fails it logs every problem and there is no plugin.
    pub fn start(lines: &[(String, String)]) -> Option<Self> {
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
        let peers: Vec<_> = options.peers.iter().map(BrokerId::as_str).collect();
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
        Some(Self {
            board: RefCell::new(Board::new(&options.peers)),
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
        let user = check.client.user();
        let mut policy = self.policy.borrow_mut();
        let verdict = match check.access {
            Access::Read => policy.read(client, user, check.topic_key, check.qos),
            Access::Write => policy.write(client, user, check.client.is_network(), check.topic()),
            Access::Subscribe => policy.subscribe(client, user),
            Access::Other => policy.other_access(client, user),
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
        let alarm = policy.take_alarm();
        drop(policy);
        tell(alarm);
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
        self.policy.borrow_mut().disconnect(client.key());
        abi::SUCCESS
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
