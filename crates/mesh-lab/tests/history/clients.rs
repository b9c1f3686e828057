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

/// So much is sent to a broker that hangs when it is left.
const STRANDED: usize = 3;

/// The user property that names a message.
const NAME: &str = "op";

/// A stamp that every publisher puts on its messages, and that must count for nothing.
const FORGED: &str = "2 broker1 1 1 _______-.F__ r1";

/// For an answer of a broker that may hang or be cut off for a while.
const PATIENCE: Duration = Duration::from_secs(40);

/// A broker that does not answer for so long is left by who wants to go away: mesh-health waits as long by default.
const LEAVES_AFTER: Duration = Duration::from_secs(1);

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

fn identity(part: &str, number: usize) -> Identity {
    Identity {
        client_id: format!("{part}-{number}"),
        login: None,
        keep_alive_s: 0,
    }
}

/// A retained topic of a publisher.
fn kept_topic(publisher: usize, number: u64) -> String {
    if number < SHARED {
        format!("{PREFIX}kept/{number}")
    } else {
        format!("{PREFIX}kept/{publisher}/{number}")
    }
}

/// Publishes until `stop`, at the pace and with the content that `random` gives, at the broker that `home` tells.
pub async fn publish(
    mut home: watch::Receiver<Place>,
    mut random: Random,
    ops: Shared<Vec<Op>>,
    stop: watch::Receiver<bool>,
) {
    let place = home.borrow_and_update().clone();
    let mut publisher = Publisher {
        number: place.broker,
        place,
        ops,
        next: 0,
        packet: 0,
        connection: 0,
        unsure: Vec::new(),
        anew: Vec::new(),
    };
    // A client that goes away may leave its connection open.
    let mut left = None;
    while !*stop.borrow() {
        let mut connection = None;
        let is_over = || *stop.borrow() || home.has_changed().unwrap_or(true);
        let mut moves = home.clone();
        tokio::select! {
            () = publisher.stay(&mut connection, &mut random, is_over) => {}
            () = async {
                moves.changed().await.ok();
                tokio::time::sleep(LEAVES_AFTER).await;
            } => {
                if let Some(connection) = &mut connection {
                    publisher.strand(connection, &mut random).await.ok();
                }
                if random.below(2) == 0 {
                    left = connection;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
        publisher.place = home.borrow_and_update().clone();
    }
    drop(left);
}

struct Publisher {
    number: usize,
    place: Place,
    ops: Shared<Vec<Op>>,
    next: u64,
    packet: u16,
    /// How many connections there were.
    connection: usize,
    /// Messages of QoS 0 since the last acknowledgement.
    unsure: Vec<usize>,
    /// What is not answered. What of it is retained is set anew on the next connection.
    anew: Vec<usize>,
}

impl Publisher {
    /// Publishes on one connection, which is left in `connection`.
    async fn stay(
        &mut self,
        connection: &mut Option<Connection>,
        random: &mut Random,
        is_over: impl Fn() -> bool,
    ) {
        let identity = identity("publisher", self.number);
        let opened = tokio::time::timeout(PATIENCE, Connection::open(self.place.address, &identity)).await;
        if let Ok(Ok((opened, _))) = opened {
            // What a broken connection has left unanswered stays so.
            self.unsure.clear();
            self.connection += 1;
            self.session(connection.insert(opened), random, is_over)
                .await
                .ok();
        }
    }

    /// Sends some more to a broker that does not answer.
    async fn strand(&mut self, connection: &mut Connection, random: &mut Random) -> Result<(), MqttError> {
        for _ in 0..STRANDED {
            let topic = kept_topic(self.number, random.below(SHARED + OWN));
            let qos = 1 + random.below(2) as u8;
            let id = self.next_id();
            let (at, _) = self.write_down(id, topic, Deed::Set, qos);
            self.anew.push(at);
            // A hung broker's kernel takes what is so little.
            tokio::time::timeout(PAUSE, self.send(connection, at, qos))
                .await
                .ok();
        }
        Ok(())
    }

    async fn session(
        &mut self,
        connection: &mut Connection,
        random: &mut Random,
        is_over: impl Fn() -> bool,
    ) -> Result<(), MqttError> {
        // A QoS 2 message that was received and not yet released.
        let mut held = None;
        while !is_over() {
            let (at, qos) = self.note(random);
            self.anew.push(at);
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
            if qos > 0 {
                let anew = std::mem::take(&mut self.anew);
                self.anew = anew.into_iter().filter(|at| self.is_of_before(*at)).collect();
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
        let publisher = self.number;
        let id = self.next_id();
        if let Some(topic) = self.unanswered() {
            return self.write_down(id, topic, Deed::Set, 1);
        }
        let deed = match random.below(20) {
            0..=8 => Deed::Pass,
            9..=15 => Deed::Set,
            _ => Deed::Clear,
        };
        let topic = match (deed, random.below(SHARED + OWN)) {
            (Deed::Pass, _) => format!("{PREFIX}live/{publisher}"),
            (_, number) => kept_topic(publisher, number),
        };
        let qos = [0, 1, 1, 1, 2][random.index(5)];
        self.write_down(id, topic, deed, qos)
    }

    fn next_id(&mut self) -> OpId {
        let id = OpId(self.number, self.next);
        self.next += 1;
        id
    }

    /// A retained topic that was set or cleared on a connection before this one, without an answer; told once.
    fn unanswered(&mut self) -> Option<String> {
        let at = self.anew.iter().position(|at| self.is_of_before(*at))?;
        let at = self.anew.swap_remove(at);
        Some(lock(&self.ops)[at].topic.clone())
    }

    fn is_of_before(&self, at: usize) -> bool {
        let op = &lock(&self.ops)[at];
        op.deed != Deed::Pass && op.connection != self.connection
    }

    fn write_down(&self, id: OpId, topic: String, deed: Deed, qos: u8) -> (usize, u8) {
        let op = Op {
            id,
            topic,
            deed,
            qos,
            at: self.place.broker,
            connection: self.connection,
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
        Connection::open(place.address, &identity("subscriber", place.broker)),
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
