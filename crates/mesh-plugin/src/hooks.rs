//! From the broker's events to the policy and back; no decision is taken here.
//!
//! Nothing is borrowed while the broker is called (see [`crate::ffi`]): each hook asks the policy first, and
//! logs, publishes or kicks afterwards.

use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_int};
use std::time::{Duration, Instant, SystemTime};

use mesh_model::Link;
use mesh_model::names::{PRESENCE_PREFIX, SEEN_PREFIX, TOPIC_PREFIX, link_client_id};

use crate::counters::Board;
use crate::ffi::socket::Socket;
use crate::ffi::{self, Access, AclCheck, BasicAuth, Client, Contexts, Level, Message, abi, log};
use crate::message::{Property, Publish, encode};
use crate::options::{Options, Peer};
use crate::policy::{
    self, Admission, Arrival, Bypass, Fate, Handling, Internal, Login, Policy, Published, Purpose, Shown,
    Verdict,
};
use crate::replication::{Content, Now};
use crate::retained::journal::Record;
use crate::stamp::{STAMP_PROPERTY, Stamp};
use crate::{memory, salvage, startup};

mod clients;
mod links;
mod retained;

use retained::Tools;

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
    /// A connection has ended since this was set to `false`.
    ended: Cell<bool>,
    started: Instant,
    /// The client ids of the links that peers fetch, in the order of the peers.
    link_ids: Vec<CString>,
    /// Where this plugin says what it has seen.
    seen_topic: String,
    /// And where it tells of clients.
    presence_topic: String,
    /// For properties of the message that is being handled, and for its stamp; kept to be used again.
    properties: RefCell<Vec<u8>>,
    stamp_text: RefCell<String>,
    /// When TICK has last done its work, in milliseconds since the start.
    worked_ms: Cell<Option<u64>>,
    retained: Tools,
}

impl Plugin {
    /// Reads the options. If that fails it logs every problem and there is no plugin. `newer` tells whether the broker
    /// is Mosquitto 2.1 or later, which takes more from a socket than the packet that it handles, unless it is told
    /// not to.
    pub fn start(lines: &[(String, String)], newer: bool) -> Option<Self> {
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
        let reads_ahead = newer && startup::reads_ahead().unwrap_or(true);
        let salvages = cfg!(target_os = "linux") && !reads_ahead;
        if !salvages {
            log(
                Level::Notice,
                "when a peer dies, what this broker has not yet read of it is lost: this is not Linux, or Mosquitto \
                 2.1 without `packet_buffer_size 1`",
            );
        }
        let started = Instant::now();
        // The moment of the start, in nanoseconds since 1970: no two starts have the same.
        let boot = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
        let link_id = |peer: &Peer| {
            let link = Link {
                from: options.broker_id.clone(),
                to: peer.id.clone(),
            };
            CString::new(link_client_id(&link)).unwrap_or_default()
        };
        let now = now_since(started);
        // Where the broker cannot be asked what it was started with, it was with what is rendered.
        let database = startup::database().unwrap_or_else(|_| Some(options.data_dir.join("mosquitto.db")));
        let mut recalled = memory::recall(&options, database.as_deref(), now);
        let retained = Tools::new(&options, &mut recalled);
        let mut policy = Policy::new(options.clone(), now);
        policy.remember(recalled.memory, now);
        retained.keep(&Record::Epoch(policy.epoch()));
        Some(Self {
            retained,
            link_ids: options.peers.iter().map(link_id).collect(),
            seen_topic: format!("{SEEN_PREFIX}{}", options.broker_id),
            presence_topic: format!("{PRESENCE_PREFIX}{}", options.broker_id),
            properties: RefCell::default(),
            stamp_text: RefCell::default(),
            worked_ms: Cell::default(),
            board: RefCell::new(Board::new(options.peers.iter().map(|peer| &peer.id), boot)),
            sockets: RefCell::new(vec![None; options.peers.len()]),
            salvages,
            policy: RefCell::new(policy),
            options,
            contexts: Contexts::default(),
            ended: Cell::default(),
            started,
        })
    }

