//! What tests of failover share: what mesh-health says, who serves clients, and what a client sees.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mesh_lab::load::{Pace, Publication, Publisher};
use mesh_lab::{Lab, wait_until};
use mesh_model::{BrokerId, IncidentList, Snapshot};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, open_within};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::SECOND;

pub(crate) fn ids(lab: &Lab) -> Vec<BrokerId> {
    lab.config().topology.ids().cloned().collect()
}

/// What mesh-health knows now.
pub(crate) async fn status(lab: &Lab) -> Result<Snapshot, String> {
    get(lab, "/v1/status").await
}

/// The incidents that it remembers.
pub(crate) async fn incidents(lab: &Lab) -> Result<IncidentList, String> {
    get(lab, "/v1/incidents").await
}

async fn get<T: DeserializeOwned>(lab: &Lab, path: &str) -> Result<T, String> {
    let get = async || -> std::io::Result<String> {
        let address = lab.health_url().replace("http://", "");
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = get().await.map_err(|error| error.to_string())?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))
}

/// Waits until mesh-health says that `primary` serves and Nginx confirmed it.
pub(crate) async fn wait_for_primary(lab: &Lab, primary: &BrokerId) {
    let what = format!("{primary} to be the confirmed primary");
    let condition = async || match status(lab).await? {
        now if now.primary == *primary && now.balancer.confirmed => Ok(()),
        now => Err(format!("{}, balancer {:?}", now.primary, now.balancer)),
    };
    wait_until(&what, 15 * SECOND, condition).await.unwrap();
}

/// Connects `count` clients through Nginx and returns the broker that each of them is on, found by its log.
pub(crate) async fn who_serves(lab: &Lab, count: usize, name: &str) -> Vec<BrokerId> {
    let mut clients: Vec<(String, Connection)> = Vec::new();
    for number in 0..count {
        let client_id = format!("{name}-{number}-");
        let identity = Identity {
            client_id: client_id.clone(),
            login: None,
            keep_alive_s: 60,
        };
        let connection = open_within(lab.balancer(), &identity, 5 * SECOND).await;
        clients.push((client_id, connection.unwrap()));
    }
    let logged = async || {
        let logs = ids(lab).into_iter().map(|id| {
            let log = lab.log_dir(id.as_str()).join("mosquitto.log");
            (id, std::fs::read_to_string(log).unwrap_or_default())
        });
        let logs: Vec<(BrokerId, String)> = logs.collect();
        let serves = |(client_id, _): &(String, Connection)| {
            let line = format!(" as {client_id} (");
            logs.iter()
                .find(|(_, log)| log.contains(&line))
                .map(|(id, _)| id.clone())
        };
        clients
            .iter()
            .map(serves)
            .collect::<Option<Vec<_>>>()
            .ok_or("a client is in no broker's log")
    };
    wait_until("every client in a broker's log", 5 * SECOND, logged)
        .await
        .unwrap()
}

/// What a client saw that connects, publishes one QoS 1 message and disconnects, again and again.
pub(crate) struct Served {
    /// Messages that were acknowledged.
    pub(crate) acknowledged: u64,
    /// The longest time between two acknowledgements.
    pub(crate) longest_gap: Duration,
}

/// Connects and publishes through Nginx until `stop` completes, trying again 10 ms after a failure.
pub(crate) async fn publish_in_a_loop(
    balancer: SocketAddr,
    topic: &str,
    stop: impl Future<Output = ()>,
) -> Served {
    let mut served = Served {
        acknowledged: 0,
        longest_gap: Duration::ZERO,
    };
    let mut last = Instant::now();
    let mut stop = std::pin::pin!(stop);
    loop {
        let one = async {
            let mut publisher = Publisher::connect(balancer, "looping").await?;
            let publication = Publication {
                retain: false,
                topic: topic.to_owned(),
                qos: QoS::AtLeastOnce,
                payload: 32,
                messages: 1,
                pace: Pace::Window(1),
            };
            publisher.run(&publication).await
        };
        let outcome = tokio::select! {
            () = &mut stop => return served,
            outcome = tokio::time::timeout(SECOND / 4, one) => outcome,
        };
        if matches!(outcome, Ok(Ok(()))) {
            served.acknowledged += 1;
            served.longest_gap = served.longest_gap.max(last.elapsed());
            last = Instant::now();
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
