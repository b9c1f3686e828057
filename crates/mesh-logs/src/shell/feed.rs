//! What mesh-health knows, on its way into the database: incidents whenever something happens, samples every ten seconds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::body::HttpBody;
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use mesh_model::{IncidentList, Role, Snapshot};
use mesh_store::Reader;
use mesh_store::history::Sample;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::intake::{Order, Orders};
use super::pipeline::in_full;
use super::status::Status;

/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Time between two attempts to subscribe to events.
const RETRY: Duration = Duration::from_secs(1);

/// An event stream says something every five seconds, or it is dead.
const SILENCE: Duration = Duration::from_secs(15);

/// Larger answers are not mesh-health's.
const LARGEST: usize = 16 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error("mesh-health cannot be reached")]
    Connect(#[source] std::io::Error),
    #[error("the request failed")]
    Http(#[from] hyper::Error),
    #[error("the answer broke off")]
    Body(#[source] axum::Error),
    #[error("mesh-health answers {0}")]
    Answer(StatusCode),
    #[error("the answer is too large")]
    TooLarge,
    #[error("the answer is not what was expected")]
    Json(#[from] serde_json::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("the event stream ended")]
    Over,
}

/// Feeds from mesh-health at `address`. Ends when the pipeline does.
pub async fn run(address: SocketAddr, orders: Orders, status: Arc<Status>, reader: Reader) {
    tokio::join!(
        sample(address, orders.clone(), status, reader),
        listen(address, orders)
    );
}

async fn sample(address: SocketAddr, orders: Orders, status: Arc<Status>, reader: Reader) {
    let mut ticks = interval(SAMPLE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut told = false;
    loop {
        ticks.tick().await;
        if let Ok(duplicates) = reader.duplicates().await {
            status
                .duplicates
                .store(duplicates.len() as u64, Ordering::Relaxed);
        }
        match sample_once(address, &status).await {
            Ok(samples) => {
                told = false;
                if orders.send(Order::Samples(samples)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!(
                        error = in_full(&error),
                        "there are no samples while mesh-health is away"
                    );
                }
                status.set_clients(status.drift().into_keys().map(|broker| (broker, None)));
            }
        }
        // Also what happened while nobody listened.
        if let Ok(list) = incidents(address).await
            && orders.send(Order::Incidents(list.incidents)).await.is_err()
        {
            return;
        }
    }
}

async fn sample_once(address: SocketAddr, status: &Status) -> Result<Vec<Sample>, FeedError> {
    let snapshot: Snapshot = serde_json::from_slice(&get(address, "/v1/status").await?)?;
    let clients = snapshot
        .brokers
        .iter()
        .map(|broker| (broker.id.to_string(), broker.clients));
    status.set_clients(clients);
    let mut samples = samples(&snapshot);
    let at = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
    for (broker, drift) in status.drift() {
        samples.push(Sample {
            series: "sessions".to_owned(),
            target: broker,
            at,
            value: drift.sessions as f64,
        });
    }
    Ok(samples)
}

/// What is known in `snapshot`, as values of series. What is unknown gives none.
pub fn samples(snapshot: &Snapshot) -> Vec<Sample> {
    let at = i64::try_from(snapshot.at.as_nanosecond()).unwrap_or(0);
    let mut samples = Vec::new();
    let mut push = |series: &str, target: &str, value: Option<f64>| {
        samples.extend(value.map(|value| Sample {
            series: series.to_owned(),
            target: target.to_owned(),
            at,
            value,
        }));
    };
    push("generation", "", Some(snapshot.generation as f64));
    for broker in &snapshot.brokers {
        let id = broker.id.as_str();
        push("clients", id, broker.clients.map(|count| count as f64));
        push("in_per_s", id, broker.in_per_s);
        push("out_per_s", id, broker.out_per_s);
        push("rtt_ms", id, broker.rtt_ms);
        // 0 for the primary, 1 for the backup, 2 for a standby.
        let rank = broker.role.map(|role| match role {
            Role::Primary => 0.0,
            Role::Backup => 1.0,
            Role::Standby => 2.0,
        });
        push("role", id, rank);
    }
    for link in &snapshot.links {
        let target = format!("{}>{}", link.from, link.to);
        push("latency_ms", &target, link.latency_ms);
        push("per_s", &target, link.per_s);
    }
    samples
}

async fn incidents(address: SocketAddr) -> Result<IncidentList, FeedError> {
    Ok(serde_json::from_slice(&get(address, "/v1/incidents").await?)?)
}

/// Fetches the incidents after each event.
async fn listen(address: SocketAddr, orders: Orders) {
    loop {
        let events = async {
            let mut body = open(address, "/v1/events").await?;
            // An event's first line is its name; names of our own say that nothing happened.
            let mut rest = Vec::new();
            loop {
                let next = timeout(SILENCE, frame(&mut body))
                    .await
                    .map_err(|_elapsed| FeedError::TimedOut)?;
                rest.extend_from_slice(&next?.ok_or(FeedError::Over)?);
                let mut happened = false;
                while let Some(end) = memchr::memchr(b'\n', &rest) {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let name = line.strip_prefix(b"event:").map(<[u8]>::trim_ascii);
                    happened |= name.is_some_and(|name| !matches!(name, b"status" | b"tick"));
                }
                if rest.len() > LARGEST {
                    return Err(FeedError::TooLarge);
                }
                if happened {
                    let list = incidents(address).await?;
                    if orders.send(Order::Incidents(list.incidents)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        };
        match events.await {
            Ok(()) => return,
            Err(error) => tracing::debug!(error = in_full(&error), "no events of mesh-health"),
        }
        if orders.is_closed() {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, FeedError> {
    let all = async {
        let mut body = open(address, path).await?;
        let mut bytes = Vec::new();
        while let Some(part) = frame(&mut body).await? {
            bytes.extend_from_slice(&part);
            if bytes.len() > LARGEST {
                return Err(FeedError::TooLarge);
            }
        }
        Ok(bytes)
    };
    timeout(PATIENCE, all).await.unwrap_or(Err(FeedError::TimedOut))
}

/// The next part of a body; `None` at its end.
async fn frame(body: &mut Body) -> Result<Option<axum::body::Bytes>, FeedError> {
    loop {
        let mut body = std::pin::Pin::new(&mut *body);
        let next = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
        match next {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame.map_err(FeedError::Body)?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// The body of the answer to `GET path`, which must be 200.
async fn open(address: SocketAddr, path: &str) -> Result<Body, FeedError> {
    let opened = async {
        let stream = TcpStream::connect(address).await.map_err(FeedError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its body, which is dropped by whoever gives up.
        tokio::spawn(async move { connection.await.ok() });
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap_or_default();
        let host = address.to_string().parse();
        request
            .headers_mut()
            .extend(host.ok().map(|host| (header::HOST, host)));
        let answer = sender.send_request(request).await?;
        match answer.status() {
            StatusCode::OK => Ok(Body::new(answer.into_body())),
            status => Err(FeedError::Answer(status)),
        }
    };
    timeout(PATIENCE, opened)
        .await
        .unwrap_or(Err(FeedError::TimedOut))
}
