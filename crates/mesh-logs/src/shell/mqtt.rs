//! Lines out of a broker's own topics, `$SYS/broker/log/#`: where nothing else is to be had.
//!
//! Lossy by nature: the broker keeps nothing for who is away, and tells no debug lines. Each time away is noted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::names::{CLIENT_ID_PREFIX, HEALTH_USER};
use mesh_runtime::config::LogSource;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::PingReq;
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet, open_within};
use mesh_runtime::secrets::Secrets;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::intake::{Intake, Order, Orders, now_ns, register};
use super::pipeline::in_full;
use super::retry::Attempts;
use super::status::Status;

/// The topics.
const FILTER: &str = "$SYS/broker/log/#";

/// How long the broker may take to accept.
const PATIENCE: Duration = Duration::from_secs(5);

/// Time between two signs of life; a broker that gives none for three is left.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Stays subscribed at `address` and hands on what comes. Ends when the pipeline does.
pub async fn run(
    source: LogSource,
    address: SocketAddr,
    secrets: Secrets,
    orders: Orders,
    status: Arc<Status>,
) {
    let Ok(state) = register(&orders, &source.name, "").await else {
        return;
    };
    let identity = Identity {
        client_id: format!("{CLIENT_ID_PREFIX}logs.{}-{}", source.name, std::process::id()),
        login: Some((HEALTH_USER.to_owned(), secrets.health)),
        keep_alive_s: 3 * PING_EVERY.as_secs() as u16,
    };
    let mut intake = Intake::new(&source, state);
    let mut attempts = Attempts::new(&intake, Arc::clone(&status));
    loop {
        match listen(&mut intake, address, &identity, &orders, &status).await {
            Ok(()) => return,
            Err(error) => attempts.failed(&intake, in_full(&error)).await,
        }
    }
}

/// Ends without an error only if the pipeline has ended.
async fn listen(
    intake: &mut Intake,
    address: SocketAddr,
    identity: &Identity,
    orders: &Orders,
    status: &Status,
) -> Result<(), MqttError> {
    let mut connection: Connection = open_within(address, identity, PATIENCE).await?;
    let subscribed = timeout(PATIENCE, connection.subscribe(&[FILTER], QoS::AtMostOnce)).await;
    subscribed.map_err(|_elapsed| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    if intake.state.lines > 0 {
        intake.gap(
            "nobody listened to the broker's log topics until now".to_owned(),
            now_ns(),
        );
    }
    let mut pings = interval(PING_EVERY);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            packet = connection.receive() => {
                heard = Instant::now();
                if let Packet::Publish(message) = packet? {
                    intake.line(&message.payload, message.payload.len() as u64, now_ns());
                    // What has arrived already goes with it.
                    while let Some(packet) = connection.take()? {
                        if let Packet::Publish(message) = packet {
                            intake.line(&message.payload, message.payload.len() as u64, now_ns());
                        }
                    }
                }
            }
            _ = pings.tick() => {
                if heard.elapsed() > 3 * PING_EVERY {
                    return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
                }
                connection.send(&Packet::PingReq(PingReq)).await?;
            }
        }
        if intake.has_rows() {
            let chunk = intake.take();
            status.read(&chunk.state);
            if orders.send(Order::Store(chunk)).await.is_err() {
                return Ok(());
            }
        }
    }
}
