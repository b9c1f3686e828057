//! Reads stored messages from this very broker, as a client of it, and publishes what the plugin has to publish.
//!
//! The plugin API cannot look into the broker's store, and an MQTT client can: it subscribes to exactly the topics
//! that are of interest, and gets each value with all its properties and the time that is left until it expires. A
//! thread does that, over the broker's own listener, some topics at a time and one lot after the other, so that the
//! broker never has more than one lot of answers waiting. How many are a lot depends on how large the values are.
//!
//! The broker may drop what it sends to a client without a word. So what has not come is asked for a second time,
//! after everything else has been answered, and only then counts as not stored.

use std::collections::HashSet;
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::Version;
use super::replica::Found;
use crate::ffi::files::leave_descriptors;
use crate::message::Property;
use crate::salvage;

mod packets;

/// So many topics are a lot at most.
const LOT: usize = 200;
/// And so many bytes of values, as far as can be foretold.
const LOT_BYTES: usize = 256 << 10;
/// A broker that says nothing for so long does not answer any more.
const SILENCE: Duration = Duration::from_secs(10);
/// So often a thread that waits for the broker looks whether that ends.
const LOOK: Duration = Duration::from_millis(100);
/// The connection is closed after so long without a job.
const IDLE: Duration = Duration::from_secs(5);
/// So many values wait for the broker's loop at most.
const WAITING: usize = 2 * LOT;

/// How the reader logs in.
#[derive(Clone)]
pub struct Login {
    /// The broker's own listener.
    pub address: SocketAddr,
    /// The client id.
    pub client_id: String,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
}

/// What the reader says.
#[derive(Debug)]
pub enum Reply {
    /// A value of this job.
    Found(u64, Found),
    /// There is nothing else. Or it could not be read, and why.
    Done(u64, Result<(), String>),
    /// The broker has handled everything that was to be published. Or it could not be sent, and why.
    Published(Result<(), String>),
}

enum Job {
    Read(u64, Vec<Box<str>>),
    Publish(Vec<u8>),
}

/// The reader, from the side of the broker's loop.
pub struct Reader {
    /// Until the reader ends.
    jobs: Option<Sender<Job>>,
    replies: Option<Receiver<Reply>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// Starts the thread. It connects when there is something to read.
    ///
    /// # Errors
    ///
    /// If there can be no thread.
    pub fn start(login: Login) -> io::Result<Self> {
        let (jobs, from_loop) = channel::<Job>();
        let (to_loop, replies) = sync_channel(WAITING);
        let ending = Arc::<AtomicBool>::default();
        let session = Session {
            login,
            to_loop,
            ending: Arc::clone(&ending),
            connection: None,
            average: LOT_BYTES / 8,
        };
        let thread = thread::Builder::new()
            .name("mesh-reader".to_owned())
            .spawn(move || {
                leave_descriptors();
                session.run(&from_loop);
            })?;
        Ok(Self {
            jobs: Some(jobs),
            replies: Some(replies),
            ending,
            thread: Some(thread),
        })
    }

    /// Reads these topics, after what was asked for before.
    pub fn read(&self, job: u64, topics: Vec<Box<str>>) {
        if let Some(jobs) = &self.jobs {
            // It fails only if the thread is gone. Then no reply comes, as if the broker did not answer.
            jobs.send(Job::Read(job, topics)).ok();
        }
    }

    /// Publishes these packets, after what was asked for before.
    pub fn publish(&self, packets: Vec<u8>) {
        if let Some(jobs) = &self.jobs {
            // As above.
            jobs.send(Job::Publish(packets)).ok();
        }
    }

    /// What the reader has to say, if anything. Never blocks.
    pub fn reply(&self) -> Option<Reply> {
        self.replies.as_ref()?.try_recv().ok()
    }
}

impl Drop for Reader {
    /// Ends the thread. Its code belongs to this library, which the broker unloads.
    fn drop(&mut self) {
        (self.jobs, self.replies) = (None, None);
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A stream that gives up when the broker ends. From outside it cannot be closed: its descriptor is the thread's own.
struct Patient {
    stream: TcpStream,
    ending: Arc<AtomicBool>,
}

impl Patient {
    fn new(stream: TcpStream, ending: &Arc<AtomicBool>) -> Self {
        Self {
            stream,
            ending: Arc::clone(ending),
        }
    }

    /// Does `act` until it is not about waiting that it fails. Each try waits for [`LOOK`] at most.
    fn patiently<T>(&mut self, mut act: impl FnMut(&mut TcpStream) -> io::Result<T>) -> io::Result<T> {
        let begin = Instant::now();
        loop {
            let result = act(&mut self.stream);
            match &result {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.ending.load(Ordering::Relaxed) {
                        return Err(io::Error::other("the broker ends"));
                    }
                    if begin.elapsed() >= SILENCE {
                        return result;
                    }
                }
                _ => return result,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.read(buffer))
    }
}

impl Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.patiently(|stream| stream.write(buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Connection {
    writer: Patient,
    reader: BufReader<Patient>,
    next_id: u16,
}

/// The thread.
struct Session {
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
    fn run(mut self, from_loop: &Receiver<Job>) {
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
            connection.writer.write_all(&packets::DISCONNECT).ok();
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
        connection.writer.write_all(packets)?;
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
        if self.connection.is_none() {
            let stream = TcpStream::connect_timeout(&self.login.address, SILENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOOK))?;
            stream.set_write_timeout(Some(LOOK))?;
            let mut connection = Connection {
                reader: BufReader::new(Patient::new(stream.try_clone()?, &self.ending)),
                writer: Patient::new(stream, &self.ending),
                next_id: 1,
            };
            connection.writer.write_all(&packets::connect(&self.login))?;
            let answer = connection.packet()?;
            packets::check_connack(&answer)?;
            self.connection = Some(connection);
        }
        self.connection
            .as_mut()
            .ok_or_else(|| io::Error::other("there is no connection"))
    }
}

impl Connection {
    fn ask(&mut self, topics: &[Box<str>]) -> io::Result<()> {
        let (first, second) = (self.next_id, self.next_id.wrapping_add(1));
        self.next_id = second.wrapping_add(1).max(1);
        let mut bytes = packets::subscribe(first, topics);
        bytes.extend(packets::unsubscribe(second.max(1), topics));
        bytes.extend(packets::PINGREQ);
        self.writer.write_all(&bytes)
    }

    fn ping(&mut self) -> io::Result<()> {
        self.writer.write_all(&packets::PINGREQ)?;
        loop {
            if self.packet()?[0] == packets::PINGRESP {
                return Ok(());
            }
        }
    }

    /// The next packet, whole.
    fn packet(&mut self) -> io::Result<Vec<u8>> {
        let mut packet = Vec::new();
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        packet.extend(byte);
        let mut length = 0;
        for place in 0..4 {
            self.reader.read_exact(&mut byte)?;
            packet.extend(byte);
            length |= usize::from(byte[0] & 0x7f) << (7 * place);
            if byte[0] < 0x80 {
                break;
            }
        }
        let read = self
            .reader
            .by_ref()
            .take(length as u64)
            .read_to_end(&mut packet)?;
        if read < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(packet)
    }
}
