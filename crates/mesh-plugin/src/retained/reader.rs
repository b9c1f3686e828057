//! Reads stored messages from this very broker, as a client of it, and publishes what the plugin has to publish.
//!
//! The plugin API cannot look into the broker's store, and an MQTT client can: it subscribes to exactly the topics
//! that are of interest, and gets each value with all its properties and the time that is left until it expires. A
//! thread does that, over the broker's own listener, some topics at a time and one lot after the other, so that the
//! broker never has more than one lot of answers waiting. How many are a lot depends on how large the values are.
//!
//! The broker may drop what it sends to a client without a word. So what has not come is asked for a second time,
//! after everything else has been answered, and only then counts as not stored.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::replica::Found;
use crate::ffi::files::leave_descriptors;
use session::{LOT, Session};

mod connection;
mod packets;
mod session;

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
        let session = Session::new(login, to_loop, Arc::clone(&ending));
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
