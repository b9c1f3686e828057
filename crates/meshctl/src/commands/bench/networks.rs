//! The networks that are compared. All run the same Mosquitto with the same limits.

use std::fmt;
use std::sync::Arc;

use mesh_lab::{Lab, LabOptions};
use mesh_model::BrokerId;
use mesh_runtime::Config;

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
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mesh => "mesh",
            Self::Star => "star",
            Self::Single => "single",
        })
    }
}

/// Starts a network of `kind`, without Nginx and mesh-health. A single broker is one whatever `brokers` says.
pub async fn start(kind: Kind, brokers: usize) -> anyhow::Result<Lab> {
    let options = LabOptions {
        balancer: false,
        health: false,
        settings: SETTINGS.to_owned(),
        ..LabOptions::default()
    };
    let options = match kind {
        Kind::Mesh => LabOptions { brokers, ..options },
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
    };
    Ok(Lab::start(options).await?)
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
