//! Closing TCP connections of other processes, by the kernel's `SOCK_DIAG` interface over netlink.
//!
//! A hung broker closes nothing, and Nginx keeps a session for as long as its kernel and the broker's kernel agree
//! that it lives. `SOCK_DESTROY` ends one side of a connection as if the network had: its owner reads an error, the
//! other side gets a reset if it can be reached. It needs `CAP_NET_ADMIN`.
//!
//! Guarantees: a socket is destroyed only if it is the very one that was listed (the kernel compares a cookie that
//! no second socket ever has), so a port that was taken by somebody else meanwhile is safe; only connections that
//! their owner still uses are listed: established, being established, or closed by the other side. What the owner
//! itself has closed (FIN-WAIT, LAST-ACK, TIME-WAIT) holds no session.
//!
//! The structures are those of `linux/netlink.h`, `linux/sock_diag.h` and `linux/inet_diag.h`, written and read as
//! bytes; no `unsafe` is needed for that.

use std::io;
use std::net::SocketAddr;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::Diag;

/// A TCP connection as the kernel lists it.
#[derive(Debug, Clone)]
pub struct Socket {
    /// The owner's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// The number by which it appears in `/proc/<pid>/fd` of its owner.
    pub inode: u32,
    /// The user who made it.
    pub uid: u32,
    /// `struct inet_diag_sockid`, with the cookie.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "nothing is destroyed here")
    )]
    id: [u8; 48],
}

/// What became of sockets that were to be destroyed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Destroyed {
    /// Those that were.
    pub destroyed: usize,
    /// Those that were gone before.
    pub gone: usize,
}

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// There is no such interface for us.
    #[error("cannot open a socket of NETLINK_SOCK_DIAG")]
    Open(#[source] io::Error),
    /// A message did not get through, either way.
    #[error("cannot talk to the kernel by NETLINK_SOCK_DIAG")]
    Talk(#[source] io::Error),
    /// The kernel does not list sockets.
    #[error("the kernel does not list TCP sockets")]
    List(#[source] io::Error),
    /// The kernel does not destroy a socket.
    #[error("the kernel does not destroy a socket")]
    Destroy(#[source] io::Error),
}

/// Elsewhere there is nothing like it.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub struct Diag(std::convert::Infallible);

#[cfg(not(target_os = "linux"))]
impl Diag {
    /// Fails.
    ///
    /// # Errors
    ///
    /// [`DiagError::Open`] always.
    pub fn open() -> Result<Self, DiagError> {
        Err(DiagError::Open(io::ErrorKind::Unsupported.into()))
    }

    /// Never reached.
    ///
    /// # Errors
    ///
    /// None.
    pub fn connections_to(&mut self, _remote: SocketAddr) -> Result<Vec<Socket>, DiagError> {
        match self.0 {}
    }

    /// Never reached.
    ///
    /// # Errors
    ///
    /// None.
    pub fn destroy<'a>(
        &mut self,
        _sockets: impl IntoIterator<Item = &'a Socket>,
    ) -> Result<Destroyed, DiagError> {
        match self.0 {}
    }
}
