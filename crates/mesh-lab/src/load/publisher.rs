//! Publishes numbered messages and knows which were acknowledged.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::PubRel;
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet, publish};
use tokio::time::Instant;

use super::payload;

/// How fast to publish.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as the broker takes them, with at most this many unacknowledged (QoS 1 and 2).
    Window(u16),
    /// This many a second, evenly.
    PerSecond(f64),
}

/// What to publish.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The topic of every message.
    pub topic: String,
    /// The QoS of every message.
    pub qos: QoS,
    /// Whether every message is kept for later subscribers.
    pub retain: bool,
    /// Size of a payload in bytes.
    pub payload: usize,
    /// How many messages; numbered from 0.
    pub messages: u32,
    /// How fast.
    pub pace: Pace,
}

/// A session that publishes.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    /// By packet id − 1, the number of the unacknowledged message.
    in_flight: Vec<Option<u32>>,
    outstanding: usize,
    next_slot: usize,
    acknowledged: Vec<bool>,
}

/// Packet ids are 1 to 65,535; more than this many are never in flight.
const SLOTS: usize = 65_535;

/// So many messages are written at once when going as fast as possible.
const BATCH: u32 = 64;

impl Publisher {
    /// Connects as `client_id`.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached or refuses.
    pub async fn connect(address: SocketAddr, client_id: &str) -> Result<Self, MqttError> {
        let identity = Identity {
            client_id: client_id.to_owned(),
            login: None,
            keep_alive_s: 60,
        };
        Self::connect_as(address, &identity).await
    }

    /// Connects as `identity` says.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub async fn connect_as(address: SocketAddr, identity: &Identity) -> Result<Self, MqttError> {
        let (connection, _ack) = Connection::open(address, identity).await?;
        Ok(Self {
            connection,
            in_flight: vec![None; SLOTS],
            outstanding: 0,
            next_slot: 0,
            acknowledged: Vec::new(),
        })
    }

    /// Publishes all of `publication` and waits for every acknowledgement.
    ///
    /// # Errors
    ///
    /// If the connection ends before that; [`Self::acknowledged`] then tells how far it got.
    pub async fn run(&mut self, publication: &Publication) -> Result<(), MqttError> {
        self.acknowledged = vec![false; publication.messages as usize];
        match publication.pace {
            Pace::Window(window) => self.run_fast(publication, usize::from(window)).await?,
            Pace::PerSecond(rate) => self.run_paced(publication, rate).await?,
        }
        while self.outstanding > 0 {
            let packet = self.connection.receive().await?;
            self.settle(packet)?;
            self.connection.flush().await?;
        }
        Ok(())
    }

    /// By number, whether each message of the last run was acknowledged; all false for QoS 0.
    pub fn acknowledged(&self) -> &[bool] {
        &self.acknowledged
    }

    async fn run_fast(&mut self, publication: &Publication, window: usize) -> Result<(), MqttError> {
        for number in 0..publication.messages {
            while self.outstanding >= window {
                self.connection.flush().await?;
                let packet = self.connection.receive().await?;
                self.settle(packet)?;
            }
            self.queue(publication, number)?;
            if number % BATCH == BATCH - 1 {
                self.connection.flush().await?;
                self.settle_arrived()?;
            }
        }
        self.connection.flush().await
    }

    async fn run_paced(&mut self, publication: &Publication, rate: f64) -> Result<(), MqttError> {
        let start = Instant::now();
        let mut number = 0;
        while number < publication.messages {
            let due = start + Duration::from_secs_f64(f64::from(number) / rate);
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => {
                    // A timer is coarse: everything that is due by now goes out together.
                    let due_by_now = (start.elapsed().as_secs_f64() * rate) as u32 + 1;
                    while number < publication.messages.min(due_by_now) {
                        self.queue(publication, number)?;
                        number += 1;
                    }
                }
                packet = self.connection.receive() => self.settle(packet?)?,
            }
            self.connection.flush().await?;
        }
        Ok(())
    }

    fn queue(&mut self, publication: &Publication, number: u32) -> Result<(), MqttError> {
        let packet_id = match publication.qos {
            QoS::AtMostOnce => 0,
            QoS::AtLeastOnce | QoS::ExactlyOnce => self.take_slot(number),
        };
        let body = payload(number, publication.payload);
        let mut packet = publish(&publication.topic, publication.qos, packet_id, body);
        if let Packet::Publish(publish) = &mut packet {
            publish.retain = publication.retain;
        }
        self.connection.queue(&packet)
    }

    fn take_slot(&mut self, number: u32) -> u16 {
        while self.in_flight[self.next_slot].is_some() {
            self.next_slot = (self.next_slot + 1) % SLOTS;
        }
        let slot = self.next_slot;
        self.next_slot = (slot + 1) % SLOTS;
        self.in_flight[slot] = Some(number);
        self.outstanding += 1;
        u16::try_from(slot + 1).unwrap_or(u16::MAX)
    }

    fn settle_arrived(&mut self) -> Result<(), MqttError> {
        while let Some(packet) = self.connection.take()? {
            self.settle(packet)?;
        }
        Ok(())
    }

    fn settle(&mut self, packet: Packet) -> Result<(), MqttError> {
        match packet {
            Packet::PubAck(ack) => self.acknowledge(ack.pkid),
            Packet::PubRec(rec) => {
                self.connection
                    .queue(&Packet::PubRel(PubRel::new(rec.pkid, None)))?;
            }
            Packet::PubComp(comp) => self.acknowledge(comp.pkid),
            _ => {}
        }
        Ok(())
    }

    fn acknowledge(&mut self, packet_id: u16) {
        let slot = usize::from(packet_id).wrapping_sub(1);
        if let Some(number) = self.in_flight.get_mut(slot).and_then(Option::take) {
            self.outstanding -= 1;
            self.acknowledged[number as usize] = true;
        }
    }
}
