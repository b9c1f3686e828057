//! Ways from 127.0.0.1 into the host namespace, so that a lab in namespaces is used like one on loopback.
//!
//! A connection goes on from inside the host namespace, through the switch like any other: a node that is cut
//! off is cut off from here too.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::namespace::Namespace;
use super::namespaces::connect;
use crate::error::LabError;

/// The ways; they close when this is dropped.
#[derive(Debug)]
pub(super) struct Forwarders(Vec<JoinHandle<()>>);

impl Forwarders {
    /// Opens a way from each port of 127.0.0.1 to an address inside. Must be called on an executor.
    pub(super) fn start(host: &Arc<Namespace>, ways: &[(u16, SocketAddr)]) -> Result<Self, LabError> {
        let mut forwarders = Self(Vec::new());
        for (port, inside) in ways {
            let listener = listen(*port).map_err(LabError::io(format!("listen on port {port}")))?;
            forwarders
                .0
                .push(tokio::spawn(serve(listener, Arc::clone(host), *inside)));
        }
        Ok(forwarders)
    }
}

impl Drop for Forwarders {
    fn drop(&mut self) {
        for way in &self.0 {
            way.abort();
        }
    }
}

fn listen(port: u16) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn serve(listener: TcpListener, host: Arc<Namespace>, inside: SocketAddr) {
    // Dropped with this task, it ends every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // A connection that failed before it was accepted is its client's affair.
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, Arc::clone(&host), inside));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Whatever ends one side ends the other; there is nobody to tell more.
async fn carry(mut client: TcpStream, host: Arc<Namespace>, inside: SocketAddr) -> io::Result<()> {
    let mut server = connect(&host, inside).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
