//! A second session at each broker: canaries out and in, and what the broker tells of itself.
//!
//! Every canary carries the moment of its sending on this process's own clock, so whoever of our sessions receives
//! it knows how long it took. Values are forgotten when the session ends; a session on which not even its own
//! canary comes back is replaced.

use std::time::Duration;

use mesh_model::names::link_counter;
use mesh_model::{Broker, BrokerId, names};
use mesh_runtime::config::Health;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::Publish;
use mesh_runtime::mqtt::{Connection, MqttError, Packet, publish};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::clock::{Clock, Jitter};
use super::probe::{Login, chain, connect};
use super::{Reports, report};
use crate::core::Input;
use crate::core::readings::{LinkCounter, Reading};

const CONNECTED: &str = "$SYS/broker/clients/connected";
const RECEIVED: &str = "$SYS/broker/publish/messages/received";
const SENT: &str = "$SYS/broker/publish/messages/sent";

/// The pause before a broken session is replaced.
const PAUSE: Duration = Duration::from_secs(1);

/// What travels in a canary.
#[derive(Debug, Serialize, Deserialize)]
struct Canary {
    /// The daemon that sent it.
    run: String,
    /// Counts the canaries of one session.
    seq: u64,
    /// Nanoseconds on that daemon's clock.
    ns: u64,
}

/// Watches `broker` for ever.
pub async fn run(broker: Broker, rules: Health, login: Login, clock: Clock, reports: Reports) {
    let monitor = Monitor {
        broker,
        rules,
        login,
        clock,
        reports,
    };
    let mut jitter = Jitter::new();
    loop {
        let error = monitor.session().await;
        tracing::debug!(broker = %monitor.broker.id, error = %chain(&error), "a monitor session ended");
        report(&monitor.reports, Input::ReadingsLost(monitor.broker.id.clone())).await;
        sleep(jitter.around(PAUSE)).await;
    }
}

struct Monitor {
    broker: Broker,
    rules: Health,
    login: Login,
    clock: Clock,
    reports: Reports,
}

impl Monitor {
    async fn session(&self) -> MqttError {
        match self.open().await {
            Ok(connection) => self.watch(connection).await,
            Err(error) => error,
        }
    }

    async fn open(&self) -> Result<Connection, MqttError> {
        let identity = self.login.identity("monitor", &self.broker.id);
        let mut connection = connect(self.broker.address, &identity).await?;
        let canaries = format!("{}#", names::CANARY_PREFIX);
        let counters = format!("{}#", names::COUNTER_PREFIX);
        // Retained values follow the SUBACK, so none is lost to the wait for it.
        let filters = [&canaries, &counters, CONNECTED, RECEIVED, SENT];
        connection.subscribe(&filters, QoS::AtMostOnce).await?;
        Ok(connection)
    }

    async fn watch(&self, mut connection: Connection) -> MqttError {
        let mut canaries = interval(self.rules.canary_interval);
        canaries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Our own canaries come back each interval.
        let patience = self.rules.link_down_after * 2 + self.rules.canary_interval;
        let mut heard = Instant::now();
        let mut seq = 0;
        loop {
            let step = tokio::select! {
                _ = canaries.tick() => {
                    seq += 1;
                    timeout(patience, connection.send(&self.canary(seq))).await.map(|sent| sent.map(|()| None))
                }
                received = timeout_at(heard + patience, connection.receive()) => {
                    heard = Instant::now();
                    received.map(|packet| packet.map(Some))
                }
            };
            match step {
                Ok(Ok(Some(Packet::Publish(message)))) => self.take(&message).await,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return MqttError::Io(std::io::ErrorKind::TimedOut.into()),
            }
        }
    }

    fn canary(&self, seq: u64) -> Packet {
        let canary = Canary {
            run: self.login.nonce.clone(),
            seq,
            ns: u64::try_from(self.clock.now().elapsed().as_nanos()).unwrap_or(u64::MAX),
        };
        let payload = serde_json::to_vec(&canary).expect("a canary is plain data");
        publish(&names::canary_topic(&self.broker.id), QoS::AtMostOnce, 0, payload)
    }

