//! Makes connections, one after the other, and serves them.
//!
//! Each connection has a rumqttc event loop of its own, which is thrown away with it. rumqttc would otherwise keep
//! what it had accepted, lose it where the broker does not know the session, or send it again out of order. So what
//! it forgets, the outbox remembers: after each CONNACK everything that is not acknowledged is sent from the first
//! message on. It also tells which PUBACK belongs to which message: rumqttc hands out no packet ids, but it reports
//! them in the order in which a connection's messages were given to it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::Outgoing;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Filter, Packet, PubAck, PubAckReason, PublishProperties, SubAck, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Shared;
use crate::error::ClientError;
use crate::messages::Delivery;
use crate::options::Options;
use crate::outbox::{Outbox, Waiting};
use crate::route::Route;
use crate::seen::MESSAGE_ID;

/// Messages that may be unacknowledged, in each direction.
pub(crate) const WINDOW: u16 = 100;

/// Requests that rumqttc may hold: a window of messages, a window of acknowledgements, subscriptions and a goodbye.
const REQUESTS: usize = 2 * WINDOW as usize + 2;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("the broker refused the subscription to {0}: {1:?}")]
    Subscription(String, SubscribeReasonCode),
    #[error("{0}: {source}", source = std::error::Error::source(.0).map_or_else(String::new, ToString::to_string))]
    Outbox(#[from] ClientError),
}

/// The task behind a [`Client`](crate::Client).
pub(crate) struct Driver {
    pub(crate) options: Options,
    pub(crate) outbox: Outbox,
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: CancellationToken,
    pub(crate) deliveries: mpsc::Sender<Delivery>,
}

/// What is under way on one connection.
#[derive(Default)]
struct Line {
    connected: Option<Instant>,
    /// Whether a broker has taken our subscriptions, on this connection or an earlier one.
    subscribed: bool,
    /// The last message that was given to rumqttc.
    sent: i64,
    /// Messages that rumqttc has not given a packet id yet.
    queued: VecDeque<i64>,
    /// By packet id.
    in_flight: HashMap<u16, i64>,
    /// Messages to take out of the outbox.
    done: Vec<i64>,
}

