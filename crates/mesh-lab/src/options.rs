//! What a lab shall be.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mesh_model::BrokerId;
use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;

use crate::net::Net;
use crate::ready;

/// The most brokers of a lab: with more, 64 bits have no room for weights by which Nginx takes standbys in order.
pub const MAX_BROKERS: usize = 40;

/// The most processes beside those of the mesh: each has a port of the lab's block.
pub const MAX_EXTRA: usize = 16;

/// Makes the `mosquitto.conf` of a broker.
pub type BrokerConf = Arc<dyn Fn(&Config, &Secrets, &BrokerId) -> String + Send + Sync>;

/// Gets a line for each step of the start, and for each process that dies or is started again.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// Makes the files of an extra process, as name and content, from the lab's configuration, the address that the
/// process shall listen on and the folder that it works in.
pub type ExtraFiles = Arc<dyn Fn(&Config, SocketAddr, &Path) -> Vec<(String, String)> + Send + Sync>;

/// A process beside those of the mesh, such as another balancer to compare with. It lives where Nginx lives.
///
/// The start of the lab writes its files and no more; [`Lab::restart`](crate::Lab::restart) starts it and waits
/// until it takes connections, [`Lab::halt`](crate::Lab::halt) ends it. Like every process of a lab it is gone
/// when the lab is.
#[derive(Clone)]
pub struct ExtraProcess {
    /// How it is called in faults; also the name of its folder.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments. It is started in its own folder.
    pub arguments: Vec<OsString>,
    /// Makes its files.
    pub files: ExtraFiles,
}

/// What a lab shall be. The default is five brokers with everything but mesh-logs, on free ports, in a temporary folder.
#[derive(Clone)]
pub struct LabOptions {
    /// The state folder; if `None` a temporary one, removed by [`Lab::stop`] and else kept and named.
    pub state: Option<PathBuf>,
    /// Whether the folder of an earlier lab is emptied first.
    pub fresh: bool,
    /// How many brokers, 1 to [`MAX_BROKERS`].
    pub brokers: usize,
    /// The balancer's port, from which all others follow; if `None` a block of ports that no other lab has.
    pub base_port: Option<u16>,
    /// On loopback or in namespaces.
    pub net: Net,
    /// The broker's program; if `None` that of `MESH_MOSQUITTO`, else the installed one.
    pub mosquitto: Option<PathBuf>,
    /// Whether Nginx runs.
    pub balancer: bool,
    /// Whether mesh-health runs.
    pub health: bool,
    /// Whether mesh-dashboard runs.
    pub dashboard: bool,
    /// Whether mesh-logs runs, with every process of the lab as a source.
    pub logs: bool,
    /// Whether Nginx and brokers take WebSockets too.
    pub websockets: bool,
    /// Where Nginx takes TLS and links use it: a folder of absolute path with `ca.crt`, and `.crt` and `.key` of
    /// `balancer`, `broker1` and so on.
    pub certificates: Option<PathBuf>,
    /// What else may be started, at most [`MAX_EXTRA`].
    pub extra: Vec<ExtraProcess>,
    /// TOML that is laid over the `mesh.toml` of the lab.
    pub settings: String,
    /// Makes the brokers' configuration instead of `mesh_render`; the plugin need not exist then.
    pub broker_conf: Option<BrokerConf>,
    /// Topic prefix of the messages that prove at the start that each broker reaches each other. Without one,
    /// the start does not wait for links; a mesh without the plugin needs that, since one message is a storm.
    pub ready_topic: Option<String>,
    /// How long the start may take.
    pub start_deadline: Duration,
    /// Told of what happens.
    pub progress: Option<Progress>,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self {
            state: None,
            fresh: false,
            brokers: 5,
            base_port: None,
            net: Net::Loopback,
            mosquitto: None,
            balancer: true,
            health: true,
            dashboard: false,
            logs: false,
            websockets: false,
            certificates: None,
            extra: Vec::new(),
            settings: String::new(),
            broker_conf: None,
            ready_topic: Some(ready::default_topic()),
            start_deadline: Duration::from_secs(60),
            progress: None,
        }
    }
}