    async fn take(&self, message: &Publish) {
        let Ok(topic) = std::str::from_utf8(&message.topic) else {
            return;
        };
        if let Some(from) = topic.strip_prefix(names::CANARY_PREFIX) {
            let canary = serde_json::from_slice::<Canary>(&message.payload);
            let Ok(from) = from.parse::<BrokerId>() else {
                return;
            };
            if let Some(canary) = canary.ok().filter(|canary| canary.run == self.login.nonce) {
                let latency = self.clock.now().elapsed();
                let latency = latency.saturating_sub(Duration::from_nanos(canary.ns));
                let to = self.broker.id.clone();
                report(&self.reports, Input::Canary { from, to, latency }).await;
            }
            return;
        }
        if let Some(reading) = parse_reading(topic, &message.payload) {
            let broker = self.broker.id.clone();
            let kept = message.retain;
            report(
                &self.reports,
                Input::Reading {
                    broker,
                    reading,
                    kept,
                },
            )
            .await;
        }
    }
}

fn parse_reading(topic: &str, payload: &[u8]) -> Option<Reading> {
    if topic == names::RETAINED_TOPIC {
        return serde_json::from_slice(payload).ok().map(Reading::Retained);
    }
    let count: u64 = std::str::from_utf8(payload).ok()?.trim().parse().ok()?;
    Some(match topic {
        CONNECTED => Reading::Connected(count),
        RECEIVED => Reading::Received(count),
        SENT => Reading::Sent(count),
        names::SESSIONS_TOPIC => Reading::MeshSessions(count),
        names::BRIDGES_TOPIC => Reading::OwnBridges(count),
        names::CLIENTS_TOPIC => Reading::Clients(count),
        _ => {
            let link = topic.strip_prefix(names::COUNTER_PREFIX)?.strip_prefix("link/")?;
            let (peer, counter) = link.split_once('/')?;
            let counter = match counter {
                link_counter::RECEIVED => LinkCounter::Received,
                link_counter::DUPLICATES_DROPPED => LinkCounter::DuplicatesDropped,
                link_counter::STALE_DROPPED => LinkCounter::StaleDropped,
                link_counter::BACKLOG => LinkCounter::Backlog,
                link_counter::LOST => LinkCounter::Lost,
                link_counter::FILLING => LinkCounter::Filling,
                _ => return None,
            };
            Reading::Link(peer.parse().ok()?, counter, count)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::readings::Retained;

    #[test]
    fn only_what_is_understood_is_read() {
        let peer: BrokerId = "broker2".parse().unwrap();
        let received = names::link_counter_topic(&peer, link_counter::RECEIVED);
        let sent = names::link_counter_topic(&peer, link_counter::SENT);
        assert_eq!(
            parse_reading(&received, b"7"),
            Some(Reading::Link(peer, LinkCounter::Received, 7))
        );
        assert_eq!(parse_reading(&sent, b"7"), None);
        assert_eq!(parse_reading(CONNECTED, b"12"), Some(Reading::Connected(12)));
        assert_eq!(
            parse_reading(names::CLIENTS_TOPIC, b"3"),
            Some(Reading::Clients(3))
        );
        let retained = br#"{"count":3,"digest":"0a","in_sync":true,"more":1}"#;
        let expected = Retained {
            count: 3,
            digest: Some("0a".to_owned()),
            in_sync: true,
        };
        assert_eq!(
            parse_reading(names::RETAINED_TOPIC, retained),
            Some(Reading::Retained(expected))
        );
        for (topic, payload) in [
            (names::RETAINED_TOPIC, &b"{}"[..]),
            (CONNECTED, b"-1"),
            (CONNECTED, b"\xff"),
            ("$SYS/broker/uptime", b"4 seconds"),
            ("x", b"1"),
        ] {
            assert_eq!(parse_reading(topic, payload), None, "{topic}");
        }
    }
}
