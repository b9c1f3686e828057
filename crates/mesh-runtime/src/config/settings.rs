//! Every setting of `mesh.toml`: its key, its default, its range and its meaning, each in one place. A section has a
//! file of its own.

mod announce;
mod balancer;
mod dashboard;
mod health;
mod log;
mod mosquitto;

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_model::{Broker, BrokerId, Topology, TopologyError};

use super::Config;
use super::reader::Reader;

pub use announce::Announce;
pub use balancer::Balancer;
pub use dashboard::Dashboard;
pub use health::{Failback, Health};
pub use log::{Log, LogRotation};
pub use mosquitto::Mosquitto;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(31_557_600);

/// `[security]`: where secrets are.
#[derive(Debug, Clone)]
pub struct Security {
    /// Folder with one file a mesh user, each holding that user's password.
    pub secrets_dir: PathBuf,
    /// Whether mesh-health asks who wants to change something.
    pub operators_only: bool,
}

/// Reads everything; `None` if the brokers are not a topology, in which case `reader` holds a problem.
pub(super) fn read(reader: &mut Reader, path: &Path) -> Option<Config> {
    let (topology, positions) = read_topology(reader);
    let mosquitto = mosquitto::read(reader);
    let balancer = balancer::read(reader);
    if let Some(topology) = &topology {
        check_listeners(reader, topology, &positions, &mosquitto, &balancer);
    }
    let health = health::read(reader);
    let announce = announce::read(reader);
    let mut section = reader.section("security");
    let security = Security {
        secrets_dir: section.path(
            "secrets_dir",
            "secrets",
            "folder with the files `mesh-link` and `mesh-health`, each the password of that user",
        ),
        operators_only: section.boolean(
            "operators_only",
            false,
            "true: who wants a change of mesh-health (drain, enable, disable, failback) shows what is in the file \
             `operator` of `secrets_dir`, as meshctl does if it may read it, and the page after a login",
        ),
    };
    drop(section);
    let dashboard = dashboard::read(reader);
    let log = log::read(reader);
    let logs = super::logs::read(reader, topology.as_ref());
    Some(Config {
        path: path.to_owned(),
        topology: topology?,
        mosquitto,
        balancer,
        health,
        announce,
        security,
        dashboard,
        log,
        logs,
    })
}

/// The brokers, and the place of each in the list of the file: entries with a problem of their own are left out.
fn read_topology(reader: &mut Reader) -> (Option<Topology>, Vec<usize>) {
    let entries = reader.list("broker", |broker| {
        let id = broker.required::<BrokerId>(
            "id",
            "1 to 32 characters of a-z, 0-9 and -, beginning with a letter",
            "name of the broker; the order of the list is the order of priority",
        );
        let address = broker.required_address("address", "where the broker takes MQTT connections");
        let websockets = broker.optional_parsed(
            "websockets",
            "address",
            "where the broker takes MQTT over WebSockets, from balancer.websockets",
        );
        let tls = broker.optional_parsed(
            "tls",
            "address",
            "where the broker takes MQTT over TLS from its peers, with the files of mosquitto.tls_dir",
        );
        Some(Broker {
            websockets,
            tls,
            ..Broker::new(id?, address?)
        })
    });
    let (positions, brokers): (Vec<usize>, Vec<Broker>) = entries
        .into_iter()
        .enumerate()
        .filter_map(|(position, entry)| Some((position, entry?)))
        .unzip();
    match Topology::new(brokers) {
        Ok(topology) => (Some(topology), positions),
        Err(errors) => {
            for error in errors {
                report(reader, error.at(&positions));
            }
            (None, positions)
        }
    }
}

/// Checks that each broker listens for everything that is to reach it.
fn check_listeners(
    reader: &mut Reader,
    topology: &Topology,
    positions: &[usize],
    mosquitto: &Mosquitto,
    balancer: &Balancer,
) {
    for (broker, position) in topology.brokers().iter().zip(positions) {
        if balancer.has_websockets() && broker.websockets.is_none() {
            let why = format!("{} needs it where clients may connect by WebSockets", broker.id);
            reader.problem(&format!("broker[{position}].websockets"), why);
        }
        let why = match (&mosquitto.tls_dir, broker.tls) {
            (Some(_), None) => format!("{} needs it where mosquitto.tls_dir is given", broker.id),
            (None, Some(_)) => format!("{} has no certificate; give mosquitto.tls_dir", broker.id),
            _ => continue,
        };
        reader.problem(&format!("broker[{position}].tls"), why);
    }
}

fn report(reader: &mut Reader, error: TopologyError) {
    let key = match &error {
        // Some entries may be there, all with problems of their own.
        TopologyError::Empty if reader.has_problems() => return,
        TopologyError::Empty => "broker".to_owned(),
        TopologyError::DuplicateId { second, .. } => format!("broker[{second}].id"),
        TopologyError::DuplicateAddress { second, .. } => format!("broker[{second}].address"),
    };
    reader.problem(&key, error.to_string());
}
