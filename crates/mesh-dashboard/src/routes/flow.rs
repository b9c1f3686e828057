//! One test message: sent as clients send, through the balancer, and awaited at every broker.
//!
//! It goes under `$mesh/flow/`, where links carry it and no subscription to `#` sees it. It is a session of the mesh's
//! own user, so it is in no count of clients.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use mesh_model::{Broker, BrokerId, names};
use mesh_runtime::Config;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, Packet, open_within, publish};
use mesh_runtime::secrets::Secrets;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::{App, fresh};
use crate::problem::Problem;

/// How long a broker may take to accept a session.
const CONNECT: Duration = Duration::from_secs(1);

/// How long the message may be on its way.
const ARRIVAL: Duration = Duration::from_secs(3);

/// Sends test messages, one at a time.
#[derive(Debug)]
pub struct Flow {
    balancer: SocketAddr,
    brokers: Vec<Broker>,
    password: Option<String>,
    number: AtomicU64,
    turn: Mutex<()>,
}

impl Flow {
    /// For the network of `config`, if the passwords of the mesh's users can be read.
    pub fn new(config: &Config, secrets: Option<Secrets>) -> Self {
        Self {
            balancer: mesh_runtime::http::reachable(config.balancer.listen),
            brokers: config.topology.brokers().to_vec(),
            password: secrets.map(|secrets| secrets.health),
            number: AtomicU64::new(0),
            turn: Mutex::new(()),
        }
    }
}

/// How a test message fared.
#[derive(Debug, Serialize, ToSchema)]
pub struct Journey {
    /// When it was sent, through the balancer.
    #[schema(value_type = String, format = DateTime)]
    pub sent_at: Timestamp,
    /// Its topic.
    pub topic: String,
    /// Milliseconds until the broker behind the balancer acknowledged it; `null` if it did not.
    pub acknowledged_ms: Option<f64>,
    /// When it arrived where, in the order of the configuration.
    pub arrivals: Vec<Arrival>,
}

/// The arrival of a test message at one broker.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Arrival {
    /// The broker.
    pub broker: BrokerId,
    /// Milliseconds from sending to arriving at a subscriber there; `null` if it did not.
    pub latency_ms: Option<f64>,
    /// Why it did not.
    pub error: Option<String>,
}

/// Sends one test message and waits until it has arrived at every broker
#[utoipa::path(post, path = "/api/v1/flow", tag = "actions",
    params(("x-mesh-action" = String, Header, description = "Anything: other pages cannot set it")),
    responses(
        (status = 200, description = "How it fared", body = Journey),
        (status = 403, description = "The header is missing", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Another one is under way", body = Problem, content_type = "application/problem+json"),
        (status = 502, description = "The balancer takes no session", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The password of the mesh's user is not known", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn send(State(app): State<App>) -> Result<Response, Problem> {
    let flow = &app.flow;
    let Ok(_turn) = flow.turn.try_lock() else {
        let detail = "Another test message is under way; try again.";
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail));
    };
    let Some(password) = &flow.password else {
        let detail =
            "mesh-dashboard cannot read the passwords in security.secrets_dir, which it needs to send.";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    flow.send(password).await.map(|journey| fresh(&journey))
}

impl Flow {
    async fn send(&self, password: &str) -> Result<Journey, Problem> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let run = format!("{}.{number}", std::process::id());
        let topic = format!("{}{run}", names::FLOW_PREFIX);
        let identity = |place: &str| Identity {
            client_id: format!("{}flow.{run}.{place}", names::CLIENT_ID_PREFIX),
            login: Some((names::HEALTH_USER.to_owned(), password.to_owned())),
            keep_alive_s: 10,
        };
        let client = identity("sender");
        let mut sender = open_within(self.balancer, &client, CONNECT)
            .await
            .map_err(|error| {
                let detail = format!(
                    "No session through the balancer at {}: {}.",
                    self.balancer,
                    in_full(&error)
                );
                Problem::new(StatusCode::BAD_GATEWAY, detail)
            })?;

        // Everybody listens before anything is sent.
        let mut ready = JoinSet::new();
        for (place, broker) in self.brokers.iter().enumerate() {
            let (address, identity, topic) = (broker.address, identity(broker.id.as_str()), topic.clone());
            ready.spawn(async move { (place, subscribe(address, &identity, &topic).await) });
        }
        let mut listeners: Vec<Option<Result<Connection, String>>> =
            self.brokers.iter().map(|_| None).collect();
        while let Some(done) = ready.join_next().await {
            if let Ok((place, listener)) = done {
                listeners[place] = Some(listener);
            }
        }

        let sent_at = Timestamp::now();
        let start = Instant::now();
        let mut arrivals = JoinSet::new();
        for (place, listener) in listeners.into_iter().enumerate() {
            let id = self.brokers[place].id.clone();
            arrivals.spawn(async move {
                let arrived = match listener {
                    Some(Ok(connection)) => arrival(connection, start).await,
                    Some(Err(error)) => Err(error),
                    None => Err("it was not asked".to_owned()),
                };
                (place, told(id, arrived))
            });
        }
        let acknowledged_ms = acknowledged(&mut sender, &topic, start).await;
        let mut journey = Journey {
            sent_at,
            topic,
            acknowledged_ms,
            arrivals: self
                .brokers
                .iter()
                .map(|b| told(b.id.clone(), Err(String::new())))
                .collect(),
        };
        while let Some(done) = arrivals.join_next().await {
            if let Ok((place, arrival)) = done {
                journey.arrivals[place] = arrival;
            }
        }
        Ok(journey)
    }
}

async fn subscribe(address: SocketAddr, identity: &Identity, topic: &str) -> Result<Connection, String> {
    let subscribing = async {
        let mut connection = open_within(address, identity, CONNECT).await?;
        connection.subscribe(&[topic], QoS::AtMostOnce).await?;
        Ok::<_, mesh_runtime::mqtt::MqttError>(connection)
    };
    match timeout(CONNECT, subscribing).await {
        Ok(subscribed) => subscribed.map_err(|error| in_full(&error)),
        Err(_elapsed) => Err("it does not answer".to_owned()),
    }
}

/// Waits for the message; nothing else comes on its topic.
async fn arrival(mut connection: Connection, start: Instant) -> Result<f64, String> {
    let waiting = async {
        loop {
            if let Packet::Publish(_) = connection.receive().await.map_err(|error| in_full(&error))? {
                return Ok(millis(start));
            }
        }
    };
    let arrived = timeout(ARRIVAL, waiting).await;
    arrived.unwrap_or_else(|_elapsed| Err(format!("it did not arrive within {ARRIVAL:?}")))
}

async fn acknowledged(sender: &mut Connection, topic: &str, start: Instant) -> Option<f64> {
    let acknowledging = async {
        let message = publish(topic, QoS::AtLeastOnce, 1, "test");
        sender.send(&message).await.ok()?;
        loop {
            if let Packet::PubAck(_) = sender.receive().await.ok()? {
                return Some(millis(start));
            }
        }
    };
    timeout(ARRIVAL, acknowledging).await.ok().flatten()
}

fn told(broker: BrokerId, arrived: Result<f64, String>) -> Arrival {
    Arrival {
        broker,
        latency_ms: arrived.as_ref().ok().copied(),
        error: arrived.err(),
    }
}

fn millis(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text += &format!(": {deeper}");
        cause = deeper.source();
    }
    text
}
