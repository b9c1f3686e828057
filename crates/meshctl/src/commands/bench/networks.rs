//! The networks that are compared. All run the same Mosquitto with the same limits.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh_lab::load::{Pace, Publication, Publisher, Subscriber};
use mesh_lab::{Lab, LabOptions, wait_until};
use mesh_model::BrokerId;
use mesh_runtime::Config;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::secrets::Secrets;

/// Settings for measuring: bounds that the load does not reach.
const SETTINGS: &str = "[mosquitto]\nmax_queued_messages = 1000000\nautosave_interval = \"24h\"\n";

/// A kind of network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Brokers with the plugin, each linked to each.
    Mesh,
    /// Stock brokers, each linked to the first.
    Star,
    /// One stock broker.
    Single,
    /// The mesh without the plugin: the same brokers, configuration and links. So that it does not loop, only links
    /// from the first broker carry messages; the others are there and carry nothing.
    StockFan,
    /// A mesh whose plugin does nothing but keep messages from looping.
    Unstamped,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mesh => "mesh",
            Self::Star => "star",
            Self::Single => "single",
            Self::StockFan => "stock fan",
            Self::Unstamped => "unstamped",
        })
    }
}

/// Starts a network of `kind`, without Nginx and mesh-health. A single broker is one whatever `brokers` says.
pub async fn start(kind: Kind, brokers: usize) -> anyhow::Result<Lab> {
    let lab = Lab::start(options(kind, brokers)).await?;
    if kind == Kind::StockFan {
        wait_for_fan(&lab).await?;
    }
    Ok(lab)
}

fn options(kind: Kind, brokers: usize) -> LabOptions {
    let options = LabOptions {
        balancer: false,
        health: false,
        settings: SETTINGS.to_owned(),
        ..LabOptions::default()
    };
    match kind {
        Kind::Mesh => LabOptions { brokers, ..options },
        Kind::Unstamped => LabOptions {
            brokers,
            broker_conf: Some(Arc::new(|config, secrets, id| {
                unstamped(&rendered(config, secrets, id))
            })),
            ..options
        },
        Kind::Star => LabOptions {
            brokers,
            // `topic #` does not match what begins with a dollar sign.
            ready_topic: Some("bench/ready/".to_owned()),
            broker_conf: Some(Arc::new(|config, _, id| star(config, id))),
            ..options
        },
        Kind::Single => LabOptions {
            brokers: 1,
            broker_conf: Some(Arc::new(|config, _, id| stock(config, id))),
            ..options
        },
        Kind::StockFan => LabOptions {
            brokers,
            // Between most pairs nothing travels, so there is nothing to wait for; see `wait_for_fan`.
            ready_topic: None,
            broker_conf: Some(Arc::new(|config, secrets, id| {
                stock_fan(&rendered(config, secrets, id), config)
            })),
            ..options
        },
    }
}

fn rendered(config: &Config, secrets: &Secrets, id: &BrokerId) -> String {
    let text = mesh_render::broker_conf(config, secrets, id);
    text.expect("what the lab renders can be rendered")
}

/// The broker's own configuration, with a plugin that stamps nothing.
fn unstamped(text: &str) -> String {
    let first = "plugin_opt_broker_id";
    text.replacen(first, &format!("plugin_opt_stamps false\n{first}"), 1)
}

/// The broker's own configuration without the plugin. Links from all but the first broker fetch only what is below
/// `$mesh/`, where nobody publishes without the plugin.
fn stock_fan(text: &str, config: &Config) -> String {
    let hub = format!("connection mesh-{}", config.topology.brokers()[0].id);
    let mut from_hub = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("connection ") {
            from_hub = line == hub;
        }
        let loops = line.starts_with("topic # ") && !from_hub;
        if !loops && !line.starts_with("plugin") {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

/// Waits until a message from the first broker reaches every other one.
async fn wait_for_fan(lab: &Lab) -> anyhow::Result<()> {
    let ids: Vec<&BrokerId> = lab.config().topology.ids().collect();
    let mut subscribers = Vec::new();
    for id in &ids {
        // A client is on one broker only: the same id on another one would end it here.
        let client_id = format!("bench-ready-{id}");
        subscribers
            .push(Subscriber::start(lab.broker(id), &client_id, "bench/ready", QoS::AtMostOnce).await?);
    }
    let ready = Publication {
        retain: false,
        topic: "bench/ready".to_owned(),
        qos: QoS::AtMostOnce,
        payload: 0,
        messages: 1,
        pace: Pace::Window(1),
    };
    wait_until(
        "messages from the first broker to all others",
        Duration::from_secs(30),
        async || {
            let published = match Publisher::connect(lab.broker(ids[0]), "bench-pub").await {
                Ok(mut publisher) => publisher.run(&ready).await,
                Err(error) => Err(error),
            };
            published.map_err(|error| error.to_string())?;
            match subscribers.iter().position(|subscriber| subscriber.count() == 0) {
                None => Ok(()),
                Some(place) => Err(format!("nothing at {}", ids[place])),
            }
        },
    )
    .await?;
    Ok(())
}

/// A stock broker with the limits of the mesh's.
fn stock(config: &Config, id: &BrokerId) -> String {
    let address = config
        .topology
        .get(id)
        .expect("the lab renders its own brokers only")
        .address;
    let m = &config.mosquitto;
    format!(
        "user {}\nlistener {} {}\nallow_anonymous true\nmax_inflight_messages {}\nmax_queued_messages {}\n\
         set_tcp_nodelay true\nsys_interval 1\npersistence true\npersistence_location {}/\n\
         autosave_interval {}\nlog_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n",
        m.user,
        address.port(),
        address.ip(),
        m.max_inflight_messages,
        m.max_queued_messages,
        m.data_dir.to_string_lossy().replace("{broker}", id.as_str()),
        m.autosave_interval.as_secs(),
    )
}

/// A stock broker that exchanges everything with the first one, unless it is that one.
fn star(config: &Config, id: &BrokerId) -> String {
    let hub = &config.topology.brokers()[0];
    let mut text = stock(config, id);
    if *id != hub.id {
        text += &format!(
            "connection hub\naddress {}\ntopic # both 1\nbridge_protocol_version mqttv50\nbridge_max_packet_size 0\n\
             cleansession true\nnotifications false\ntry_private true\nkeepalive_interval 5\nrestart_timeout 1 5\n\
             remote_clientid star.{id}\nlocal_clientid star.local.{id}\n",
            hub.address
        );
    }
    text
}
