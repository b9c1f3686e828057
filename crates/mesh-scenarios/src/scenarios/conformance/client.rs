//! A client that says exactly what it is told to, and no more.

use std::time::Duration;

use anyhow::Context;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{
    ConnAck, Connect, ConnectProperties, Filter, LastWill, Packet, PubAck, PubComp, PubRec, PubRel, Publish,
    PublishProperties, Subscribe, SubscribeProperties,
};
use mesh_runtime::mqtt::{Connection, Version};
use tokio::time::timeout;

use super::super::ground::Door;

/// For an answer that must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// Nothing more comes when nothing has come for so long.
pub(super) const SILENCE: Duration = Duration::from_millis(700);

/// How a session shall be opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    pub(super) keep_alive: u16,
    /// Whether an old session is taken up; it then lasts for so many seconds.
    pub(super) keeps: Option<u32>,
    pub(super) receive_maximum: Option<u16>,
    pub(super) max_packet_size: Option<u32>,
    pub(super) topic_alias_max: Option<u16>,
    pub(super) will: Option<LastWill>,
}

pub(super) struct Client {
    pub(super) connection: Connection,
    pub(super) ack: ConnAck,
    next: u16,
}

impl Client {
    /// An ordinary session.
    pub(super) async fn open(at: &Door, client_id: &str) -> anyhow::Result<Self> {
        Self::open_as(at, client_id, Opening::default()).await
    }

    pub(super) async fn open_as(at: &Door, client_id: &str, opening: Opening) -> anyhow::Result<Self> {
        let properties = ConnectProperties {
            session_expiry_interval: opening.keeps,
            receive_maximum: opening.receive_maximum,
            max_packet_size: opening.max_packet_size,
            topic_alias_max: opening.topic_alias_max,
            ..ConnectProperties::new()
        };
        let connect = Connect {
            keep_alive: opening.keep_alive,
            client_id: client_id.to_owned(),
            clean_start: opening.keeps.is_none(),
            properties: Some(properties),
        };
        let open = at.enter(Version::V5, connect, opening.will);
        let (connection, ack) = timeout(PATIENCE, open).await.context("no CONNACK")??;
        Ok(Self {
            connection,
            ack,
            next: 1,
        })
    }

    pub(super) async fn subscribe(&mut self, filter: Filter) -> anyhow::Result<()> {
        self.subscribe_as(filter, None).await
    }

    pub(super) async fn subscribe_as(&mut self, filter: Filter, id: Option<usize>) -> anyhow::Result<()> {
        let properties = id.map(|id| SubscribeProperties {
            id: Some(id),
            user_properties: Vec::new(),
        });
        let subscribe = Subscribe {
            pkid: self.packet_id(),
            filters: vec![filter],
            properties,
        };
        self.connection.send(&Packet::Subscribe(subscribe)).await?;
        while !matches!(self.expect().await?, Packet::SubAck(_)) {}
        Ok(())
    }

    /// Publishes and waits until that is done with; returns the reason in the first acknowledgement.
    pub(super) async fn publish(&mut self, mut publish: Publish) -> anyhow::Result<String> {
        publish.pkid = match publish.qos {
            QoS::AtMostOnce => 0,
            _ => self.packet_id(),
        };
        let qos = publish.qos;
        self.connection.send(&Packet::Publish(publish)).await?;
        match qos {
            QoS::AtMostOnce => Ok(String::new()),
            QoS::AtLeastOnce => loop {
                if let Packet::PubAck(ack) = self.expect().await? {
                    return Ok(format!("{:?}", ack.reason));
                }
            },
            QoS::ExactlyOnce => {
                let reason = loop {
                    if let Packet::PubRec(rec) = self.expect().await? {
                        let release = PubRel::new(rec.pkid, None);
                        self.connection.send(&Packet::PubRel(release)).await?;
                        break format!("{:?}", rec.reason);
                    }
                };
                while !matches!(self.expect().await?, Packet::PubComp(_)) {}
                Ok(reason)
            }
        }
    }

    /// The next packet.
    pub(super) async fn expect(&mut self) -> anyhow::Result<Packet> {
        Ok(timeout(PATIENCE, self.connection.receive())
            .await
            .context("nothing comes")??)
    }

    /// The next message, which has to come; acknowledged if it has QoS 1.
    pub(super) async fn message(&mut self) -> anyhow::Result<Publish> {
        loop {
            if let Packet::Publish(publish) = self.expect().await? {
                if publish.qos == QoS::AtLeastOnce {
                    let ack = PubAck::new(publish.pkid, None);
                    self.connection.send(&Packet::PubAck(ack)).await?;
                }
                return Ok(publish);
            }
        }
    }

    /// Every message until none comes any more, acknowledged.
    pub(super) async fn messages(&mut self) -> anyhow::Result<Vec<Publish>> {
        let mut messages = Vec::new();
        while let Ok(packet) = timeout(SILENCE, self.connection.receive()).await {
            match packet? {
                Packet::Publish(publish) => {
                    let answer = match publish.qos {
                        QoS::AtMostOnce => None,
                        QoS::AtLeastOnce => Some(Packet::PubAck(PubAck::new(publish.pkid, None))),
                        QoS::ExactlyOnce => Some(Packet::PubRec(PubRec::new(publish.pkid, None))),
                    };
                    if let Some(answer) = answer {
                        self.connection.send(&answer).await?;
                    }
                    messages.push(publish);
                }
                Packet::PubRel(rel) => {
                    self.connection
                        .send(&Packet::PubComp(PubComp::new(rel.pkid, None)))
                        .await?;
                }
                _ => {}
            }
        }
        Ok(messages)
    }

    fn packet_id(&mut self) -> u16 {
        self.next += 1;
        self.next
    }
}

/// A message.
pub(super) fn message(topic: &str, qos: QoS, payload: &str) -> Publish {
    Publish::new(topic, qos, payload.to_owned(), None)
}

/// The same with properties.
pub(super) fn message_with(topic: &str, qos: QoS, payload: &str, properties: PublishProperties) -> Publish {
    Publish::new(topic, qos, payload.to_owned(), Some(properties))
}

/// Payloads in words.
pub(super) fn payloads(messages: &[Publish]) -> String {
    let text = |message: &Publish| String::from_utf8_lossy(&message.payload).into_owned();
    messages.iter().map(text).collect::<Vec<_>>().join(" ")
}
