//! The thread that reads and publishes.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use super::connection::Connection;
use super::{Job, Login, Reply, packets};
use crate::message::Property;
use crate::retained::Version;
use crate::retained::replica::Found;
use crate::salvage;

/// So many topics are a lot at most.
pub(super) const LOT: usize = 200;
/// And so many bytes of values, as far as can be foretold.
const LOT_BYTES: usize = 256 << 10;
/// The connection is closed after so long without a job.
const IDLE: Duration = Duration::from_secs(5);

/// The thread.
pub(super) struct Session {
    login: Login,
    to_loop: SyncSender<Reply>,
    ending: Arc<AtomicBool>,
    connection: Option<Connection>,
    /// How large values are, on average of late.
    average: usize,
}

/// The loop does not listen any more.
struct Ended;

impl Session {
    /// Nothing is connected before the first job.
    pub(super) fn new(login: Login, to_loop: SyncSender<Reply>, ending: Arc<AtomicBool>) -> Self {
        Self {
            login,
            to_loop,
            ending,
            connection: None,
            average: LOT_BYTES / 8,
        }
    }

    /// Does what it is told until the loop does not listen any more.
    pub(super) fn run(mut self, from_loop: &Receiver<Job>) {
        loop {
            let job = match from_loop.recv_timeout(IDLE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.disconnect();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            let (id, result) = match job {
                Job::Read(id, topics) => match self.job(id, topics) {
                    Ok(result) => (Some(id), result),
                    Err(Ended) => break,
                },
                Job::Publish(packets) => (None, self.publish(&packets)),
            };
            if result.is_err() {
                self.disconnect();
            }
            let result = result.map_err(|error| error.to_string());
            let reply = match id {
                Some(id) => Reply::Done(id, result),
                None => Reply::Published(result),
            };
            if self.to_loop.send(reply).is_err() {
                break;
            }
            // Any packet makes the broker's loop turn, and look for replies.
            if let Some(connection) = &mut self.connection
                && connection.ping().is_err()
            {
                self.disconnect();
            }
        }
        self.disconnect();
    }

    fn disconnect(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            // It is closed in any case.
            connection.send(&packets::DISCONNECT).ok();
        }
    }

    fn job(&mut self, id: u64, topics: Vec<Box<str>>) -> Result<io::Result<()>, Ended> {
        let mut missing = Vec::new();
        for second_time in [false, true] {
            let mut rest: Vec<Box<str>> = if second_time {
                std::mem::take(&mut missing)
            } else {
                topics.clone()
            };
            while !rest.is_empty() {
                let lot = (LOT_BYTES / self.average.max(1)).clamp(1, LOT).min(rest.len());
                let later = rest.split_off(lot);
                match self.lot(id, &rest)? {
                    Ok(absent) => missing.extend(absent),
                    Err(error) => return Ok(Err(error)),
                }
                rest = later;
            }
        }
        Ok(Ok(()))
    }

    /// Publishes; the broker has handled it all when it answers what comes behind.
    fn publish(&mut self, packets: &[u8]) -> io::Result<()> {
        let connection = self.connect()?;
        connection.send(packets)?;
        connection.ping()
    }

    /// Reads a lot; returns what has not come.
    fn lot(&mut self, id: u64, topics: &[Box<str>]) -> Result<io::Result<Vec<Box<str>>>, Ended> {
        let mut absent: HashSet<&str> = topics.iter().map(AsRef::as_ref).collect();
        let mut packets = Vec::new();
        let connection = match self.connect() {
            Ok(connection) => connection,
            Err(error) => return Ok(Err(error)),
        };
        // Unsubscribed at once: what is stored is sent before, and what is published later is not wanted.
        if let Err(error) = connection.ask(topics) {
            return Ok(Err(error));
        }
        loop {
            match connection.packet() {
                Err(error) => return Ok(Err(error)),
                Ok(packet) if packet[0] & 0xf0 == 0x30 => packets.push(packet),
                Ok(packet) if packet[0] == packets::PINGRESP => break,
                Ok(_) => {}
            }
        }
        for packet in packets {
            self.average = (7 * self.average + packet.len()) / 8;
            let Some(found) = self.found(packet) else { continue };
            if absent.remove(&*found.topic) && self.to_loop.send(Reply::Found(id, found)).is_err() {
                return Err(Ended);
            }
        }
        let absent = absent.into_iter().map(Into::into).collect();
        Ok(Ok(absent))
    }

    /// The value in a packet, if it was stored.
    fn found(&self, packet: Vec<u8>) -> Option<Found> {
        let messages = salvage::parse(&packet);
        let message = messages.first().filter(|message| message.retain)?;
        let expires_in = message.properties.iter().find_map(|property| match property {
            Property::MessageExpiry(seconds) => Some(*seconds),
            _ => None,
        });
        let topic = message.topic.into();
        let version = Version::stored(&message.properties, message.payload);
        Some(Found {
            topic,
            version,
            expires_in,
            packet,
        })
    }

    fn connect(&mut self) -> io::Result<&mut Connection> {
        let open = match self.connection.take() {
            Some(open) => open,
            None => Connection::open(&self.login, &self.ending)?,
        };
        Ok(self.connection.insert(open))
    }
}
