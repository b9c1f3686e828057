//! Receives numbered messages and keeps account of them.

use std::net::SocketAddr;
use std::time::Duration;

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{PubAck, PubComp, PubRec, Publish};
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::read;

/// What a subscriber received.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// By number, how often each message came.
    pub times: Vec<u32>,
    /// Messages that came after one with a higher number.
    pub out_of_order: u64,
    /// The age of each message at its arrival, in the order of arrival.
    pub latencies: Vec<Duration>,
    /// Messages that were not numbered by us.
    pub foreign: u64,
    highest: Option<u32>,
}

impl Received {
    /// Which of the first `sent` messages did not come.
    pub fn missing(&self, sent: u32) -> Vec<u32> {
        (0..sent)
            .filter(|number| self.times.get(*number as usize).is_none_or(|times| *times == 0))
            .collect()
    }

    /// How many deliveries were repetitions.
    pub fn duplicates(&self) -> u64 {
        self.times
            .iter()
            .map(|times| u64::from(times.saturating_sub(1)))
            .sum()
    }

    fn note(&mut self, payload: &[u8]) {
        let Some((number, age)) = read(payload) else {
            self.foreign += 1;
            return;
        };
        let index = number as usize;
        if self.times.len() <= index {
            self.times.resize(index + 1, 0);
        }
        self.times[index] += 1;
        self.latencies.push(age);
        if self.highest.is_some_and(|highest| number < highest) {
            self.out_of_order += 1;
        }
        self.highest = self.highest.max(Some(number));
    }
}

/// A session that receives, in a task of its own.
#[derive(Debug)]
pub struct Subscriber {
    task: JoinHandle<Received>,
    count: watch::Receiver<u64>,
    stop: CancellationToken,
}

impl Subscriber {
    /// Connects as `client_id` and subscribes to `filter`; returns when the subscription is granted.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached or refuses.
    pub async fn start(
        address: SocketAddr,
        client_id: &str,
        filter: &str,
        qos: QoS,
    ) -> Result<Self, MqttError> {
        let identity = Identity {
            client_id: client_id.to_owned(),
            login: None,
            keep_alive_s: 60,
        };
        let (mut connection, _ack) = Connection::open(address, &identity).await?;
        connection.subscribe(&[filter], qos).await?;
        let (progress, count) = watch::channel(0);
        let stop = CancellationToken::new();
        let task = tokio::spawn(receive(connection, progress, stop.clone()));
        Ok(Self { task, count, stop })
    }

    /// How many messages have come so far.
    pub fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Waits until `count` messages have come; `false` if they have not within `deadline` or the connection ended.
    pub async fn wait_for(&mut self, count: u64, deadline: Duration) -> bool {
        let reached = self.count.wait_for(|received| *received >= count);
        matches!(tokio::time::timeout(deadline, reached).await, Ok(Ok(_)))
    }

    /// Waits until nothing has come for `silence`, or at most for `deadline`.
    pub async fn wait_for_silence(&mut self, silence: Duration, deadline: Duration) {
        let quiet =
            async { while let Ok(Ok(())) = tokio::time::timeout(silence, self.count.changed()).await {} };
        // Reaching the deadline is an answer too: whatever has come by then is what there is.
        tokio::time::timeout(deadline, quiet).await.ok();
    }

    /// Ends the session and returns the account.
    pub async fn finish(self) -> Received {
        self.stop.cancel();
        self.task.await.unwrap_or_default()
    }
}

/// Receives until told to stop or the connection ends.
async fn receive(
    mut connection: Connection,
    progress: watch::Sender<u64>,
    stop: CancellationToken,
) -> Received {
    let mut received = Received::default();
    let mut count = 0;
    loop {
        let packet = tokio::select! {
            () = stop.cancelled() => break,
            packet = connection.receive() => packet,
        };
        let Ok(packet) = packet else { break };
        let mut next = Some(packet);
        // Everything that has arrived is answered with one write.
        while let Some(packet) = next {
            if let Packet::Publish(message) = &packet {
                received.note(&message.payload);
                count += 1;
            }
            if answer(&mut connection, &packet).is_err() {
                return received;
            }
            next = connection.take().unwrap_or(None);
        }
        progress.send_replace(count);
        if connection.flush().await.is_err() {
            break;
        }
    }
    received
}

fn answer(connection: &mut Connection, packet: &Packet) -> Result<(), MqttError> {
    match packet {
        Packet::Publish(Publish {
            qos: QoS::AtLeastOnce,
            pkid,
            ..
        }) => connection.queue(&Packet::PubAck(PubAck::new(*pkid, None))),
        Packet::Publish(Publish {
            qos: QoS::ExactlyOnce,
            pkid,
            ..
        }) => connection.queue(&Packet::PubRec(PubRec::new(*pkid, None))),
        Packet::PubRel(rel) => connection.queue(&Packet::PubComp(PubComp::new(rel.pkid, None))),
        _ => Ok(()),
    }
}
