//! What arrives, each message once.

use std::sync::Arc;

use bytes::Bytes;
use rumqttc::v5::AsyncClient;
use rumqttc::v5::mqttbytes::v5::Publish;
use tokio::sync::mpsc;

use crate::Handle;
use crate::seen::Seen;

/// Keys of messages that are remembered.
const REMEMBERED: usize = 100_000;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// Its payload.
    pub payload: Bytes,
    /// Whether it was kept by the broker, and not published just now.
    pub retain: bool,
    /// Its user properties.
    pub user_properties: Vec<(String, String)>,
}

/// A message and the connection on which it came, where it is to be acknowledged.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) publish: Publish,
    pub(crate) client: AsyncClient,
}

/// The messages of a session.
#[derive(Debug)]
pub struct Messages {
    deliveries: mpsc::Receiver<Delivery>,
    seen: Seen,
    duplicates: u64,
    /// What was handed out and is not acknowledged yet.
    open: Option<Delivery>,
    _handle: Arc<Handle>,
}

impl Messages {
    pub(crate) fn new(deliveries: mpsc::Receiver<Delivery>, handle: Arc<Handle>) -> Self {
        Self {
            deliveries,
            seen: Seen::new(REMEMBERED),
            duplicates: 0,
            open: None,
            _handle: handle,
        }
    }

    /// The next message; `None` when the client was closed.
    ///
    /// To ask for the next one says that you are done with the one before: only then is that acknowledged. A program
    /// that dies over a message gets it again. May be cancelled without losing anything.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            self.acknowledge().await;
            let delivery = self.deliveries.recv().await?;
            let publish = &delivery.publish;
            let properties = publish.properties.as_ref();
            let user_properties =
                properties.map_or_else(Vec::new, |properties| properties.user_properties.clone());
            let message = Message {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload.clone(),
                retain: publish.retain,
                user_properties,
            };
            self.open = Some(delivery);
            // Only now: an earlier delivery of the same message has been dealt with, so this one may be acknowledged.
            if self.seen.is_new(&message.user_properties) {
                return Some(message);
            }
            self.duplicates += 1;
        }
    }

    /// Says that you are done with the last message, without waiting for another.
    pub async fn acknowledge(&mut self) {
        if let Some(delivery) = &self.open {
            // An error says that its connection is gone; then the broker delivers it again.
            delivery.client.ack(&delivery.publish).await.ok();
        }
        self.open = None;
    }

    /// How many messages were dropped because they had come before.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }
}
