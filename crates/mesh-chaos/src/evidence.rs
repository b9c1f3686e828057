//! What is needed to understand a broken promise, gathered in one folder.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, Packet};

use crate::Login;
use crate::network::Network;

/// Counters come every second.
const LISTEN: Duration = Duration::from_millis(1500);

/// Writes `status.json`, `incidents.json` and `counters-BROKER.txt` into `folder`; who does not answer has that said
/// in its file.
///
/// # Errors
///
/// If a file cannot be written.
pub async fn gather(network: &Network, folder: &Path) -> anyhow::Result<()> {
    for (file, path) in [("status.json", "/v1/status"), ("incidents.json", "/v1/incidents")] {
        let text = network
            .get(path)
            .await
            .unwrap_or_else(|error| format!("{error:#}"));
        std::fs::write(folder.join(file), text)?;
    }
    for (id, address) in network.brokers() {
        let heard = tokio::time::timeout(LISTEN * 3, counters(*address, network.login())).await;
        let text = match heard {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => format!("{error:#}\n"),
            Err(_elapsed) => "it does not answer\n".to_owned(),
        };
        std::fs::write(folder.join(format!("counters-{id}.txt")), text)?;
    }
    Ok(())
}

/// What a broker's plugin tells of itself.
async fn counters(address: SocketAddr, login: &Login) -> anyhow::Result<String> {
    let identity = Identity {
        client_id: format!("chaos-e{:x}", fastrand::u32(..)),
        login: login.clone(),
        keep_alive_s: 0,
    };
    let (mut connection, _) = Connection::open(address, &identity).await?;
    connection
        .subscribe(&["$SYS/broker/mesh/#"], QoS::AtMostOnce)
        .await?;
    let mut lines = Vec::new();
    let end = tokio::time::Instant::now() + LISTEN;
    while let Ok(packet) = tokio::time::timeout_at(end, connection.receive()).await {
        if let Packet::Publish(publish) = packet? {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            lines.push(format!("{} {}\n", text(&publish.topic), text(&publish.payload)));
        }
    }
    lines.sort();
    lines.dedup();
    Ok(lines.concat())
}
