//! Turns `mesh.toml` into everything else: the configuration of each broker with its bridges, and of Nginx.
//!
//! Pure: a configuration goes in, text comes out. No address stands in two places, because only this crate
//! writes one down. The templates are the files of `mosquitto/` and `nginx/` at the top of the repository.

pub mod balancer;
pub mod broker;
pub mod cloud;
mod template;

pub use balancer::{ReadBackError, nginx_conf, parse_read_back, plan_of_upstream, read_back, upstream_conf};
pub use broker::broker_conf;
pub use template::RenderError;

use mesh_model::Plan;
use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;

/// One rendered file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Where it belongs, relative to the folder that is rendered into.
    pub path: String,
    /// Its content.
    pub contents: String,
    /// Its permission bits; files with passwords are for their owner only.
    pub mode: u32,
}

/// The plan of a fresh deployment: generation 0, brokers in order of priority.
pub fn first_plan(config: &Config) -> Plan {
    let mut order = config.topology.ids().cloned();
    // A topology has at least one broker.
    let primary = order.next().expect("a topology is not empty");
    Plan::new(0, primary, order)
}

/// Every file: `BROKER/mosquitto.conf` for each broker, `nginx/nginx.conf` and `nginx/upstream.conf`, and for scripts
/// `inventory`, a line of id, IP address, port and MAC address for each broker in order of priority; and
/// `BROKER/cloud-init.yaml` for a virtual machine that is to have that address. `BROKER/files` and `nginx/files` list
/// what each of them needs besides, by kind and path.
///
/// # Errors
///
/// [`RenderError`] if a value of the configuration cannot stand in one of these files.
pub fn all(config: &Config, secrets: &Secrets) -> Result<Vec<RenderedFile>, RenderError> {
    let mut files = Vec::new();
    for id in config.topology.ids() {
        let contents = broker_conf(config, secrets, id)?;
        files.push(RenderedFile {
            path: format!("{id}/mosquitto.conf"),
            contents,
            mode: 0o600,
        });
        files.push(RenderedFile {
            path: format!("{id}/cloud-init.yaml"),
            contents: cloud::cloud_init(config, id)?,
            mode: 0o644,
        });
        files.push(RenderedFile {
            path: format!("{id}/files"),
            contents: broker::files(config, id)?,
            mode: 0o644,
        });
    }
    let brokers = config.topology.brokers().iter();
    let lines = brokers.map(|broker| {
        let address = broker.address;
        let mac = cloud::mac(address.ip());
        format!("{} {} {} {mac}\n", broker.id, address.ip(), address.port())
    });
    files.push(RenderedFile {
        path: "inventory".to_owned(),
        contents: lines.collect(),
        mode: 0o644,
    });
    let mut nginx = |name: &str, contents| {
        files.push(RenderedFile {
            path: format!("nginx/{name}"),
            contents,
            mode: 0o644,
        });
    };
    nginx("nginx.conf", nginx_conf(config)?);
    nginx("upstream.conf", upstream_conf(config, &first_plan(config))?);
    nginx("files", balancer::files(config)?);
    Ok(files)
}
