//! Asks one broker whether it lives.
//!
//! Two tasks a broker, so that none waits for another. One keeps a session open and sends a PINGREQ each
//! `probe_interval`; it notices at once when the session is closed, and then makes a fresh connection, whose
//! refusal is the proof of death. The other makes a whole round trip on a fresh connection each
//! `round_trip_interval`, but only while the broker answers, and one at a time: a hung broker's kernel accepts
//! connections until its queue of 100 is full, and then it serves nobody when it resumes.
//!
//! The session that is kept also hears the number of the broker's start, which the plugin tells. Whoever throws the
//! session out cannot change that; a broker that was started again cannot keep it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_model::{Broker, BrokerId, names};
use mesh_runtime::config::Health;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{Disconnect, DisconnectReasonCode, PingReq};
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet, publish, subscribe};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::clock::Jitter;
use super::{Reports, report};
use crate::core::Input;
use crate::core::broker::Sign;

/// The kernel of a living machine completes a connection in this time; else the attempt is dropped, which leaves
/// nothing behind at the other end.
const TCP_PATIENCE: Duration = Duration::from_secs(1);

/// How long an established connection waits for the broker's CONNACK. Long, because each attempt that is given up
/// stays in the accept queue of a hung broker.
const SESSION_PATIENCE: Duration = Duration::from_secs(30);

/// The longest pause between two attempts to connect.
const SLOWEST_RETRY: Duration = Duration::from_secs(1);

/// Seconds after which a broker closes a session of ours that is silent.
const KEEP_ALIVE_S: u16 = 10;

/// What the sessions of one daemon log in with.
#[derive(Debug, Clone)]
pub struct Login {
    /// The password of mesh-health.
    pub password: String,
    /// Tells this daemon's sessions and messages from those of another.
    pub nonce: String,
}

impl Login {
    /// The identity of a session for `purpose` at `broker`.
    pub(super) fn identity(&self, purpose: &str, broker: &BrokerId) -> Identity {
        Identity {
            client_id: format!("{}{purpose}.{broker}.{}", names::CLIENT_ID_PREFIX, self.nonce),
            login: Some((names::HEALTH_USER.to_owned(), self.password.clone())),
            keep_alive_s: KEEP_ALIVE_S,
        }
    }
}

/// Probes `broker` for ever.
pub async fn run(broker: Broker, rules: Health, login: Login, reports: Reports) {
    let (answering, watch) = watch::channel(false);
    let probe = Probe {
        broker,
        rules,
        login,
        reports,
    };
    tokio::join!(probe.keep_asking(answering), probe.keep_going_round(watch));
}

/// Connects and logs in, with the patience that suits each step.
pub(super) async fn connect(address: SocketAddr, identity: &Identity) -> Result<Connection, MqttError> {
    let timed_out = |_| MqttError::Io(io::ErrorKind::TimedOut.into());
    let stream = timeout(TCP_PATIENCE, TcpStream::connect(address))
        .await
        .map_err(timed_out)??;
    let started = timeout(SESSION_PATIENCE, Connection::start(stream, identity)).await;
    started.map_err(timed_out)?.map(|(connection, _)| connection)
}

struct Probe {
    broker: Broker,
    rules: Health,
    login: Login,
    reports: Reports,
}

impl Probe {
    async fn tell(&self, sign: Sign) {
        report(&self.reports, Input::Probe(self.broker.id.clone(), sign)).await;
    }

    async fn keep_asking(&self, answering: watch::Sender<bool>) {
        let identity = self.login.identity("probe", &self.broker.id);
        let mut jitter = Jitter::new();
        let mut pause = self.rules.probe_interval;
        loop {
            match connect(self.broker.address, &identity).await {
                Ok(connection) => {
                    let error = self.ask(connection, &answering, &mut jitter).await;
                    let answered = answering.send_replace(false);
                    tracing::debug!(broker = %self.broker.id, error = %chain(&error), "a probe session ended");
                    self.tell(Sign::SessionEnded).await;
                    if answered {
                        // What the end means is told by a fresh connection, now.
                        pause = self.rules.probe_interval;
                        continue;
                    }
                }
                Err(error) => self.tell(failed(&error)).await,
            }
            sleep(jitter.around(pause)).await;
            pause = (pause * 2).min(SLOWEST_RETRY.max(self.rules.probe_interval));
        }
    }

