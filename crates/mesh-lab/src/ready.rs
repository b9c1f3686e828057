//! Whether everything answers, observed as a client would.
//!
//! A bridge that is connected has not subscribed yet, and QoS 0 of that moment is lost on it: that a link carries is known
//! only when a message has come over it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_model::{Broker, BrokerId, BrokerSnapshot, Plan, Snapshot, names};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, Packet, publish};
use mesh_runtime::secrets::Secrets;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{LabError, in_full};
use crate::net::{Network, Place};
use crate::wait::poll_until;

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Time between two rounds of messages through all links.
const ROUND: Duration = Duration::from_millis(50);

/// Under this prefix the lab sees messages pass: only mesh-health's user may write there.
pub(crate) fn default_topic() -> String {
    format!("{}lab/", names::TOPIC_PREFIX)
}

/// A session as mesh-health's user on the broker with this place in the order, from its own node.
pub(crate) async fn session(
    net: &Network,
    node: usize,
    broker: &Broker,
    secrets: &Secrets,
) -> Result<Connection, String> {
    let identity = Identity {
        client_id: format!("{}lab.{}", names::CLIENT_ID_PREFIX, broker.id),
        login: Some((names::HEALTH_USER.to_owned(), secrets.health.clone())),
        keep_alive_s: 0,
    };
    let open = async {
        let stream = net
            .connect(Place::Node(node), broker.address)
            .await
            .map_err(|error| error.to_string())?;
        Connection::start(stream, &identity)
            .await
            .map_err(|error| in_full(&error))
    };
    let opened = tokio::time::timeout(PATIENCE, open).await;
    let opened = opened.unwrap_or_else(|_| Err("no CONNACK".to_owned()));
    opened
        .map(|(connection, _ack)| connection)
        .map_err(|error| format!("{}: {error}", broker.id))
}

/// Waits until a message from each broker of these sessions has reached each other one, on a topic below `prefix`, which
/// their users have to be allowed to write and read.
///
/// # Errors
///
/// [`LabError::TimedOut`] at the deadline, with the links that carried nothing; [`LabError::Net`] if a session ends.
pub async fn links_carry(
    sessions: Vec<(BrokerId, Connection)>,
    prefix: &str,
    deadline: Duration,
) -> Result<(), LabError> {
    links_carry_unless(async { Ok(sessions) }, prefix, deadline, || None).await
}

/// [`links_carry`] with sessions that are still to be opened, which ends early if `died` has something to tell.
pub(crate) async fn links_carry_unless(
    sessions: impl Future<Output = Result<Vec<(BrokerId, Connection)>, String>>,
    prefix: &str,
    deadline: Duration,
    died: impl Fn() -> Option<LabError>,
) -> Result<(), LabError> {
    let (missing, seen) = watch::channel(BTreeSet::new());
    let carry = async { links(sessions.await?, prefix, &missing).await };
    // It ends only with an error: a death, or the deadline.
    let watch_over = poll_until("a message over every link", deadline, || async {
        let links: Vec<String> = seen.borrow().iter().cloned().collect();
        died().ok_or_else(|| format!("nothing over {}", links.join(", ")))
    });
    tokio::select! {
        carried = carry => carried.map_err(LabError::Net),
        died = watch_over => Err(died?),
    }
}

