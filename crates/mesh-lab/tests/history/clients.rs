//! The clients of a history: a publisher and a subscriber at each broker, who come back whenever it does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{
    Filter, PingReq, PubAck, PubAckReason, PubComp, PubRec, PubRecReason, PubRel, Publish, PublishProperties,
    RetainForwardRule, Subscribe,
};
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet};
use tokio::sync::watch;

use super::model::{Deed, Op, OpId, Seen, Session, Stamp};
use super::plan::Random;

/// All topics of a history are below this.
pub const PREFIX: &str = "history/";

/// Retained topics that everyone writes to, and those that each publisher has alone.
const SHARED: u64 = 6;
const OWN: u64 = 2;

/// The user property that names a message.
const NAME: &str = "op";

/// A stamp that every publisher puts on its messages, and that must count for nothing.
const FORGED: &str = "1 broker1 1 1 ffffffffffffffff r1";

/// For an answer of a broker that may hang or be cut off for a while.
const PATIENCE: Duration = Duration::from_secs(40);

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(20);

/// What clients write down.
pub type Shared<T> = Arc<Mutex<T>>;

/// Locks what clients have written down.
pub fn lock<T>(shared: &Shared<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a client lives.
#[derive(Clone)]
pub struct Place {
    /// Of which broker, from 0.
    pub broker: usize,
    /// Where that takes clients.
    pub address: SocketAddr,
    /// When the history began.
    pub start: Instant,
}

impl Place {
    fn identity(&self, part: &str) -> Identity {
        Identity {
            client_id: format!("{part}-{}", self.broker),
            login: None,
            keep_alive_s: 0,
        }
    }
}

/// Publishes until `stop`, at the pace and with the content that `random` gives.
pub async fn publish(place: Place, mut random: Random, ops: Shared<Vec<Op>>, stop: watch::Receiver<bool>) {
    let mut publisher = Publisher {
        place,
        ops,
        next: 0,
        packet: 0,
        unsure: Vec::new(),
    };
    while !*stop.borrow() {
        let identity = publisher.place.identity("publisher");
        let opened =
            tokio::time::timeout(PATIENCE, Connection::open(publisher.place.address, &identity)).await;
        if let Ok(Ok((mut connection, _))) = opened {
            // What a broken connection has left unanswered stays so.
            publisher.unsure.clear();
            publisher.session(&mut connection, &mut random, &stop).await.ok();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Publisher {
    place: Place,
    ops: Shared<Vec<Op>>,
    next: u64,
    packet: u16,
    /// Messages of QoS 0 since the last acknowledgement.
    unsure: Vec<usize>,
}

impl Publisher {
    async fn session(
        &mut self,
        connection: &mut Connection,
        random: &mut Random,
        stop: &watch::Receiver<bool>,
    ) -> Result<(), MqttError> {
        // A QoS 2 message that was received and not yet released.
        let mut held = None;
        while !*stop.borrow() {
            let (at, qos) = self.note(random);
            let packet = self.send(connection, at, qos).await?;
            match qos {
                0 => self.unsure.push(at),
                1 => self.acknowledged(connection, at, packet).await?,
                _ => {
                    if self.received(connection, at, packet).await? {
                        // Other messages come between its PUBLISH and its PUBREL, at times.
                        if held.is_none() && random.below(2) == 0 {
                            held = Some((at, packet));
                        } else {
                            self.release(connection, at, packet).await?;
                        }
                    }
                }
            }
            if let Some((at, packet)) = held.take_if(|_| random.below(2) == 0) {
                self.release(connection, at, packet).await?;
            }
            tokio::time::sleep(random.ms(5, 40)).await;
        }
        if let Some((at, packet)) = held {
            self.release(connection, at, packet).await?;
        }
        // Whatever was sent before was handled before.
        connection.send(&Packet::PingReq(PingReq)).await?;
        self.answer(connection, |packet| {
            matches!(packet, Packet::PingResp(_)).then_some(())
        })
        .await?;
        self.sure();
        Ok(())
    }

    /// Draws the next message and writes it down; returns its place and QoS.
    fn note(&mut self, random: &mut Random) -> (usize, u8) {
        let publisher = self.place.broker;
        let id = OpId(publisher, self.next);
        self.next += 1;
        let deed = match random.below(20) {
            0..=8 => Deed::Pass,
            9..=15 => Deed::Set,
            _ => Deed::Clear,
        };
        let topic = match (deed, random.below(SHARED + OWN)) {
            (Deed::Pass, _) => format!("{PREFIX}live/{publisher}"),
            (_, number) if number < SHARED => format!("{PREFIX}kept/{number}"),
            (_, number) => format!("{PREFIX}kept/{publisher}/{number}"),
        };
        let qos = [0, 1, 1, 1, 2][random.index(5)];
        let op = Op {
            id,
            topic,
            deed,
            qos,
            sent: self.place.start.elapsed(),
            acked: None,
            refused: None,
        };
        let mut ops = lock(&self.ops);
        ops.push(op);
        (ops.len() - 1, qos)
    }

    async fn send(&mut self, connection: &mut Connection, at: usize, qos: u8) -> Result<u16, MqttError> {
        self.packet = self.packet % 60_000 + 1;
        let packet = {
            let op = &lock(&self.ops)[at];
            let payload = if op.deed == Deed::Clear {
                String::new()
            } else {
                format!("{:-<40}", op.id.to_string() + " ")
            };
            let properties = PublishProperties {
                user_properties: vec![
                    (NAME.to_owned(), op.id.to_string()),
                    ("mesh".to_owned(), FORGED.to_owned()),
                ],
                ..PublishProperties::default()
            };
            let quality = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
            let mut publish = Publish::new(op.topic.as_str(), quality, payload, Some(properties));
            publish.pkid = if qos == 0 { 0 } else { self.packet };
            publish.retain = op.deed != Deed::Pass;
            Packet::Publish(publish)
        };
        connection.send(&packet).await?;
        Ok(self.packet)
    }

    async fn acknowledged(
        &mut self,
        connection: &mut Connection,
        at: usize,
        id: u16,
    ) -> Result<(), MqttError> {
        let reason = self.answer(connection, |packet| match packet {
            Packet::PubAck(ack) if ack.pkid == id => Some(ack.reason),
            _ => None,
        });
        match reason.await? {
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers => self.done(at),
            other => self.refused(at, format!("{other:?}")),
        }
        Ok(())
    }

    /// Waits for the PUBREC and tells whether the message may be released.
    async fn received(&mut self, connection: &mut Connection, at: usize, id: u16) -> Result<bool, MqttError> {
        let reason = self.answer(connection, |packet| match packet {
            Packet::PubRec(rec) if rec.pkid == id => Some(rec.reason),
            _ => None,
        });
        match reason.await? {
            PubRecReason::Success | PubRecReason::NoMatchingSubscribers => Ok(true),
            other => {
                self.refused(at, format!("{other:?}"));
                Ok(false)
            }
        }
    }

    async fn release(&mut self, connection: &mut Connection, at: usize, id: u16) -> Result<(), MqttError> {
        connection.send(&Packet::PubRel(PubRel::new(id, None))).await?;
        self.answer(connection, |packet| {
            matches!(packet, Packet::PubComp(comp) if comp.pkid == id).then_some(())
        })
        .await?;
        self.done(at);
        Ok(())
    }

    async fn answer<T>(
        &self,
        connection: &mut Connection,
        wanted: impl Fn(Packet) -> Option<T>,
    ) -> Result<T, MqttError> {
        let search = async {
            loop {
                if let Some(found) = wanted(connection.receive().await?) {
                    return Ok(found);
                }
            }
        };
        let late = || MqttError::Io(std::io::ErrorKind::TimedOut.into());
        tokio::time::timeout(PATIENCE, search).await.map_err(|_| late())?
    }

    fn done(&mut self, at: usize) {
        lock(&self.ops)[at].acked = Some(self.place.start.elapsed());
        self.sure();
    }

    /// What was sent before something that was answered has been handled.
    fn sure(&mut self) {
        let now = self.place.start.elapsed();
        let mut ops = lock(&self.ops);
        for at in self.unsure.drain(..) {
            ops[at].acked = Some(now);
        }
    }

    fn refused(&mut self, at: usize, why: String) {
        lock(&self.ops)[at].refused = Some(why);
    }
}

/// Subscribes to everything of the history and writes down what comes, until this is dropped.
pub async fn subscribe(place: Place, sessions: Shared<Vec<Session>>) {
    loop {
        follow(&place, &sessions).await.ok();
        if let Some(session) = lock(&sessions).last_mut() {
            session.ended = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(place: &Place, sessions: &Shared<Vec<Session>>) -> Result<(), MqttError> {
    let opened = tokio::time::timeout(
        PATIENCE,
        Connection::open(place.address, &place.identity("subscriber")),
    )
    .await;
    let Ok(opened) = opened else { return Ok(()) };
    let mut connection = opened?.0;
    let filter = Filter {
        preserve_retain: true,
        // What is retained is looked at in the end; here only what happens counts.
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::new(format!("{PREFIX}#"), QoS::ExactlyOnce)
    };
    connection
        .send(&Packet::Subscribe(Subscribe {
            pkid: 1,
            filters: vec![filter],
            properties: None,
        }))
        .await?;
    let mut session = Some(Session::default());
    loop {
        match connection.receive().await? {
            Packet::SubAck(_) => {
                let mut granted = session.take().unwrap_or_default();
                granted.began = place.start.elapsed();
                lock(sessions).push(granted);
            }
            Packet::Publish(message) => {
                match message.qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => {
                        connection
                            .send(&Packet::PubAck(PubAck::new(message.pkid, None)))
                            .await?
                    }
                    QoS::ExactlyOnce => {
                        connection
                            .send(&Packet::PubRec(PubRec::new(message.pkid, None)))
                            .await?
                    }
                }
                let seen = seen(&message);
                match &mut session {
                    Some(early) => early.seen.push(seen),
                    None => lock(sessions).last_mut().expect("it was granted").seen.push(seen),
                }
            }
            Packet::PubRel(rel) => {
                connection
                    .send(&Packet::PubComp(PubComp::new(rel.pkid, None)))
                    .await?
            }
            _ => {}
        }
    }
}

fn seen(message: &Publish) -> Seen {
    let properties = message
        .properties
        .as_ref()
        .map(|all| all.user_properties.as_slice())
        .unwrap_or_default();
    let last = |name: &str| {
        properties
            .iter()
            .rfind(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    Seen {
        op: last(NAME).and_then(OpId::parse),
        topic: String::from_utf8_lossy(&message.topic).into_owned(),
        empty: message.payload.is_empty(),
        stamp: last("mesh")
            .filter(|stamp| *stamp != FORGED)
            .and_then(Stamp::parse),
    }
}

/// What is retained below `filter`: everything that comes before the answer to a PINGREQ.
pub async fn retained(address: SocketAddr, filter: &str) -> Result<Vec<(Seen, bytes::Bytes)>, MqttError> {
    let identity = Identity {
        client_id: "auditor".to_owned(),
        login: None,
        keep_alive_s: 0,
    };
    let (mut connection, _) = Connection::open(address, &identity).await?;
    let filters = vec![Filter::new(filter, QoS::AtMostOnce)];
    connection.queue(&Packet::Subscribe(Subscribe {
        pkid: 1,
        filters,
        properties: None,
    }))?;
    connection.send(&Packet::PingReq(PingReq)).await?;
    let mut all = Vec::new();
    loop {
        match connection.receive().await? {
            Packet::Publish(message) if message.retain => all.push((seen(&message), message.payload.clone())),
            Packet::PingResp(_) => return Ok(all),
            _ => {}
        }
    }
}
