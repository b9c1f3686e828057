//! Each broker in a network namespace of its own, with the address it has in a real deployment.
//!
//! A `switch` namespace holds a bridge, to which a cable leads from each node and from the host, where Nginx and
//! mesh-health live. There is no default route anywhere, and no cable to the network of this machine: what
//! happens inside stays inside. A node is cut off by dropping frames in the switch, so nobody is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpSocket, TcpStream};

use super::forward::Forwarders;
use super::namespace::Namespace;
use super::{Addresses, Place};
use crate::error::LabError;
use crate::layout::{Door, Ports};
use crate::programs;

const HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);
/// The source of Nginx's connections, so that they can be told from those of mesh-health.
const NGINX: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 2);
/// The last byte of the first broker's address.
const FIRST_NODE: u8 = 10;
const MQTT: u16 = 1883;
const WEBSOCKETS: u16 = 8083;
const TLS: u16 = 8883;

/// The cables that are cut.
#[derive(Debug, Default, Clone)]
struct Cuts {
    /// Nodes cut off from everyone.
    nodes: BTreeSet<usize>,
    /// What one node sends to another one is dropped: from, to.
    ways: BTreeSet<(usize, usize)>,
    /// By node, so many of a hundred packets are dropped.
    losses: BTreeMap<usize, u8>,
}

/// The namespaces of a lab and what leads into them from 127.0.0.1.
#[derive(Debug)]
pub(crate) struct Namespaces {
    host: Arc<Namespace>,
    nodes: Vec<Namespace>,
    switch: Namespace,
    addresses: Addresses,
    cuts: Mutex<Cuts>,
    _forwarders: Forwarders,
}

impl Namespaces {
    /// Makes the network, with a way in for each of `ports`.
    pub(crate) fn new(ports: &Ports) -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            let why = "network namespaces need root; run the lab with sudo, or without --netns";
            return Err(LabError::Net(why.to_owned()));
        }
        programs::system("ip", "install it: `apt install iproute2`")?;
        programs::system("nft", "install it: `apt install nftables`")?;
        let failed = || LabError::io("make the network namespaces");
        let addresses = addresses(ports);
        let new = |name: String| Namespace::new(&name).map_err(failed());
        let switch = new("switch".to_owned())?;
        let host = new("host".to_owned())?;
        let nodes = (0..addresses.brokers.len()).map(|node| new(port(node)));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;

        let cables = cables(&host, &nodes);
        switch
            .command("ip", &["-batch", "-"], &cables)
            .map_err(failed())?;
        switch
            .command("nft", &["-f", "-"], &filter(&Cuts::default()))
            .map_err(failed())?;
        plug_in(&host, &[HOST, NGINX]).map_err(failed())?;
        for (node, namespace) in nodes.iter().enumerate() {
            plug_in(namespace, &[node_address(node)]).map_err(failed())?;
        }
        let host = Arc::new(host);
        let forwarders = Forwarders::start(&host, &ways_in(ports, &addresses))?;
        Ok(Self {
            host,
            nodes,
            switch,
            addresses,
            cuts: Mutex::new(Cuts::default()),
            _forwarders: forwarders,
        })
    }

    /// The addresses inside.
    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Does `job` at `place`.
    pub(crate) fn at<T: Send + 'static>(
        &self,
        place: Place,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.namespace(place).run(job)
    }

    /// Connects as a program at `place` would.
    pub(crate) async fn connect(&self, place: Place, address: SocketAddr) -> io::Result<TcpStream> {
        connect(self.namespace(place), address).await
    }

    /// Cuts a node off from everyone or from one other node.
    pub(crate) fn cut(&self, node: usize, from: Option<usize>) -> Result<(), LabError> {
        self.change(|cuts| match from {
            None => drop(cuts.nodes.insert(node)),
            Some(from) => cuts.ways.extend([(from, node), (node, from)]),
        })
    }

    /// Drops what one node sends to another one; the other way stays open.
    pub(crate) fn cut_way(&self, from: usize, to: usize) -> Result<(), LabError> {
        self.change(|cuts| cuts.ways.extend([(from, to)]))
    }

    /// Drops so many of a hundred packets from and to a node.
    pub(crate) fn loss(&self, node: usize, percent: u8) -> Result<(), LabError> {
        self.change(|cuts| cuts.losses.extend([(node, percent)]))
    }

    /// Lets no more than so many thousand bits a second through the cable to a node, each way.
    pub(crate) fn slow(&self, node: usize, kbit: u32) -> Result<(), LabError> {
        let failed = || LabError::io("slow a cable down");
        // A bucket filter on both ends: a queue works only on what leaves a device.
        for (namespace, device) in [(&self.switch, port(node)), (&self.nodes[node], "eth0".to_owned())] {
            let rate = format!("{kbit}kbit");
            let add = [
                "qdisc", "replace", "dev", &device, "root", "tbf", "rate", &rate, "burst", "16kb", "latency",
                "200ms",
            ];
            namespace.command("tc", &add, "").map_err(failed())?;
        }
        Ok(())
    }

    /// Ends [`Self::slow`], if there was one.
    fn unslow(&self, node: usize) {
        for (namespace, device) in [(&self.switch, port(node)), (&self.nodes[node], "eth0".to_owned())] {
            // It fails where there is none, which is what is wanted.
            namespace
                .command("tc", &["qdisc", "del", "dev", &device, "root"], "")
                .ok();
        }
    }

    /// Undoes a cut; without `from` every one that concerns the node, and losses and slowness too.
    pub(crate) fn heal(&self, node: usize, from: Option<usize>) -> Result<(), LabError> {
        if from.is_none() {
            self.unslow(node);
        }
        self.change(|cuts| match from {
            None => {
                cuts.nodes.remove(&node);
                cuts.losses.remove(&node);
                cuts.ways.retain(|(from, to)| *from != node && *to != node);
            }
            Some(from) => {
                cuts.ways.remove(&(from, node));
                cuts.ways.remove(&(node, from));
            }
        })
    }

    fn change(&self, change: impl FnOnce(&mut Cuts)) -> Result<(), LabError> {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = cuts.clone();
        change(&mut changed);
        let applied = self.switch.command("nft", &["-f", "-"], &filter(&changed));
        applied.map_err(LabError::io("change what the switch drops"))?;
        *cuts = changed;
        Ok(())
    }

    fn namespace(&self, place: Place) -> &Namespace {
        match place {
            Place::Host => &self.host,
            Place::Node(node) => &self.nodes[node],
        }
    }
}

