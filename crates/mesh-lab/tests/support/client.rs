//! A client that waits for the broker's word on all it does.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{
    Disconnect, DisconnectReasonCode, Filter, PubAckReason, PubCompReason, PubRecReason, PubRel, Publish,
    Subscribe,
};
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet};

use super::PATIENCE;

/// As whom a client connects.
#[derive(Debug, Clone, Default)]
pub struct Who {
    client_id: Option<String>,
    login: Option<(String, String)>,
}

impl Who {
    /// Somebody without a user name.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// Somebody with a user name; without a password if it is empty.
    pub fn user(name: &str, password: &str) -> Self {
        Self::default().with_user(name, password)
    }

    /// Somebody who wants to be known by this client id.
    pub fn named(client_id: &str) -> Self {
        Self {
            client_id: Some(client_id.to_owned()),
            login: None,
        }
    }

    /// The same, with a user name.
    pub fn with_user(self, name: &str, password: &str) -> Self {
        Self {
            login: Some((name.to_owned(), password.to_owned())),
            ..self
        }
    }

    /// With a client id that nobody else in this process has.
    pub fn identity(&self) -> Identity {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Identity {
            client_id: self.client_id.clone().unwrap_or_else(|| format!("test-{number}")),
            login: self.login.clone(),
            keep_alive_s: 0,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.login {
            Some((name, password)) => write!(f, "{name}/{password}")?,
            None => f.write_str("anonymous")?,
        }
        self.client_id.iter().try_for_each(|id| write!(f, " as {id}"))
    }
}

/// A session that publishes, one message after the other.
pub struct Client {
    connection: Connection,
    next_id: u16,
}

impl Client {
    /// Connects, or tells why the broker does not want that.
    pub async fn try_open(address: SocketAddr, who: &Who) -> Result<Self, MqttError> {
        let opened = within(PATIENCE, "a CONNACK", Connection::open(address, &who.identity())).await;
        opened.map(|(connection, _)| Self {
            connection,
            next_id: 0,
        })
    }

    /// Connects as somebody who is allowed to.
    pub async fn open(address: SocketAddr, who: &Who) -> Self {
        let opened = Self::try_open(address, who).await;
        opened.unwrap_or_else(|error| panic!("{who} cannot connect to {address}: {error}"))
    }

    /// Publishes what is allowed and returns when it is acknowledged (QoS 1 and 2).
    pub async fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: impl Into<bytes::Bytes>) {
        let reason = self.try_publish(topic, qos, retain, payload).await;
        let taken = ["sent", "Success", "NoMatchingSubscribers"].contains(&reason.as_str());
        assert!(taken, "publishing to {topic} at QoS {qos}: {reason}");
    }

    /// Publishes and tells what the broker answers: `sent` for QoS 0, else the reason of its acknowledgement.
    pub async fn try_publish(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: impl Into<bytes::Bytes>,
    ) -> String {
        let id = self.send_publish(topic, qos, retain, payload).await;
        match qos {
            0 => "sent".to_owned(),
            1 => self.acknowledged(id).await,
            _ => {
                let reason = self.received(id).await;
                if reason == "Success" || reason == "NoMatchingSubscribers" {
                    self.release(id).await;
                }
                reason
            }
        }
    }

    /// Sends a PUBLISH and does not wait; returns its packet id.
    pub async fn send_publish(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: impl Into<bytes::Bytes>,
    ) -> u16 {
        let id = if qos == 0 { 0 } else { self.take_id() };
        let mut publish = Publish::new(topic, quality(qos), payload, None);
        publish.pkid = id;
        publish.retain = retain;
        self.send(&Packet::Publish(publish)).await;
        id
    }

    /// Waits for the PUBACK of `id` and tells its reason.
    pub async fn acknowledged(&mut self, id: u16) -> String {
        let answer = self.expect("a PUBACK", |packet| match packet {
            Packet::PubAck(ack) if ack.pkid == id => Some(reason(&ack.reason)),
            _ => None,
        });
        answer.await.unwrap_or_else(|ended| ended)
    }

