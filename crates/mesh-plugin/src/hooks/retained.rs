//! What has to be done for retained messages: said to peers, read, stored, kept, logged.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use mesh_model::names::{LINK_USER, RETAINED_TOPIC, SYNC_PREFIX, reader_client_id};
use rustix::time::{ClockId, clock_gettime};

use super::Plugin;
use crate::ffi::{self, Level, log};
use crate::memory::Recalled;
use crate::message::{Property, Publish};
use crate::options::Options;
use crate::policy::Purpose;
use crate::replication::Now;
use crate::retained::journal::{Journal, Record};
use crate::retained::reader::{Login, Reader, Reply};
use crate::retained::replica::{Action, Event};
use crate::retained::stamp_of;
use crate::salvage;
use crate::stamp::{Hlc, STAMP_PROPERTY, Stamp};

/// So many bytes of values are handed on in one turn of the loop, at least one value.
const TURN_BYTES: usize = 512 << 10;
/// And for so long.
const TURN: Duration = Duration::from_millis(2);
/// What was seen is kept so often, if it has changed.
const SEEN_EVERY_MS: u64 = 1_000;
/// And that this broker runs, so often.
const ALIVE_EVERY_MS: u64 = 10_000;
/// A problem that stays is said so often.
const SAY_AGAIN_MS: u64 = 60_000;

/// What the hooks need for retained messages.
pub(super) struct Tools {
    topic: String,
    reader: Option<Reader>,
    journal: RefCell<Option<Journal>>,
    /// What was last kept as seen.
    seen: RefCell<String>,
    seen_at: Cell<u64>,
    alive_at: Cell<u64>,
    /// A problem is not said before.
    say_at: Cell<u64>,
    /// The most processor time that a callback has taken which does something about retained messages, and which it
    /// was.
    longest: Cell<(Duration, &'static str)>,
}

impl Tools {
    /// With the journal of `recalled`, whose messages are said.
    pub(super) fn new(options: &Options, recalled: &mut Recalled) -> Self {
        for (level, text) in recalled.said.drain(..) {
            log(level, &text);
        }
        let login = Login {
            address: options.address,
            client_id: reader_client_id(&options.broker_id),
            user: LINK_USER.to_owned(),
            password: options.link_password.clone(),
        };
        let reader = Reader::start(login).map_err(|error| {
            let text = format!("cannot start a thread: {error}; peers get no retained messages from here");
            log(Level::Error, &text);
        });
        Self {
            topic: format!("{SYNC_PREFIX}{}", options.broker_id),
            reader: reader.ok(),
            journal: RefCell::new(recalled.journal.take()),
            seen: RefCell::default(),
            seen_at: Cell::default(),
            alive_at: Cell::default(),
            say_at: Cell::default(),
            longest: Cell::new((Duration::ZERO, "none")),
        }
    }

    pub(super) fn keep(&self, record: &Record<'_>) {
        if let Some(journal) = &mut *self.journal.borrow_mut() {
            journal.keep(record);
        }
    }

    /// Says a problem, if it was not said of late.
    fn complain(&self, now: Now, text: &str) {
        if now.up_ms >= self.say_at.get() {
            self.say_at.set(now.up_ms + SAY_AGAIN_MS);
            log(Level::Error, text);
        }
    }
}

impl Plugin {
    /// Looks at the clock, if there is something to do about retained messages.
    pub(super) fn watch(&self) -> Option<Duration> {
        self.policy.borrow_mut().retained().is_busy().then(processor_time)
    }

    /// What [`Self::watch`] was called for is done.
    pub(super) fn stop(&self, watch: Option<Duration>, what: &'static str) {
        if let Some(begin) = watch {
            let time = processor_time().saturating_sub(begin);
            let longest = &self.retained.longest;
            if time > longest.get().0 {
                longest.set((time, what));
            }
        }
    }

    /// Takes in what the reader has found.
    pub(super) fn take_replies(&self, now: Now) {
        let Some(reader) = &self.retained.reader else {
            return;
        };
        let (mut bytes, begin) = (0, Instant::now());
        while bytes < TURN_BYTES
            && begin.elapsed() < TURN
            && let Some(reply) = reader.reply()
        {
            let problem = match reply {
                Reply::Found(job, found) => {
                    bytes += found.packet.len();
                    self.policy.borrow_mut().retained().found(job, found, now.into());
                    None
                }
                Reply::Done(job, result) => {
                    let done = result.is_ok();
                    self.policy.borrow_mut().retained().read_done(job, done);
                    result.err()
                }
                Reply::Published(result) => {
                    let given_up = self.policy.borrow_mut().batch_done(result.is_ok(), now.up_ms);
                    if let Some(topic) = given_up {
                        let topic = super::printable(&topic);
                        let text =
                            format!("this broker does not take a message to \"{topic}\"; it is given up");
                        log(Level::Error, &text);
                    }
                    result.err()
                }
            };
            if let Some(error) = problem {
                let address = self.options.address;
                let text = format!(
                    "cannot read or publish retained messages as a client of this broker at {address}: {error}"
                );
                self.retained.complain(now, &text);
            }
        }
    }

