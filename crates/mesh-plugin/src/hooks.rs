//! From the broker's events to the policy and back; no decision is taken here.
//!
//! Nothing is borrowed while the broker is called (see [`crate::ffi`]): each hook asks the policy first, and
//! logs, publishes or kicks afterwards.

use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_int};
use std::time::{Duration, Instant, SystemTime};

use mesh_model::Link;
use mesh_model::names::{PRESENCE_PREFIX, SEEN_PREFIX, link_client_id};

use crate::counters::Board;
use crate::ffi::socket::Socket;
use crate::ffi::{self, Contexts, Level, abi, log};
use crate::options::{Options, Peer};
use crate::policy::{Bypass, Policy};
use crate::replication::Now;
use crate::retained::journal::Record;
use crate::{memory, startup};

mod access;
mod clients;
mod links;
mod messages;
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
        // Before a million values are read.
        ffi::allocator::merge_at_once();
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
        self.stop(watch, "tick");
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

/// What a stranger sent, fit for the log.
fn printable(id: &[u8]) -> String {
    String::from_utf8_lossy(id).escape_debug().take(80).collect()
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
