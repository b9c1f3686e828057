//! One client that asks for service again and again: connect, publish with QoS 1, disconnect.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{Disconnect, DisconnectReasonCode};
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet, publish};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// An attempt is given up after this: what is measured is as coarse as that where nobody cuts the attempt.
const PATIENCE: Duration = Duration::from_millis(100);

/// A running client; it ends when this is dropped.
#[derive(Debug)]
pub struct Service {
    acks: Arc<Mutex<Vec<Ack>>>,
    task: JoinHandle<()>,
}

/// A PUBACK.
#[derive(Debug, Clone, Copy)]
struct Ack {
    /// When its attempt began.
    began: Instant,
    at: Instant,
}

impl Service {
    /// Starts the client; its ids begin with `name`.
    pub fn start(address: SocketAddr, name: &str) -> Self {
        let acks = Arc::<Mutex<Vec<Ack>>>::default();
        let (noted, name) = (Arc::clone(&acks), name.to_owned());
        let task = tokio::spawn(async move {
            for number in 0u64.. {
                let began = Instant::now();
                let attempt = timeout(PATIENCE, attempt(address, format!("{name}-{number}")));
                if matches!(attempt.await, Ok(Ok(()))) {
                    let at = Instant::now();
                    lock(&noted).push(Ack { began, at });
                }
                sleep(PAUSE).await;
            }
        });
        Self { acks, task }
    }

    /// How long after `fault` the first PUBACK of an attempt came that began after it; `None` after `cap`.
    pub async fn back(&self, fault: Instant, cap: Duration) -> Option<Duration> {
        loop {
            let back = lock(&self.acks)
                .iter()
                .find(|ack| ack.began >= fault)
                .map(|ack| ack.at - fault);
            if back.is_some() || fault.elapsed() > cap {
                return back.filter(|back| *back <= cap);
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// The longest time without a PUBACK from `start` until now.
    pub fn longest_gap(&self, start: Instant) -> Duration {
        let mut last = start;
        let mut longest = Duration::ZERO;
        for ack in lock(&self.acks).iter().filter(|ack| ack.at >= start) {
            longest = longest.max(ack.at - last);
            last = ack.at;
        }
        longest.max(last.elapsed())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(acks: &Mutex<Vec<Ack>>) -> MutexGuard<'_, Vec<Ack>> {
    acks.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn attempt(address: SocketAddr, client_id: String) -> Result<(), MqttError> {
    let identity = Identity {
        client_id,
        login: None,
        keep_alive_s: 60,
    };
    let (mut connection, _ack) = Connection::open(address, &identity).await?;
    connection
        .send(&publish("bench/failover", QoS::AtLeastOnce, 1, "are you there?"))
        .await?;
    while !matches!(connection.receive().await?, Packet::PubAck(_)) {}
    let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
    connection.send(&Packet::Disconnect(goodbye)).await
}
