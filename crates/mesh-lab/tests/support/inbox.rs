//! Subscribers, MQTT 5 and 3.1.1, that keep everything they receive.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{Filter, PubAck, PubComp, PubRec, Subscribe};
use mesh_runtime::mqtt::{Connection, MqttError, Packet};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::PATIENCE;
use super::client::{Who, within};

/// A message as it arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: bytes::Bytes,
    pub qos: u8,
    pub retain: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.payload[..self.payload.len().min(40)]);
        let retain = if self.retain { ", retain" } else { "" };
        write!(
            f,
            "{} = {start:?} ({} bytes, QoS {}{retain})",
            self.topic,
            self.payload.len(),
            self.qos
        )
    }
}

impl Message {
    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

#[derive(Default)]
struct Seen {
    messages: Vec<Message>,
    ended: Option<String>,
}

/// A subscriber. Its session ends when it is dropped.
pub struct Inbox {
    name: String,
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Inbox {
    /// Connects with MQTT 5 and subscribes at QoS 2, retain flags as published.
    pub async fn open(address: SocketAddr, who: &Who, filters: &[&str], name: &str) -> Self {
        let opened = within(PATIENCE, "a SUBACK", subscribe_v5(address, who, filters)).await;
        let (connection, early) = opened.unwrap_or_else(|error| panic!("the {name} as {who}: {error}"));
        let (seen, receiver) = watch::channel(Seen::default());
        let task = tokio::spawn(async move {
            let ended = receive_v5(connection, early, &seen).await;
            seen.send_modify(|seen| seen.ended = Some(ended));
        });
        Self {
            name: name.to_owned(),
            seen: receiver,
            task,
        }
    }

    /// Connects with MQTT 3.1.1 and subscribes at QoS 2.
    pub async fn open_v311(address: SocketAddr, filter: &str, name: &str) -> Self {
        let id = Who::anonymous().identity().client_id;
        let mut options = rumqttc::MqttOptions::new(id, address.ip().to_string(), address.port());
        // By default rumqttc takes 10 KiB.
        options
            .set_max_packet_size(4 << 20, 4 << 20)
            .set_keep_alive(Duration::from_secs(60));
        let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
        client
            .subscribe(filter, rumqttc::QoS::ExactlyOnce)
            .await
            .expect("the queue has room");
        let (seen, receiver) = watch::channel(Seen::default());
        let (granted, mut grant) = watch::channel(false);
        let task = tokio::spawn(async move {
            use rumqttc::{Event, Packet};
            let _open = client;
            loop {
                match events.poll().await {
                    Ok(Event::Incoming(Packet::SubAck(_))) => drop(granted.send_replace(true)),
                    Ok(Event::Incoming(Packet::Publish(message))) => seen.send_modify(|seen| {
                        seen.messages.push(Message {
                            topic: message.topic,
                            payload: message.payload,
                            qos: message.qos as u8,
                            retain: message.retain,
                        });
                    }),
                    Ok(_) => {}
                    // It would connect again, without its subscription.
                    Err(error) => break seen.send_modify(|seen| seen.ended = Some(error.to_string())),
                }
            }
        });
        let granted = within(PATIENCE, "a SUBACK", grant.wait_for(|granted| *granted)).await;
        granted.unwrap_or_else(|_| panic!("the {name} is connected"));
        Self {
            name: name.to_owned(),
            seen: receiver,
            task,
        }
    }

    /// Who it is, for messages of tests.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many messages have come.
    pub fn count(&self) -> usize {
        self.seen.borrow().messages.len()
    }

    /// Everything that has come, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.seen.borrow().messages.clone()
    }

    /// What has come on `topic`, in order.
    pub fn on(&self, topic: &str) -> Vec<Message> {
        self.messages()
            .into_iter()
            .filter(|message| message.topic == topic)
            .collect()
    }

    /// Waits until `enough` of what has come.
    pub async fn wait_for(&self, what: &str, enough: impl Fn(&[Message]) -> bool) {
        let mut seen = self.seen.clone();
        let look = seen.wait_for(|seen| seen.ended.is_some() || enough(&seen.messages));
        let reached = tokio::time::timeout(PATIENCE, look).await.is_ok();
        let seen = self.seen.borrow();
        if !reached || !enough(&seen.messages) {
            let ended = seen
                .ended
                .as_deref()
                .map(|why| format!("; its session ended: {why}"));
            let last = &seen.messages[seen.messages.len().saturating_sub(40)..];
            panic!(
                "{what}: not there after {PATIENCE:?}{}; the {} got {} messages, the last of them {last:#?}",
                ended.unwrap_or_default(),
                self.name,
                seen.messages.len(),
            );
        }
    }

    /// Waits for a message on `topic` and returns the first.
    pub async fn first(&self, topic: &str) -> Message {
        let what = format!("a message on {topic}");
        self.wait_for(&what, |messages| {
            messages.iter().any(|message| message.topic == topic)
        })
        .await;
        self.on(topic).swap_remove(0)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Subscribes, and returns what came before the SUBACK too: the broker may send retained messages first.
async fn subscribe_v5(
    address: SocketAddr,
    who: &Who,
    filters: &[&str],
) -> Result<(Connection, Vec<Packet>), MqttError> {
    let (mut connection, _) = Connection::open(address, &who.identity()).await?;
    let filters = filters.iter().map(|filter| Filter {
        preserve_retain: true,
        ..Filter::new(*filter, QoS::ExactlyOnce)
    });
    let subscribe = Subscribe {
        pkid: 1,
        filters: filters.collect(),
        properties: None,
    };
    connection.send(&Packet::Subscribe(subscribe)).await?;
    let mut early = Vec::new();
    loop {
        match connection.receive().await? {
            Packet::SubAck(_) => return Ok((connection, early)),
            packet => early.push(packet),
        }
    }
}

async fn receive_v5(mut connection: Connection, early: Vec<Packet>, seen: &watch::Sender<Seen>) -> String {
    let mut early = early.into_iter();
    loop {
        let packet = match early.next() {
            Some(packet) => Ok(packet),
            None => connection.receive().await,
        };
        let answered = match packet {
            Ok(packet) => take(&mut connection, packet, seen).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            return error.to_string();
        }
    }
}

async fn take(
    connection: &mut Connection,
    packet: Packet,
    seen: &watch::Sender<Seen>,
) -> Result<(), MqttError> {
    match packet {
        Packet::Publish(message) => {
            match message.qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => connection.queue(&Packet::PubAck(PubAck::new(message.pkid, None)))?,
                QoS::ExactlyOnce => connection.queue(&Packet::PubRec(PubRec::new(message.pkid, None)))?,
            }
            let message = Message {
                topic: String::from_utf8_lossy(&message.topic).into_owned(),
                payload: message.payload,
                qos: message.qos as u8,
                retain: message.retain,
            };
            seen.send_modify(|seen| seen.messages.push(message));
        }
        Packet::PubRel(rel) => connection.queue(&Packet::PubComp(PubComp::new(rel.pkid, None)))?,
        _ => {}
    }
    connection.flush().await
}
