//! A publisher: what is due is given to a broker at once or as soon as there is one, and again until it is acknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{PingReq, PubAckReason, Publish};
use mesh_runtime::mqtt::{Connection, MqttError, Packet, Version};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::session::{PING, Pauses, SILENCE, dial, silent};
use super::{Order, payload, topic};
use crate::Login;
use crate::book::{Book, Client};

/// Packet ids follow from numbers; far fewer messages wait at a time.
const PACKET_IDS: u64 = 60_000;

pub(super) struct Publisher {
    pub(super) version: Version,
    pub(super) run: u64,
    pub(super) address: SocketAddr,
    pub(super) stream: usize,
    pub(super) period: Duration,
    pub(super) is_retained: bool,
    pub(super) login: Login,
    pub(super) book: Book,
}

/// A message that is not acknowledged yet, and when it was due.
type Waiting = (u64, Instant);

impl Publisher {
    /// Lives until its fleet is gone.
    pub(super) async fn run(self, mut orders: watch::Receiver<Order>) {
        let me = Client::Publisher(self.stream);
        let mut pauses = Pauses::default();
        let mut waiting = VecDeque::new();
        // Not all in the same moment. Messages that were due without a connection are made up for.
        let begin = Instant::now() + self.period.mul_f64(fastrand::f64());
        let mut ticks = interval_at(begin, self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            // A publisher has nothing that a broker could keep for it.
            let name = format!("chaos-p{}", self.stream);
            if let Ok((connection, _)) = dial(self.version, self.address, name, false, &self.login).await {
                pauses.served();
                let now = self.book.now();
                self.book.pages().served_again(me, now);
                let ended = self
                    .serve(connection, &mut waiting, &mut ticks, &mut orders)
                    .await;
                let now = self.book.now();
                self.book.pages().lost(me, now);
                if matches!(ended, Ok(())) {
                    return;
                }
            }
            pauses.next().await;
        }
    }

    /// Serves one connection; `Ok` if the fleet is gone.
    async fn serve(
        &self,
        mut connection: Connection,
        waiting: &mut VecDeque<Waiting>,
        ticks: &mut tokio::time::Interval,
        orders: &mut watch::Receiver<Order>,
    ) -> Result<(), MqttError> {
        for (number, _) in &*waiting {
            self.book.pages().ledger.sent_again(self.stream, *number);
            connection.queue(&self.packet(*number))?;
        }
        connection.flush().await?;
        let mut heard = Instant::now();
        let mut ping = interval_at(heard + PING, PING);
        loop {
            let order = *orders.borrow();
            tokio::select! {
                due = ticks.tick(), if order == Order::Publish => {
                    let now = self.book.now();
                    let number = self.book.pages().ledger.sent(self.stream, now);
                    waiting.push_back((number, due));
                    connection.send(&self.packet(number)).await?;
                }
                changed = orders.changed() => match changed {
                    Err(_) => return Ok(()),
                    // Nothing was due before the beginning.
                    Ok(()) if order == Order::Wait => ticks.reset_after(self.period.mul_f64(fastrand::f64())),
                    Ok(()) => {}
                },
                packet = connection.receive() => {
                    heard = Instant::now();
                    if let Packet::PubAck(ack) = packet? {
                        self.acknowledged(ack.pkid, ack.reason, waiting)?;
                    }
                }
                _ = ping.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(silent());
                    }
                    connection.send(&Packet::PingReq(PingReq)).await?;
                }
            }
        }
    }

    fn acknowledged(
        &self,
        packet_id: u16,
        reason: PubAckReason,
        waiting: &mut VecDeque<Waiting>,
    ) -> Result<(), MqttError> {
        if !matches!(
            reason,
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers
        ) {
            return Err(MqttError::Protocol(format!("a message was refused: {reason:?}")));
        }
        let Some(place) = waiting.iter().position(|(number, _)| id(*number) == packet_id) else {
            return Ok(());
        };
        if let Some((number, due)) = waiting.remove(place) {
            let now = self.book.now();
            let mut pages = self.book.pages();
            pages.ledger.acknowledged(self.stream, number, now);
            pages.waited(due.elapsed());
        }
        Ok(())
    }

    fn packet(&self, number: u64) -> Packet {
        let mut publish = Publish::new(
            topic(self.stream),
            QoS::AtLeastOnce,
            payload(self.run, number),
            None,
        );
        publish.pkid = id(number);
        publish.retain = self.is_retained;
        Packet::Publish(publish)
    }
}

fn id(number: u64) -> u16 {
    // It is at most 60,000.
    (number % PACKET_IDS) as u16 + 1
}
