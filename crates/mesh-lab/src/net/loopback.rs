//! Everything on 127.0.0.1.

use std::net::{Ipv4Addr, SocketAddr};

use mesh_runtime::Config;

use super::Addresses;
use crate::error::LabError;
use crate::layout::{Ports, loopback_source};

impl Addresses {
    /// The addresses of a lab that is all on 127.0.0.1. From outside, a lab in namespaces has the same.
    pub(crate) fn loopback(ports: &Ports) -> Self {
        let here = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            brokers: ports.brokers.iter().copied().map(here).collect(),
            balancer: here(ports.balancer),
            readback: here(ports.readback),
            health: here(ports.health),
            dashboard: here(ports.dashboard),
            logs: here(ports.logs),
            extra: ports.extra.iter().copied().map(here).collect(),
            websockets: ports.websockets.as_ref().map(|door| door.map(|port| here(*port))),
            tls: ports.tls.as_ref().map(|door| door.map(|port| here(*port))),
            proxy_bind: loopback_source(),
        }
    }
}

/// Where this machine reaches the brokers of the lab that has written `config`, in order. In namespaces they have
/// other addresses among themselves, and only those stand in its `mesh.toml`.
pub fn brokers_of(config: &Config) -> Vec<SocketAddr> {
    // The read-back is at the same place inside and outside of namespaces; the balancer and then the brokers follow.
    let first = config.balancer.readback.port() + 2;
    let ports = (first..).take(config.topology.brokers().len());
    ports.map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
}

/// On one loopback device nobody can be cut off from anybody.
pub(super) fn cannot_cut(_node: usize, _from: Option<usize>) -> LabError {
    LabError::Net(
        "brokers on 127.0.0.1 cannot be cut off; start the lab with --netns for cut and heal, or use hang"
            .to_owned(),
    )
}