    /// The contexts that are looked at outside their own callbacks.
    pub(crate) fn contexts(&self) -> &Contexts {
        &self.contexts
    }

    /// RELOAD.
    pub(crate) fn reload(&self) -> c_int {
        self.policy.borrow_mut().reload();
        abi::SUCCESS
    }

    /// BASIC_AUTH.
    pub(crate) fn basic_auth(&self, login: &BasicAuth<'_>) -> c_int {
        let id = login.client.id().unwrap_or_default();
        let asked = Login {
            client: login.client.key(),
            id,
            user: login.user,
            password: login.password,
            clean_session: login.client.clean_session(),
        };
        let admission = self.policy.borrow_mut().basic_auth(&asked, self.now());
        match admission {
            Admission::Mesh => {
                self.contexts.keep(login.client);
                abi::SUCCESS
            }
            Admission::Accept => abi::SUCCESS,
            Admission::Defer => abi::ERR_PLUGIN_DEFER,
            Admission::Refuse(why) => {
                log(
                    Level::Warning,
                    &format!("refused client \"{}\": {why}", printable(id)),
                );
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
                policy.delivers(client, || check.topic().starts_with(b"$SYS"));
                if check.qos == 2 {
                    let shown = Shown {
                        topic: check.topic(),
                        length: check.length,
                        retain: check.retain,
                    };
                    policy.released(check.topic_key, &shown);
                }
                if policy.awaits_will() {
                    let (topic, now) = (check.topic_key, self.now());
                    policy.will_routed(
                        (client, user()),
                        topic,
                        (check.qos, check.retain),
                        &content(check),
                        now,
                    );
                }
                policy.read(client, user, check.topic_key, check.qos)
            }
            Access::Write => {
                let network = check.client.is_network();
                let verdict = policy.write(client, user(), network, check.topic());
                if verdict != Verdict::Refuse && network && policy.may_withhold() {
                    let id = check.client.id().unwrap_or_default();
                    match policy.fate(client, id, (check.qos, check.retain), &content(check), self.now()) {
                        Fate::Pass => verdict,
                        Fate::Drop | Fate::Hold => Verdict::Refuse,
                    }
                } else {
                    verdict
                }
            }
            Access::Subscribe => policy.subscribe(client, user(), check.topic()),
            Access::Other => policy.other_access(client, user()),
        };
        let sends = policy.replication().has_sends();
        drop(policy);
        if sends {
            self.send_kept();
        }
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
    pub(crate) fn message(&self, message: &mut Message<'_>) -> c_int {
        #[cfg(feature = "panic-on-demand")]
        assert!(message.topic() != b"mesh-test/panic", "panic on demand");
        let client = message.client;
        let published = Published {
            client: client.key(),
            id: client.id().unwrap_or_default(),
            user: client.user(),
            network: client.is_network(),
            topic: message.topic_key,
            name: message.topic(),
            length: message.payload().len(),
            qos: message.qos,
            retain: message.retain,
        };
        let mut policy = self.policy.borrow_mut();
        let handling = policy.message(&published);
        let opened = policy.take_opened();
        let alarm = policy.take_alarm();
        drop(policy);
        tell(alarm);
        if let Some(peer) = opened {
            self.find_socket(peer);
        }
        match handling {
            Handling::Pass => abi::SUCCESS,
            Handling::Refuse => abi::ERR_ACL_DENIED,
            Handling::Stamp => self.stamp(&published, message),
            Handling::Arrive(peer) => self.arrive(peer, message),
        }
    }

    /// A message enters the mesh here.
    fn stamp(&self, published: &Published<'_>, message: &mut Message<'_>) -> c_int {
        let now = self.now();
        let Some(stamp) = self.policy.borrow_mut().stamp(published, now) else {
            message.set_retain(false);
            return abi::SUCCESS;
        };
        let mut text = self.stamp_text.borrow_mut();
        text.clear();
        stamp.write(&mut text);
        let mut properties = self.properties.borrow_mut();
        properties.clear();
        for property in message.properties() {
            encode(property, &mut properties);
        }
        encode(Property::User(STAMP_PROPERTY, &text), &mut properties);
        if let Err(code) = message.append(c"mesh", &mut text) {
            log(Level::Error, &format!("cannot stamp a message: error {code}"));
        }
        let content = Content {
            topic: message.topic(),
            payload: message.payload(),
            properties: &properties,
        };
        self.policy
            .borrow_mut()
            .publish(message.topic_key, stamp, &content, now);
        abi::SUCCESS
    }

    /// A message came over a link.
    fn arrive(&self, peer: Option<usize>, message: &mut Message<'_>) -> c_int {
        let now = self.now();
        if let Some(topic) = policy::parse_internal(message.topic()) {
            self.told(peer, &topic, message.payload(), now);
            return abi::ERR_ACL_DENIED;
        }
        let mut properties = self.properties.borrow_mut();
        properties.clear();
        let mut stamp = None;
        for property in message.properties() {
            encode(property, &mut properties);
            stamp = stamp_in(property).or(stamp);
        }
        let content = Content {
            topic: message.topic(),
            payload: message.payload(),
            properties: &properties,
        };
        let stamp = stamp.and_then(Stamp::parse);
        let arrival = self.policy.borrow_mut().arrive(peer, stamp, &content, now);
        match arrival {
            Arrival::New(retain) => {
                if let Some(retain) = retain {
                    message.set_retain(retain);
                }
                abi::SUCCESS
            }
            Arrival::Duplicate | Arrival::Stale => abi::ERR_ACL_DENIED,
        }
    }

    /// A peer's plugin says something to this one.
    fn told(&self, peer: Option<usize>, topic: &Internal<'_>, payload: &[u8], now: Now) {
        let Some(peer) = peer else {
            return;
        };
        let watch = self.watch();
        let clock_off = self.policy.borrow_mut().told(peer, topic, payload, now);
        self.stop(watch);
        if let Some(off_ms) = clock_off {
            let (id, seconds) = (&self.options.peers[peer].id, off_ms.abs() / 1000);
            let which = if off_ms > 0 { "ahead of" } else { "behind" };
            log(
                Level::Warning,
                &format!("the clock of {id} is {seconds} s {which} the one here; set both by NTP"),
            );
        }
    }

    /// MESSAGE, after a panic: nothing is known of the message, so nothing that may come from a link is routed.
    pub(crate) fn message_failed(&self, client: Client<'_>) -> c_int {
        if policy::is_mesh_user(client.user()) {
            abi::ERR_ACL_DENIED
        } else {
            abi::SUCCESS
        }
    }

    /// DISCONNECT.
    pub(crate) fn disconnect(&self, client: Client<'_>) -> c_int {
        self.ended.set(true);
        let broken = self.policy.borrow_mut().disconnect(client.key(), self.now());
        if let Some(peer) = broken {
            self.take_unread(peer);
        }
        abi::SUCCESS
    }

    fn find_socket(&self, peer: usize) {
        if self.salvages {
            let socket = Socket::connected_to(self.options.peers[peer].address);
            self.sockets.borrow_mut()[peer] = socket;
        }
    }

    /// Takes what the link from a peer has left unread out of its socket, which is closed when this returns.
    fn take_unread(&self, peer: usize) {
        if let Some(socket) = self.sockets.borrow_mut()[peer].take() {
            self.salvage(peer, &socket.drain(salvage::MOST));
        }
    }

    /// Has published what a broken link has left unread, but for what plugins say to each other.
    fn salvage(&self, peer: usize, bytes: &[u8]) {
        let now = self.now();
        let mut count = 0;
        for message in salvage::parse(bytes) {
            if let Some(topic) = policy::parse_internal(message.topic.as_bytes()) {
                self.told(Some(peer), &topic, message.payload, now);
            } else {
                let message = Publish {
                    qos: message.qos.min(1),
                    ..message
                };
                self.policy
                    .borrow_mut()
                    .publish_own(&message, Purpose::Salvaged(peer));
                count += 1;
            }
        }
        if count > 0 {
            let peer = &self.options.peers[peer].id;
            log(
                Level::Notice,
                &format!("the link from {peer} broke; salvaged {count} messages of {peer}"),
            );
        }
    }

    fn now(&self) -> Now {
        now_since(self.started)
    }

    /// TICK. Under load the broker's loop turns once for each packet, so what has to be done now and then is done
    /// once a millisecond, unless something waits for it.
    pub(crate) fn tick(&self) -> c_int {
        let up_ms = self.started.elapsed().as_millis() as u64;
        let early = self.worked_ms.replace(Some(up_ms)) == Some(up_ms);
        let mut policy = self.policy.borrow_mut();
        if early && !policy.is_waiting() {
            policy.turn();
        } else {
            drop(policy);
            self.work(self.now());
        }
        abi::SUCCESS
    }

    /// Does what has to be done now and then.
    fn work(&self, now: Now) {
        let watch = self.watch();
        self.take_replies(now);
        let mut policy = self.policy.borrow_mut();
        policy.tick(now, |client| self.contexts.sub_count(client));
        let alarm = policy.take_alarm();
        drop(policy);
        tell(alarm);
        self.announce_clients();
        if self.report(now) {
            self.tell_notices();
        }
        self.execute_wills(now);
        self.policy.borrow_mut().store_anew();
        self.send_kept();
        self.act();
        self.publish_own(now);
        self.write_down(now);
        self.end_outdated();
        self.kick_unwanted(now);
        if self.board.borrow_mut().due(Duration::from_millis(now.up_ms)) {
            self.publish_counters();
            self.publish_retained_status();
        }
        self.stop(watch);
    }

    fn publish_counters(&self) {
        let board = self.board.borrow();
        let policy = self.policy.borrow();
        // Queued by the broker until its next turn: nothing is called back from here.
        let refused = board
            .lines(
                policy.counts(),
                policy.sessions(),
                policy.bridges(),
                policy.clients(),
            )
            .find_map(|(topic, value)| ffi::publish_retained(topic, &value.to_string()).err());
        drop(policy);
        drop(board);
        if let Some(code) = refused {
            log(
                Level::Error,
                &format!("cannot publish the counters: error {code}"),
            );
        }
    }

    fn kick_unwanted(&self, now: Now) {
        let unwanted = self.policy.borrow().unwanted(now.up_ms);
        for client_id in &unwanted {
            self.ended.set(false);
            let found = ffi::break_off(client_id);
            let mut policy = self.policy.borrow_mut();
            if self.ended.get() {
                policy.intruded();
            } else if found {
                policy.is_vacant(client_id, now.up_ms);
            }
        }
        let alarm = self.policy.borrow_mut().take_alarm();
        tell(alarm);
    }
}

/// What can be seen of a message in a check: all but its properties.
fn content<'a>(check: &AclCheck<'a>) -> Content<'a> {
    Content {
        topic: check.topic(),
        payload: check.payload(),
        properties: &[],
    }
}

/// What a stranger sent, fit for the log.
fn printable(id: &[u8]) -> String {
    String::from_utf8_lossy(id).escape_debug().take(80).collect()
}

/// The stamp that a property is, if it is one.
fn stamp_in(property: Property<'_>) -> Option<&str> {
    match property {
        Property::User(STAMP_PROPERTY, value) => Some(value),
        _ => None,
    }
}

fn now_since(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        up_ms: started.elapsed().as_millis() as u64,
        wall_ms: wall.unwrap_or_default().as_millis() as u64,
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
