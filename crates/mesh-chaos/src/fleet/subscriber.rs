//! A subscriber: with a session that outlives its connections, or a witness at one broker.

use std::net::SocketAddr;

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{PingReq, PubAck, Publish};
use mesh_runtime::mqtt::{self, Connection, MqttError, Packet, Version};
use tokio::time::{Instant, interval_at};

use super::session::{PING, Pauses, SILENCE, dial, silent};
use super::{PREFIX, parse, topic};
use crate::Login;
use crate::book::Book;
use crate::ledger::Arrival;

/// What a subscriber is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It sees what its broker has got. It never gives up a silent connection, since what comes late still counts.
    Witness,
    /// It has the messages of one publisher.
    Own(usize),
}

pub(super) struct Subscriber {
    pub(super) version: Version,
    pub(super) run: u64,
    pub(super) address: SocketAddr,
    /// Its place in the ledger.
    pub(super) reader: usize,
    /// Its place among all subscribers.
    pub(super) place: usize,
    pub(super) role: Role,
    pub(super) login: Login,
    pub(super) book: Book,
}

impl Subscriber {
    /// Lives until its fleet is gone.
    pub(super) async fn run(self) {
        let (name, keeps) = match self.role {
            Role::Witness => (format!("chaos-w{}", self.place), false),
            // A session of 3.1.1 never expires: it would outlive the run on every broker that it was on.
            Role::Own(stream) => (format!("chaos-s{stream}"), self.version == Version::V5),
        };
        let mut pauses = Pauses::default();
        // Brokers that had died when the last connection ended.
        let mut deaths = None;
        loop {
            let opened = dial(self.version, self.address, name.clone(), keeps, &self.login).await;
            if let Ok((connection, is_known)) = opened {
                pauses.served();
                {
                    let mut pages = self.book.pages();
                    pages.ledger.connected(self.reader);
                    if is_known {
                        // A session that outlived its broker may be an old one.
                        let is_same = deaths == Some(pages.deaths);
                        let now = self.book.now();
                        pages.ledger.opened(self.reader, is_same, now);
                        if let Some(client) = self.role.client(self.place) {
                            pages.served_again(client, now);
                        }
                    }
                }
                // Its end is all that there is to say of it.
                self.serve(connection, is_known).await.ok();
                let now = self.book.now();
                let mut pages = self.book.pages();
                pages.ledger.closed(self.reader, now);
                if let Some(client) = self.role.client(self.place) {
                    pages.lost(client, now);
                }
                deaths = Some(pages.deaths);
            }
            pauses.next().await;
        }
    }

    async fn serve(&self, mut connection: Connection, is_known: bool) -> Result<(), MqttError> {
        if !is_known {
            let filter = match self.role {
                Role::Witness => format!("{PREFIX}/#"),
                Role::Own(stream) => topic(stream),
            };
            let subscribe = mqtt::subscribe(&[&filter], QoS::AtLeastOnce);
            connection.send(&subscribe).await?;
        }
        let mut heard = Instant::now();
        let mut ping = interval_at(heard + PING, PING);
        loop {
            tokio::select! {
                packet = connection.receive() => {
                    heard = Instant::now();
                    let mut next = Some(packet?);
                    // Everything that has arrived is answered with one write.
                    while let Some(packet) = next {
                        self.take(&mut connection, &packet)?;
                        next = connection.take()?;
                    }
                    connection.flush().await?;
                }
                _ = ping.tick() => {
                    if self.role != Role::Witness && heard.elapsed() > SILENCE {
                        return Err(silent());
                    }
                    connection.send(&Packet::PingReq(PingReq)).await?;
                }
            }
        }
    }

    fn take(&self, connection: &mut Connection, packet: &Packet) -> Result<(), MqttError> {
        match packet {
            Packet::SubAck(_) => {
                let now = self.book.now();
                let mut pages = self.book.pages();
                pages.ledger.opened(self.reader, false, now);
                let place = self.place;
                match self.role.client(place) {
                    Some(client) => pages.served_again(client, now),
                    None => pages.witness_ready(place),
                }
            }
            Packet::Publish(publish) => {
                self.note(publish);
                if publish.qos == QoS::AtLeastOnce {
                    connection.queue(&Packet::PubAck(PubAck::new(publish.pkid, None)))?;
                }
            }
            Packet::Disconnect(_) => return Err(MqttError::Closed),
            _ => {}
        }
        Ok(())
    }

    fn note(&self, publish: &Publish) {
        let topic = std::str::from_utf8(&publish.topic).ok();
        let stream = topic.and_then(|topic| topic.strip_prefix(PREFIX)?.strip_prefix('/')?.parse().ok());
        let (Some(stream), Some((run, number))) = (stream, parse(&publish.payload)) else {
            return;
        };
        if run != self.run {
            return;
        }
        let properties = publish.properties.as_ref();
        let stamp = properties.and_then(|properties| {
            let stamps = properties.user_properties.iter().rev();
            stamps
                .map(|(name, stamp)| (name.as_str(), stamp.as_str()))
                .find(|(name, _)| *name == "mesh")
        });
        let arrival = Arrival {
            stamp: stamp.and_then(|(_, stamp)| identity(stamp)),
            dup: publish.dup,
            retained: publish.retain,
        };
        let now = self.book.now();
        self.book
            .pages()
            .ledger
            .received(self.reader, stream, number, arrival, now);
    }
}

/// Origin, epoch and number of a stamp such as `2 broker1 PoAFoiG g 8RW.3 r1`, which tell a message from
/// all others; its copies may differ in the rest.
fn identity(stamp: &str) -> Option<&str> {
    let rest = stamp.strip_prefix("2 ")?;
    let end = rest.match_indices(' ').nth(2)?.0;
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_told_by_its_number() {
        assert_eq!(identity("2 broker1 a 2a ff r1"), Some("broker1 a 2a"));
        assert_eq!(identity("2 broker1 a"), None);
        assert_eq!(identity("3 broker1 a 2a ff r1"), None);
    }
}
