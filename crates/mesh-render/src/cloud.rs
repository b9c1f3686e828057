//! What a virtual machine is told when it is made: which address its second network interface has.

use std::net::IpAddr;

use mesh_model::BrokerId;
use mesh_runtime::Config;
use minijinja::context;

use crate::template::{RenderError, render};

/// The cloud-init of the machine of the broker `id`, for cloud-init's user data.
///
/// # Errors
///
/// [`RenderError::UnknownBroker`] if `id` is unknown.
pub fn cloud_init(config: &Config, id: &BrokerId) -> Result<String, RenderError> {
    let broker = config.topology.get(id);
    let broker = broker.ok_or_else(|| RenderError::UnknownBroker(id.clone()))?;
    let ip = broker.address.ip();
    render(
        "cloud-init.yaml.j2",
        context! {
            source => config.path.to_string_lossy(),
            broker => context! { id => id.as_str(), ip => ip.to_string(), mac => mac(ip) },
        },
    )
}

/// The MAC address of the interface that has `ip`: always the same one, so that a machine that is made again is known
/// again. Under QEMU's prefix, which Multipass's own addresses have too; `6d` is an m.
pub fn mac(ip: IpAddr) -> String {
    let [high, low] = match ip {
        IpAddr::V4(ip) => [ip.octets()[2], ip.octets()[3]],
        IpAddr::V6(ip) => [ip.octets()[14], ip.octets()[15]],
    };
    format!("52:54:00:6d:{high:02x}:{low:02x}")
}