/// Connects to `address` from inside `namespace`.
pub(super) async fn connect(namespace: &Namespace, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = namespace.run(TcpSocket::new_v4)??;
    socket.connect(address).await
}

fn addresses(ports: &Ports) -> Addresses {
    let at = |port: u16| Door {
        balancer: (Ipv4Addr::UNSPECIFIED, port).into(),
        brokers: (0..ports.brokers.len())
            .map(|node| (node_address(node), port).into())
            .collect(),
    };
    let mqtt = at(MQTT);
    Addresses {
        brokers: mqtt.brokers,
        balancer: mqtt.balancer,
        websockets: ports.websockets.as_ref().map(|_| at(WEBSOCKETS)),
        tls: ports.tls.as_ref().map(|_| at(TLS)),
        // The same as outside, so that `mesh.toml` is true for whoever reads it there.
        readback: (Ipv4Addr::LOCALHOST, ports.readback).into(),
        health: (Ipv4Addr::LOCALHOST, ports.health).into(),
        dashboard: (Ipv4Addr::LOCALHOST, ports.dashboard).into(),
        logs: (Ipv4Addr::LOCALHOST, ports.logs).into(),
        extra: ports.extra.iter().map(|port| (HOST, *port).into()).collect(),
        proxy_bind: Some(NGINX.into()),
    }
}

/// Which port of 127.0.0.1 leads where.
fn ways_in(ports: &Ports, inside: &Addresses) -> Vec<(u16, SocketAddr)> {
    let mut ways = vec![
        (ports.balancer, (HOST, MQTT).into()),
        (ports.readback, inside.readback),
        (ports.health, inside.health),
        (ports.dashboard, inside.dashboard),
        (ports.logs, inside.logs),
    ];
    ways.extend(ports.brokers.iter().copied().zip(inside.brokers.iter().copied()));
    for (outside, inside) in [(&ports.websockets, &inside.websockets), (&ports.tls, &inside.tls)] {
        if let (Some(outside), Some(inside)) = (outside, inside) {
            ways.push((outside.balancer, (HOST, inside.balancer.port()).into()));
            ways.extend(
                outside
                    .brokers
                    .iter()
                    .copied()
                    .zip(inside.brokers.iter().copied()),
            );
        }
    }
    ways.extend(ports.extra.iter().copied().zip(inside.extra.iter().copied()));
    ways
}

fn node_address(node: usize) -> Ipv4Addr {
    let [a, b, c, _] = HOST.octets();
    // A lab has at most 40 brokers.
    let last = u8::try_from(node).map_or(u8::MAX, |node| node.saturating_add(FIRST_NODE));
    Ipv4Addr::new(a, b, c, last)
}

/// The switch's end of the cable to a node.
fn port(node: usize) -> String {
    format!("node{node}")
}

/// Commands for `ip` in the switch: the bridge and a cable to everyone.
fn cables(host: &Namespace, nodes: &[Namespace]) -> String {
    let mut text = "link add mesh type bridge\nlink set mesh up\n".to_owned();
    let nodes = nodes
        .iter()
        .enumerate()
        .map(|(node, namespace)| (port(node), namespace));
    for (port, namespace) in nodes.chain([("host".to_owned(), host)]) {
        let path = namespace.path();
        // Writing to a String cannot fail.
        write!(
            text,
            "link add {port} type veth peer name eth0 netns {path}\nlink set {port} master mesh up\n"
        )
        .ok();
    }
    text
}

fn plug_in(namespace: &Namespace, addresses: &[Ipv4Addr]) -> io::Result<()> {
    let mut commands = String::new();
    for address in addresses {
        commands += &format!("addr add {address}/24 dev eth0\n");
    }
    commands += "link set eth0 up\n";
    namespace.command("ip", &["-batch", "-"], &commands)
}

/// Commands for `nft` in the switch that replace in one step what it drops.
fn filter(cuts: &Cuts) -> String {
    let mut rules = String::new();
    for node in &cuts.nodes {
        let port = port(*node);
        rules += &format!("iifname {port} drop\noifname {port} drop\n");
    }
    for (node, percent) in &cuts.losses {
        let port = port(*node);
        rules += &format!("iifname {port} numgen random mod 100 < {percent} drop\n");
        rules += &format!("oifname {port} numgen random mod 100 < {percent} drop\n");
    }
    for (from, to) in &cuts.ways {
        rules += &format!("iifname {} oifname {} drop\n", port(*from), port(*to));
    }
    format!(
        "table bridge lab\ndelete table bridge lab\n\
         table bridge lab {{\nchain forward {{\ntype filter hook forward priority 0\n{rules}}}\n}}\n"
    )
}

#[cfg(test)]
mod tests;