    /// Waits for the PUBREC of `id` and tells its reason.
    pub async fn received(&mut self, id: u16) -> String {
        let answer = self.expect("a PUBREC", |packet| match packet {
            Packet::PubRec(rec) if rec.pkid == id => Some(match rec.reason {
                PubRecReason::Success => "Success".to_owned(),
                ref other => format!("{other:?}"),
            }),
            _ => None,
        });
        answer.await.unwrap_or_else(|ended| ended)
    }

    /// Sends the PUBREL of `id` and waits for its PUBCOMP.
    pub async fn release(&mut self, id: u16) {
        self.send(&Packet::PubRel(PubRel::new(id, None))).await;
        let answer = self.expect("a PUBCOMP", |packet| match packet {
            Packet::PubComp(comp) if comp.pkid == id => Some(comp.reason == PubCompReason::Success),
            _ => None,
        });
        assert_eq!(answer.await, Ok(true), "the PUBREL is accepted");
    }

    /// Subscribes and tells what the broker answers.
    pub async fn try_subscribe(&mut self, filter: &str) -> String {
        let id = self.take_id();
        let filters = vec![Filter::new(filter, QoS::ExactlyOnce)];
        self.send(&Packet::Subscribe(Subscribe {
            pkid: id,
            filters,
            properties: None,
        }))
        .await;
        let answer = self.expect("a SUBACK", |packet| match packet {
            Packet::SubAck(ack) if ack.pkid == id => Some(format!("{:?}", ack.return_codes)),
            _ => None,
        });
        answer.await.unwrap_or_else(|ended| ended)
    }

    /// Waits for the session's end and tells how the broker ended it.
    pub async fn ended(&mut self) -> String {
        let never = self.expect("the end of the session", |_| None::<()>).await;
        never.expect_err("it waits for nothing but the end")
    }

    /// Whether the session is still there: the broker answers it.
    pub async fn is_alive(&mut self) -> bool {
        let ping = Packet::PingReq(mesh_runtime::mqtt::mqttbytes::v5::PingReq);
        if self.connection.send(&ping).await.is_err() {
            return false;
        }
        let answer = self.expect("a PINGRESP", |packet| {
            matches!(packet, Packet::PingResp(_)).then_some(())
        });
        answer.await.is_ok()
    }

    /// Says goodbye, so that QoS 0 messages are not lost with the connection.
    pub async fn leave(mut self) {
        let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
        self.send(&Packet::Disconnect(goodbye)).await;
        self.ended().await;
    }

    async fn send(&mut self, packet: &Packet) {
        // If the broker has closed the connection, the next answer that is awaited says so, and why.
        self.connection.send(packet).await.ok();
    }

    async fn expect<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(&Packet) -> Option<T>,
    ) -> Result<T, String> {
        let search = async {
            loop {
                let packet = self
                    .connection
                    .receive()
                    .await
                    .map_err(|error| error.to_string())?;
                if let Some(found) = wanted(&packet) {
                    return Ok(found);
                }
            }
        };
        within(PATIENCE, what, search).await
    }

    fn take_id(&mut self) -> u16 {
        self.next_id = self.next_id % 65_534 + 1;
        self.next_id
    }
}

/// Clients that publish without a pause, until this is dropped.
pub struct Flood(tokio::task::JoinSet<()>);

impl Flood {
    /// Begins to flood the broker at `address` on `topic`; returns when it flows.
    pub async fn start(address: SocketAddr, topic: &'static str) -> Self {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..3 {
            let mut client = Client::open(address, &Who::anonymous()).await;
            client.publish(topic, 1, false, "drop").await;
            tasks.spawn(async move {
                loop {
                    client.publish(topic, 1, false, "drop").await;
                }
            });
        }
        Self(tasks)
    }
}

/// What a client is told when it connects: `accepted`, or the broker's reason.
pub async fn login(address: SocketAddr, who: &Who) -> String {
    match Client::try_open(address, who).await {
        Ok(client) => {
            client.leave().await;
            "accepted".to_owned()
        }
        Err(error) => error.to_string(),
    }
}

/// The QoS with this number.
pub fn quality(qos: u8) -> QoS {
    match qos {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        _ => QoS::ExactlyOnce,
    }
}

/// Waits for `future`; panics at the deadline.
pub async fn within<T>(deadline: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_elapsed) => panic!("{what} did not come within {deadline:?}"),
    }
}

fn reason(reason: &PubAckReason) -> String {
    format!("{reason:?}")
}