    /// Asks on one session until it ends.
    async fn ask(
        &self,
        mut connection: Connection,
        answering: &watch::Sender<bool>,
        jitter: &mut Jitter,
    ) -> MqttError {
        // Long after the verdict; a session that froze with its network is then replaced by a fresh one.
        let patience = (self.rules.dead_after * 2).max(Duration::from_secs(2));
        // Goes out with the first PINGREQ. Nobody waits for the answer: a broker without the plugin has none.
        let subscribe = subscribe(&[names::BOOT_TOPIC], QoS::AtMostOnce);
        if let Err(error) = connection.queue(&subscribe) {
            return error;
        }
        loop {
            let asked = Instant::now();
            match timeout(patience, self.ping(&mut connection)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) => return MqttError::Io(io::ErrorKind::TimedOut.into()),
            }
            self.tell(Sign::Answer { rtt: asked.elapsed() }).await;
            answering.send_replace(true);
            let rest = sleep(
                jitter
                    .around(self.rules.probe_interval)
                    .saturating_sub(asked.elapsed()),
            );
            tokio::pin!(rest);
            loop {
                tokio::select! {
                    () = &mut rest => break,
                    // The end is to be noticed at once.
                    received = connection.receive() => match received {
                        Ok(packet) => self.hear(&packet).await,
                        Err(error) => return error,
                    },
                }
            }
        }
    }

    async fn ping(&self, connection: &mut Connection) -> Result<(), MqttError> {
        connection.send(&Packet::PingReq(PingReq)).await?;
        loop {
            match connection.receive().await? {
                Packet::PingResp(_) => return Ok(()),
                other => self.hear(&other).await,
            }
        }
    }

    /// Nothing is published to this session but the number of the broker's start.
    async fn hear(&self, packet: &Packet) {
        let Packet::Publish(message) = packet else { return };
        let number = std::str::from_utf8(&message.payload)
            .ok()
            .and_then(|text| text.parse().ok());
        if let Some(boot) = number {
            self.tell(Sign::Boot(boot)).await;
        }
    }

    async fn keep_going_round(&self, mut answering: watch::Receiver<bool>) {
        let identity = self.login.identity("round", &self.broker.id);
        let patience = (self.rules.dead_after * 2).max(Duration::from_secs(2));
        let mut jitter = Jitter::new();
        let mut count = 0u64;
        loop {
            if answering.wait_for(|yes| *yes).await.is_err() {
                return;
            }
            count += 1;
            let payload = format!("{}.{count}", self.login.nonce);
            match timeout(patience, self.go_round(&identity, &payload)).await {
                Ok(Ok(())) => self.tell(Sign::RoundTrip).await,
                Ok(Err(error)) => {
                    let error = chain(&error);
                    tracing::warn!(broker = %self.broker.id, error, "a round trip failed");
                }
                Err(_) if *answering.borrow() => {
                    tracing::warn!(broker = %self.broker.id, "a round trip took longer than {patience:?}");
                }
                Err(_) => {}
            }
            // A broker that just came back is asked at once.
            tokio::select! {
                () = sleep(jitter.around(self.rules.round_trip_interval)) => {}
                () = returned(&mut answering) => {}
            }
        }
    }

    async fn go_round(&self, identity: &Identity, payload: &str) -> Result<(), MqttError> {
        let topic = names::probe_topic(&self.broker.id);
        let mut connection = connect(self.broker.address, identity).await?;
        connection.subscribe(&[&topic], QoS::AtMostOnce).await?;
        connection
            .send(&publish(&topic, QoS::AtMostOnce, 0, payload.to_owned()))
            .await?;
        loop {
            // Others' messages pass here too: links carry the topic to every broker.
            if let Packet::Publish(message) = connection.receive().await?
                && message.payload == payload.as_bytes()
            {
                break;
            }
        }
        let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
        connection.send(&Packet::Disconnect(goodbye)).await
    }
}

/// Completes when the broker answers again after it did not.
async fn returned(answering: &mut watch::Receiver<bool>) {
    let no = answering.wait_for(|yes| !*yes).await.is_ok();
    if !no || answering.wait_for(|yes| *yes).await.is_err() {
        std::future::pending().await
    }
}

/// What a failed attempt to connect says about the broker.
fn failed(error: &MqttError) -> Sign {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    match error {
        MqttError::Io(cause) if cause.kind() == ConnectionRefused => {
            Sign::Refused("connection refused".to_owned())
        }
        MqttError::Io(cause) if matches!(cause.kind(), ConnectionReset | BrokenPipe) => {
            Sign::Refused("connection reset".to_owned())
        }
        other => Sign::Trouble(chain(other)),
    }
}

/// `error` with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
