//! Where the processes of a lab live: all on 127.0.0.1, or each broker in a network namespace of its own.

#[cfg(target_os = "linux")]
mod forward;
mod loopback;
#[cfg(target_os = "linux")]
mod namespace;
#[cfg(target_os = "linux")]
mod namespaces;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, Command};

use tokio::net::TcpStream;

use crate::error::LabError;
use crate::layout::{Door, Ports};

pub use loopback::brokers_of;

/// Which network a lab has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Net {
    /// Everything on 127.0.0.1, with ports in a row. Needs no rights; nothing can be cut off.
    #[default]
    Loopback,
    /// A network namespace for each broker, with the addresses of a real deployment. Needs root on Linux.
    Namespaces,
}

/// Where a process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the host, where Nginx and the daemons are.
    Host,
    /// On the node of the broker with this place in the order.
    Node(usize),
}

/// The addresses that the programs of a lab use among themselves.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) brokers: Vec<SocketAddr>,
    pub(crate) balancer: SocketAddr,
    pub(crate) readback: SocketAddr,
    pub(crate) health: SocketAddr,
    pub(crate) dashboard: SocketAddr,
    pub(crate) logs: SocketAddr,
    /// Where the extra processes listen.
    pub(crate) extra: Vec<SocketAddr>,
    pub(crate) websockets: Option<Door<SocketAddr>>,
    pub(crate) tls: Option<Door<SocketAddr>>,
    /// The source of Nginx's connections to brokers.
    pub(crate) proxy_bind: Option<IpAddr>,
}

/// The network of a running lab.
#[derive(Debug)]
pub(crate) enum Network {
    Loopback,
    #[cfg(target_os = "linux")]
    Namespaces(Box<namespaces::Namespaces>),
}

impl Network {
    /// Makes the network for the lab on `ports`; in namespaces, `127.0.0.1` of this process leads into it.
    pub(crate) fn new(net: Net, ports: &Ports) -> Result<(Self, Addresses), LabError> {
        match net {
            Net::Loopback => Ok((Self::Loopback, Addresses::loopback(ports))),
            #[cfg(target_os = "linux")]
            Net::Namespaces => {
                let network = namespaces::Namespaces::new(ports)?;
                let addresses = network.addresses().clone();
                Ok((Self::Namespaces(Box::new(network)), addresses))
            }
            #[cfg(not(target_os = "linux"))]
            Net::Namespaces => Err(LabError::Net(
                "network namespaces exist on Linux only; run the lab without --netns".to_owned(),
            )),
        }
    }

    /// Starts `command` at `place`.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "there is one place")
    )]
    pub(crate) fn spawn(&self, place: Place, mut command: Command) -> io::Result<Child> {
        match self {
            Self::Loopback => command.spawn(),
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.at(place, move || command.spawn())?,
        }
    }

    /// Whether somebody at `place` listens on `address`, which belongs to that place.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "there is one place")
    )]
    pub(crate) fn listens(&self, place: Place, address: SocketAddr) -> bool {
        let connect = move || std::net::TcpStream::connect(address).is_ok();
        match self {
            Self::Loopback => connect(),
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.at(place, connect).unwrap_or(false),
        }
    }

    /// Connects to `address` as a program at `place` would.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "there is one place")
    )]
    pub(crate) async fn connect(&self, place: Place, address: SocketAddr) -> io::Result<TcpStream> {
        match self {
            Self::Loopback => TcpStream::connect(address).await,
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.connect(place, address).await,
        }
    }

    /// Cuts the node off from everyone, or from one other node, without a word to anyone.
    pub(crate) fn cut(&self, node: usize, from: Option<usize>) -> Result<(), LabError> {
        match self {
            Self::Loopback => Err(loopback::cannot_cut(node, from)),
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.cut(node, from),
        }
    }

    /// Drops what one node sends to another one, without a word to anyone.
    pub(crate) fn cut_way(&self, from: usize, to: usize) -> Result<(), LabError> {
        match self {
            Self::Loopback => Err(loopback::cannot_cut(to, Some(from))),
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.cut_way(from, to),
        }
    }

    /// Drops so many of a hundred packets from and to one node.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "nothing can be done to it")
    )]
    pub(crate) fn loss(&self, node: usize, percent: u8) -> Result<(), LabError> {
        match self {
            Self::Loopback => Err(loopback::cannot_cut(node, None)),
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.loss(node, percent),
        }
    }

    /// Lets no more than so many thousand bits a second through to one node, and from it.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(unused_variables, reason = "nothing can be done to it")
    )]
    pub(crate) fn slow(&self, node: usize, kbit: u32) -> Result<(), LabError> {
        match self {
            Self::Loopback => Err(loopback::cannot_cut(node, None)),
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.slow(node, kbit),
        }
    }

    /// Undoes all of them.
    pub(crate) fn heal(&self, node: usize, from: Option<usize>) -> Result<(), LabError> {
        match self {
            Self::Loopback => Err(loopback::cannot_cut(node, from)),
            #[cfg(target_os = "linux")]
            Self::Namespaces(network) => network.heal(node, from),
        }
    }
}
