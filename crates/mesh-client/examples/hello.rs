//! A message to ourselves.

use mesh_client::{Options, Outbox};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The balancer; or brokers in order of preference.
    let port = std::env::args().nth(1).map_or(Ok(18830), |port| port.parse())?;
    let mut options = Options::new("hello", [("127.0.0.1", port)]);
    options.subscriptions.push("hello/#".to_owned());

    // With a file, nothing published is lost even if this program is killed.
    let outbox = Outbox::in_memory()?;
    let (client, mut messages) = mesh_client::start(options, outbox).await?;
    // The first subscription is to hold before something is published to ourselves.
    client.status().wait_for(|status| status.subscribed).await?;

    client.publish("hello/world", "It is me").await?;
    if let Some(message) = messages.next().await {
        println!("{}: {}", message.topic, String::from_utf8_lossy(&message.payload));
    }
    client.flush().await?;
    client.close().await;
    Ok(())
}