    /// Does what is to be done now.
    pub(super) fn act(&self) {
        loop {
            let action = self.policy.borrow_mut().retained().next_action();
            let Some(action) = action else { return };
            match action {
                Action::Say(peer, payload) => {
                    let message = Publish {
                        topic: &self.retained.topic,
                        payload: &payload,
                        qos: 1,
                        retain: false,
                        properties: Vec::new(),
                    };
                    // Should it fail, the round stalls and is begun again.
                    ffi::publish_to(&self.link_ids[peer], &message).ok();
                }
                Action::Remove { topic, shown } => self.remove(&topic, shown),
                Action::Read(job, topics) => {
                    if let Some(reader) = &self.retained.reader {
                        reader.read(job, topics);
                    }
                }
                Action::Send(peer, packet) => self.send_stored(peer, &packet),
                Action::Keep(topic, mark, second) => {
                    self.retained.keep(&Record::Ended(&topic, mark, second));
                }
                Action::Tell(event) => self.tell_event(&event),
            }
        }
    }

    /// Removes what is stored at a topic.
    fn remove(&self, topic: &str, shown: bool) {
        let message = Publish {
            topic,
            payload: &[],
            qos: 0,
            retain: true,
            properties: Vec::new(),
        };
        self.policy
            .borrow_mut()
            .publish_own(&message, Purpose::Removal { shown });
    }

    /// Hands on what is to be published over the plugin's own session.
    pub(super) fn publish_own(&self, now: Now) {
        let Some(reader) = &self.retained.reader else {
            return;
        };
        if let Some(packets) = self.policy.borrow_mut().next_batch(now.up_ms) {
            reader.publish(packets);
        }
    }

    /// Sends a stored value, as it was read, to a peer that has asked for it.
    fn send_stored(&self, peer: usize, packet: &[u8]) {
        let messages = salvage::parse(packet);
        let Some(mut message) = messages.into_iter().next() else {
            return;
        };
        let stamp = match stamp_of(&message.properties) {
            Some(stamp) => {
                let last = |property: &Property<'_>| matches!(property, Property::User(STAMP_PROPERTY, _));
                let at = message.properties.iter().rposition(last);
                at.map(|at| message.properties.remove(at));
                Stamp {
                    requested: true,
                    ..stamp
                }
            }
            // From before there were stamps. Its time says so.
            None => Stamp {
                origin: self.options.broker_id.clone(),
                epoch: 0,
                seq: 1,
                time: Hlc(0),
                retain: true,
                requested: true,
                qos: 1,
            },
        };
        message.qos = stamp.qos.min(1);
        let stamp = stamp.to_string();
        message.properties.push(Property::User(STAMP_PROPERTY, &stamp));
        // Should it fail, the peer notices and asks again.
        ffi::publish_to(&self.link_ids[peer], &message).ok();
    }

    fn tell_event(&self, event: &Event) {
        let text = match event {
            Event::Round(round) if round.fetched + round.ended == 0 => return,
            Event::Round(round) => format!(
                "took over {} retained messages and {} deletions from {} in {} ms",
                round.fetched,
                round.ended,
                self.options.peers[round.peer].id,
                round.took.as_millis()
            ),
            Event::InSync(took) => format!("in sync after {} ms", took.as_millis()),
            Event::OutOfSync => "peers are there again; comparing retained messages".to_owned(),
            Event::Dropped(count) => {
                format!("after a long absence, {count} retained messages were dropped that no peer has")
            }
            Event::Kept(count) => {
                format!("all peers were away for long; the {count} retained messages from before count again")
            }
        };
        log(Level::Notice, &text);
    }

    /// Writes down what must outlive this broker.
    pub(super) fn write_down(&self, now: Now) {
        let tools = &self.retained;
        if now.up_ms >= tools.seen_at.get() {
            tools.seen_at.set(now.up_ms + SEEN_EVERY_MS);
            let seen = self.policy.borrow().seen_text();
            if *tools.seen.borrow() != seen {
                tools.keep(&Record::Seen(seen.as_bytes()));
                tools.seen.replace(seen);
            }
        }
        if now.up_ms >= tools.alive_at.get() {
            tools.alive_at.set(now.up_ms + ALIVE_EVERY_MS);
            tools.keep(&Record::Alive(now.wall_ms));
        }
        let mut journal = tools.journal.borrow_mut();
        let Some(journal) = &mut *journal else { return };
        journal.flush();
        if let Some(problem) = journal.take_problem() {
            tools.complain(
                now,
                &format!("cannot write down what must outlive this broker: {problem}"),
            );
        }
    }

    /// Tells what is retained here.
    pub(super) fn publish_retained_status(&self) {
        let status = self.policy.borrow_mut().retained().status();
        let (longest, callback) = self.retained.longest.get();
        let text = format!(
            r#"{{"count":{},"digest":"{:032x}","in_sync":{},"longest_us":{},"longest":"{callback}"}}"#,
            status.count,
            status.digest,
            status.in_sync,
            longest.as_micros()
        );
        if let Err(code) = ffi::publish_retained(RETAINED_TOPIC, &text) {
            log(
                Level::Error,
                &format!("cannot publish {RETAINED_TOPIC}: error {code}"),
            );
        }
    }
}

/// What this thread has used so far. On a busy machine a callback takes longer than that, which is not its doing.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

impl Drop for Plugin {
    /// The broker ends in good order: what was seen since the last second is kept too.
    fn drop(&mut self) {
        let mut now = self.now();
        now.up_ms += Duration::from_secs(60).as_millis() as u64;
        self.write_down(now);
    }
}
