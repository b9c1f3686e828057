//! Subscribers that keep all that a broker tells them of a message.

use mesh_lab::Lab;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{Filter, PubAck, Publish, PublishProperties, Subscribe};
use mesh_runtime::mqtt::{Connection, Packet};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::client::Who;
use super::{PATIENCE, SILENCE, at};

/// Keeps whole PUBLISH packets.
pub struct Keeper {
    seen: watch::Receiver<Vec<Publish>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Subscribes on the `n`th broker.
    pub async fn start(lab: &Lab, n: usize, filter: &str) -> Self {
        let (mut connection, _) = Connection::open(at(lab, n), &Who::anonymous().identity())
            .await
            .unwrap();
        let filters = vec![Filter {
            preserve_retain: true,
            ..Filter::new(filter, QoS::AtLeastOnce)
        }];
        let subscribe = Subscribe {
            pkid: 1,
            filters,
            properties: None,
        };
        connection.send(&Packet::Subscribe(subscribe)).await.unwrap();
        let (sender, seen) = watch::channel(Vec::new());
        let (granted, mut grant) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok(packet) = connection.receive().await {
                match packet {
                    Packet::SubAck(_) => drop(granted.send_replace(true)),
                    Packet::Publish(publish) => {
                        if publish.qos == QoS::AtLeastOnce {
                            let ack = Packet::PubAck(PubAck::new(publish.pkid, None));
                            connection.send(&ack).await.ok();
                        }
                        sender.send_modify(|seen| seen.push(publish));
                    }
                    _ => {}
                }
            }
        });
        let granted = grant.wait_for(|granted| *granted);
        tokio::time::timeout(PATIENCE, granted)
            .await
            .unwrap()
            .map(drop)
            .unwrap();
        Self { seen, task }
    }

    /// Waits until `count` messages have come, and whether more come, and returns what there is.
    pub async fn all(&mut self, count: usize) -> Vec<Publish> {
        let enough = self.seen.wait_for(|seen| seen.len() >= count);
        // Whoever asked tells what is missing.
        tokio::time::timeout(PATIENCE, enough).await.map(drop).ok();
        tokio::time::sleep(SILENCE).await;
        self.seen.borrow().clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a subscriber sees of a message, all but its packet id. What is left of the expiry interval is rounded,
/// and the stamp is none of its publisher's business.
pub fn seen(publish: &Publish) -> String {
    let properties = publish.properties.clone().map(|mut properties| {
        let expiry = properties.message_expiry_interval.as_mut();
        if let Some(seconds) = expiry.filter(|seconds| **seconds > 900) {
            *seconds = 1000;
        }
        properties.user_properties.retain(|(name, _)| name != "mesh");
        properties
    });
    let properties = properties.filter(|properties| *properties != PublishProperties::default());
    format!(
        "{:?} {:?} {:?} {} {properties:?}",
        publish.topic, publish.payload, publish.qos, publish.retain
    )
}