/// Sends messages into every broker until each has come out of every other one, which proves every link.
///
/// Returns only then, or with what is wrong; the caller has the deadline, and finds in `missing` what has not
/// been seen yet.
async fn links(
    sessions: Vec<(BrokerId, Connection)>,
    topic: &str,
    missing: &watch::Sender<BTreeSet<String>>,
) -> Result<(), String> {
    let ids: Vec<BrokerId> = sessions.iter().map(|(id, _)| id.clone()).collect();
    let pairs = |to: &BrokerId| -> BTreeSet<String> {
        ids.iter()
            .filter(|from| *from != to)
            .map(|from| format!("{from} → {to}"))
            .collect()
    };
    missing.send_replace(ids.iter().flat_map(pairs).collect());
    let mut tasks = JoinSet::new();
    for (id, connection) in sessions {
        let awaited = missing.clone();
        let topic = topic.to_owned();
        let all = missing.subscribe();
        tasks.spawn(async move {
            let about = format!("{id}: ");
            let run = exchange(id, connection, topic, awaited, all);
            run.await.map_err(|error| about + &error)
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// One broker's part: sends each round, notes what arrives, ends when nothing is awaited anywhere.
async fn exchange(
    id: BrokerId,
    mut connection: Connection,
    topic: String,
    awaited: watch::Sender<BTreeSet<String>>,
    mut all: watch::Receiver<BTreeSet<String>>,
) -> Result<(), String> {
    let filter = format!("{topic}#");
    connection
        .subscribe(&[&filter], QoS::AtMostOnce)
        .await
        .map_err(|error| in_full(&error))?;
    let own = format!("{topic}{id}");
    let mut round = tokio::time::interval(ROUND);
    loop {
        tokio::select! {
            done = async { all.wait_for(BTreeSet::is_empty).await.map(drop) } => {
                return done.map_err(|error| error.to_string());
            }
            _ = round.tick() => {
                let message = publish(&own, QoS::AtMostOnce, 0, "");
                connection.send(&message).await.map_err(|error| in_full(&error))?;
            }
            packet = connection.receive() => {
                let Packet::Publish(message) = packet.map_err(|error| in_full(&error))? else { continue };
                let name = String::from_utf8_lossy(&message.topic);
                let Some(from) = name.strip_prefix(&topic) else { continue };
                let link = format!("{from} → {id}");
                awaited.send_if_modified(|awaited| awaited.remove(&link));
            }
        }
    }
}

/// What Nginx tells at its read-back.
pub(crate) async fn balancer(net: &Network, address: SocketAddr) -> Result<Plan, String> {
    let answer = ask(net, address, b"").await?;
    mesh_render::parse_read_back(&answer).map_err(|error| error.to_string())
}

/// Whether somebody takes connections at `address`.
pub(crate) async fn listens(net: &Network, address: SocketAddr) -> Result<(), String> {
    match tokio::time::timeout(PATIENCE, net.connect(Place::Host, address)).await {
        Ok(connected) => connected.map(drop).map_err(|error| error.to_string()),
        Err(_elapsed) => Err("no answer".to_owned()),
    }
}

/// Whether the daemon at `address` says that it is well.
pub(crate) async fn healthy(net: &Network, address: SocketAddr) -> Result<(), String> {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = ask(net, address, request.as_bytes()).await?;
    let status = answer.lines().next().unwrap_or("no answer");
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(status.to_owned())
    }
}

/// Whether the mesh-health at `address` knows that every broker is in sync.
pub(crate) async fn in_sync(net: &Network, address: SocketAddr) -> Result<(), String> {
    let request = "GET /v1/status HTTP/1.0\r\n\r\n".to_owned();
    let answer = ask(net, address, request.as_bytes()).await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no status")?;
    let status: Snapshot = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let is_behind = |broker: &&BrokerSnapshot| {
        let retained = broker.retained.as_ref();
        retained.and_then(|retained| retained.in_sync) != Some(true)
    };
    let behind: Vec<_> = status.brokers.iter().filter(is_behind).collect();
    match behind.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} and {} others are not", first.id, behind.len() - 1)),
    }
}

async fn ask(net: &Network, address: SocketAddr, question: &[u8]) -> Result<String, String> {
    let exchange = async {
        let mut stream = net.connect(Place::Host, address).await?;
        stream.write_all(question).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_elapsed) => Err("no answer".to_owned()),
    }
}

/// A session on each broker, in order.
pub(crate) async fn sessions(
    net: &Network,
    brokers: &[Broker],
    secrets: &Secrets,
) -> Result<Vec<(BrokerId, Connection)>, String> {
    let mut opened = Vec::new();
    for (node, broker) in brokers.iter().enumerate() {
        opened.push((broker.id.clone(), session(net, node, broker, secrets).await?));
    }
    Ok(opened)
}
