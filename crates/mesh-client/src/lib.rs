//! An MQTT 5 session that lives through the death of its broker: a thin layer over [`rumqttc`].
//!
//! ```no_run
#![doc = include_str!("../examples/hello.rs")]
//! ```
//!
//! What it adds, since every client needs it and none has it built in:
//!
//! - **Nothing published is lost.** [`Client::publish`] returns when the message is in the [`Outbox`] (SQLite). It leaves
//!   the outbox with its PUBACK, also if this program was killed and started again in between.
//! - **Each message comes once**, and is acknowledged when you are done with it: [`Messages::next`].
//! - **It comes back by itself**: to the balancer, or to a list of brokers in order, with pauses that grow and vary; and
//!   it subscribes again wherever the broker does not know the session.
//!
//! TLS is behind the feature `tls`. Not built: QoS 0 and 2 (the outbox gives at least once, the dropped duplicates
//! exactly once), subscriptions that change while it runs, wills, and MQTT 3.1.1 (it has no user properties, by which
//! duplicates are known).

mod connection;
mod error;
mod messages;
mod options;
mod outbox;
mod route;
mod seen;
mod status;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use connection::Driver;

pub use error::ClientError;
pub use messages::{Message, Messages};
pub use options::Options;
#[cfg(feature = "tls")]
pub use options::Tls;
pub use outbox::Outbox;
pub use seen::{MESH_STAMP, MESSAGE_ID};
pub use status::Status;

/// Messages that may wait for the program.
const DELIVERIES: usize = 1024;

/// Starts a session. It lives until [`Client::close`], or until every [`Client`] and [`Messages`] of it is dropped.
///
/// # Errors
///
/// [`ClientError::Options`], or [`ClientError::Outbox`] if the outbox cannot be read. A broker that cannot be reached
/// is no error: see [`Client::status`].
pub async fn start(options: Options, outbox: Outbox) -> Result<(Client, Messages), ClientError> {
    options.check()?;
    let status = Status {
        waiting: outbox.count().await?,
        ..Status::default()
    };
    let shared = Arc::new(Shared {
        status: watch::Sender::new(status),
        added: Notify::new(),
    });
    let stop = CancellationToken::new();
    let ended = CancellationToken::new();
    let (sender, deliveries) = mpsc::channel(DELIVERIES);
    let driver = Driver {
        options,
        outbox: outbox.clone(),
        shared: Arc::clone(&shared),
        stop: stop.clone(),
        deliveries: sender,
    };
    let at_end = ended.clone().drop_guard();
    tokio::spawn(async move {
        driver.run().await;
        drop(at_end);
    });
    let handle = Arc::new(Handle {
        stop: stop.drop_guard(),
        ended,
    });
    let client = Client {
        outbox,
        shared,
        handle: Arc::clone(&handle),
    };
    Ok((client, Messages::new(deliveries, handle)))
}

/// What the session's task and its clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) status: watch::Sender<Status>,
    /// Told when a message came into the outbox.
    pub(crate) added: Notify,
}

/// Ends the session's task when it is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    stop: DropGuard,
    ended: CancellationToken,
}

/// A session that publishes.
#[derive(Debug, Clone)]
pub struct Client {
    outbox: Outbox,
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

impl Client {
    /// Publishes with QoS 1. Returns when the message is in the outbox, connected or not.
    ///
    /// # Errors
    ///
    /// [`ClientError::Outbox`]; the message is not published then.
    pub async fn publish(
        &self,
        topic: impl Into<String>,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), ClientError> {
        self.add(topic.into(), payload.into(), false).await
    }

    /// The same, and brokers keep it as the topic's value.
    ///
    /// # Errors
    ///
    /// As [`Self::publish`].
    pub async fn publish_retained(
        &self,
        topic: impl Into<String>,
        payload: impl Into<Vec<u8>>,
    ) -> Result<(), ClientError> {
        self.add(topic.into(), payload.into(), true).await
    }

    /// How it goes; the first `changed` of the receiver returns at once.
    pub fn status(&self) -> watch::Receiver<Status> {
        let mut status = self.shared.status.subscribe();
        status.mark_changed();
        status
    }

    /// Waits until everything that was published is acknowledged.
    ///
    /// # Errors
    ///
    /// [`ClientError::Closed`] if the client is closed before that.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let mut status = self.status();
        tokio::select! {
            _ = status.wait_for(|status| status.waiting == 0) => Ok(()),
            () = self.handle.ended.cancelled() => Err(ClientError::Closed),
        }
    }

    /// Says goodbye. What is not acknowledged stays in the outbox.
    pub async fn close(&self) {
        self.handle.stop.token().cancel();
        self.handle.ended.cancelled().await;
    }

    async fn add(&self, topic: String, payload: Vec<u8>, retain: bool) -> Result<(), ClientError> {
        // Counted first: an acknowledgement may come before this returns.
        self.shared.status.send_modify(|status| status.waiting += 1);
        let added = self.outbox.add(topic, payload, retain).await;
        if added.is_err() {
            self.shared.status.send_modify(|status| status.waiting -= 1);
        }
        self.shared.added.notify_one();
        added.map(drop)
    }
}