impl Driver {
    /// Runs until told to stop.
    pub(crate) async fn run(self) {
        let mut route = Route::new(self.options.brokers.clone(), self.options.longest_pause);
        let mut subscribed = self.options.subscriptions.is_empty();
        while !self.stop.is_cancelled() {
            let address = route.address().clone();
            let mut line = Line {
                subscribed,
                ..Line::default()
            };
            let ended = self.connection(&address, &mut line).await;
            let lasted = line.connected.map_or(Duration::ZERO, |since| since.elapsed());
            let Err(error) = ended else { break };
            subscribed = line.subscribed;
            if line.connected.is_some() {
                info!(broker = address.0, port = address.1, %error, "connection lost");
            }
            self.shared.status.send_modify(|status| {
                status.connected = None;
                status.subscribed = false;
                status.last_error = Some(error.to_string());
            });
            let pause = route.lost(lasted, fastrand::f64());
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.shared.status.send_modify(|status| status.connected = None);
    }

    /// Makes one connection and serves it. `Ok` if we ended it.
    async fn connection(&self, address: &(String, u16), line: &mut Line) -> Result<(), Ended> {
        let (client, mut event_loop) = AsyncClient::new(self.options.mqtt(address), REQUESTS);
        let (sender, events) = mpsc::channel(2 * usize::from(WINDOW));
        // `poll` must not be cancelled: what it was writing would be lost. So it runs beside, and until the end.
        let poll = async move {
            while let Ok(()) = sender.send(event_loop.poll().await).await {}
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = self.serve(address, client, events, line) => ended,
            () = poll => Ok(()),
        }
    }

    async fn serve(
        &self,
        address: &(String, u16),
        client: AsyncClient,
        mut events: mpsc::Receiver<Result<Event, ConnectionError>>,
        line: &mut Line,
    ) -> Result<(), Ended> {
        loop {
            tokio::select! {
                event = events.recv() => {
                    let mut next = event;
                    // Everything that has happened is one transaction.
                    while let Some(event) = next {
                        match event? {
                            Event::Incoming(Packet::ConnAck(ack)) => self.connected(address, &client, &ack, line),
                            Event::Incoming(packet) => self.incoming(&client, packet, line)?,
                            Event::Outgoing(Outgoing::Publish(packet_id)) => line.underway(packet_id),
                            Event::Outgoing(_) => {}
                        }
                        next = events.try_recv().ok();
                    }
                    self.settle(line).await?;
                }
                () = self.shared.added.notified() => {}
                () = self.stop.cancelled() => {
                    if client.try_disconnect().is_ok() {
                        let gone = async { while let Some(Ok(_)) = events.recv().await {} };
                        // A broker that does not take the goodbye loses nothing by it.
                        tokio::time::timeout(GOODBYE, gone).await.ok();
                    }
                    return Ok(());
                }
            }
            if line.connected.is_some() {
                self.send(&client, line).await?;
            }
        }
    }

    fn connected(&self, address: &(String, u16), client: &AsyncClient, ack: &ConnAck, line: &mut Line) {
        let (broker, port) = address;
        info!(broker, port, session_present = ack.session_present, "connected");
        line.connected = Some(Instant::now());
        // Another broker does not know our subscriptions. And a session may be there without them: one of an earlier
        // run with other topics, or one that was cut before it could subscribe.
        line.subscribed &= ack.session_present || self.options.subscriptions.is_empty();
        if !line.subscribed {
            let filters = self.options.subscriptions.iter();
            let filters = filters.map(|filter| Filter::new(filter, QoS::AtLeastOnce));
            // There is room: it is the first request of this connection.
            client.try_subscribe_many(filters).ok();
        }
        self.shared.status.send_modify(|status| {
            status.connected = Some(format!("{broker}:{port}"));
            status.subscribed = line.subscribed;
            status.connections += 1;
            status.resumed += u64::from(ack.session_present);
        });
    }

    fn incoming(&self, client: &AsyncClient, packet: Packet, line: &mut Line) -> Result<(), Ended> {
        match packet {
            Packet::PubAck(ack) => self.acknowledged(&ack, line),
            Packet::Publish(publish) => {
                let delivery = Delivery {
                    publish,
                    client: client.clone(),
                };
                if self.deliveries.try_send(delivery).is_err() {
                    self.shared.status.send_modify(|status| status.dropped += 1);
                }
            }
            Packet::SubAck(ack) => {
                self.subscribed(&ack)?;
                line.subscribed = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn subscribed(&self, ack: &SubAck) -> Result<(), Ended> {
        let mut answers = self.options.subscriptions.iter().zip(&ack.return_codes);
        match answers.find(|(_, code)| !matches!(code, SubscribeReasonCode::Success(_))) {
            None => {
                self.shared.status.send_modify(|status| status.subscribed = true);
                Ok(())
            }
            Some((filter, code)) => Err(Ended::Subscription(filter.clone(), *code)),
        }
    }

    fn acknowledged(&self, ack: &PubAck, line: &mut Line) {
        let Some(row) = line.in_flight.remove(&ack.pkid) else {
            return;
        };
        line.done.push(row);
        let is_accepted = matches!(
            ack.reason,
            PubAckReason::Success | PubAckReason::NoMatchingSubscribers
        );
        // What a broker refuses it would refuse again, and everything behind it would wait for ever.
        if !is_accepted {
            warn!(row, reason = ?ack.reason, "a message was refused and is given up");
        }
        self.shared.status.send_modify(|status| {
            status.acknowledged += u64::from(is_accepted);
            status.refused += u64::from(!is_accepted);
        });
    }

    /// Takes out of the outbox what is done.
    async fn settle(&self, line: &mut Line) -> Result<(), Ended> {
        if line.done.is_empty() {
            return Ok(());
        }
        let done = std::mem::take(&mut line.done);
        let count = done.len() as u64;
        self.outbox.remove(done).await?;
        self.shared.status.send_modify(|status| status.waiting -= count);
        Ok(())
    }

    /// Gives rumqttc as much of the outbox as the window allows.
    async fn send(&self, client: &AsyncClient, line: &mut Line) -> Result<(), Ended> {
        let under_way = line.queued.len() + line.in_flight.len();
        let room = usize::from(WINDOW).saturating_sub(under_way);
        if room == 0 || self.shared.status.borrow().waiting <= under_way as u64 {
            return Ok(());
        }
        for message in self.outbox.after(line.sent, room).await? {
            let Waiting {
                row,
                topic,
                payload,
                retain,
            } = message;
            let properties = PublishProperties {
                user_properties: vec![(MESSAGE_ID.to_owned(), self.outbox.message_id(row))],
                ..PublishProperties::default()
            };
            let qos = QoS::AtLeastOnce;
            // It does not wait: a full channel would, until there is a connection again.
            let given = client.try_publish_with_properties(topic, qos, retain, payload, properties);
            if given.is_err() {
                break;
            }
            line.queued.push_back(row);
            line.sent = row;
        }
        Ok(())
    }
}

impl Line {
    /// rumqttc has given the next of the queued messages a packet id.
    fn underway(&mut self, packet_id: u16) {
        if let Some(row) = self.queued.pop_front() {
            self.in_flight.insert(packet_id, row);
        }
    }
}
