//! What brokers retain at the end: the last value of every stream, the same everywhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::wait_until;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::PubAck;
use mesh_runtime::mqtt::{self, Connection, Identity, Packet};

use crate::Login;
use crate::fleet::{Fleet, PREFIX, RETAINED, topic};
use crate::network::Network;

/// Nothing more comes when nothing has come for so long.
const SILENCE: Duration = Duration::from_millis(500);

/// Waits until every broker retains the last message of each stream; says what differs at the deadline.
pub async fn check(network: &Network, fleet: &Fleet, streams: usize, deadline: Duration) -> Option<String> {
    let expected: BTreeMap<String, String> = (0..streams)
        .step_by(RETAINED)
        .filter_map(|stream| {
            let last = fleet.book().pages().ledger.last(stream)?;
            Some((topic(stream), fleet.payload(last)))
        })
        .collect();
    let same = wait_until("the same retained messages everywhere", deadline, async || {
        for (id, address) in network.brokers() {
            let kept = read(*address, network.login())
                .await
                .with_context(|| format!("{id} cannot be read"))?;
            for (topic, value) in &expected {
                let found = kept.get(topic);
                anyhow::ensure!(
                    found == Some(value),
                    "{id} retains {found:?} at {topic}, but {value:?} was acknowledged last"
                );
            }
        }
        Ok(())
    });
    same.await.err().map(|error| error.to_string())
}

/// What a broker retains below the prefix of fleets.
async fn read(address: SocketAddr, login: &Login) -> anyhow::Result<BTreeMap<String, String>> {
    let identity = Identity {
        client_id: format!("chaos-r{:x}", fastrand::u32(..)),
        login: login.clone(),
        keep_alive_s: 0,
    };
    let (mut connection, _) = Connection::open(address, &identity).await?;
    let subscribe = mqtt::subscribe(&[&format!("{PREFIX}/#")], QoS::AtLeastOnce);
    connection.send(&subscribe).await?;
    let mut kept = BTreeMap::new();
    while let Ok(packet) = tokio::time::timeout(SILENCE, connection.receive()).await {
        if let Packet::Publish(publish) = packet? {
            if publish.qos == QoS::AtLeastOnce {
                connection
                    .send(&Packet::PubAck(PubAck::new(publish.pkid, None)))
                    .await?;
            }
            if publish.retain {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                kept.insert(text(&publish.topic), text(&publish.payload));
            }
        }
    }
    Ok(kept)
}
