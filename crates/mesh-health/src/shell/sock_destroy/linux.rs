//! The conversation with the kernel.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{connect, recv, send, socket_with};

use super::{Destroyed, DiagError, Socket};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` of `linux/sock_diag.h`.
const LIST: u16 = 20;
const DESTROY: u16 = 21;

/// `NLMSG_ERROR` and `NLMSG_DONE` of `linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `NLM_F_REQUEST`, with `NLM_F_ACK` and with `NLM_F_DUMP`.
const REQUEST_ACK: u16 = 0x1 | 0x4;
const REQUEST_DUMP: u16 = 0x1 | 0x300;

const HEADER: usize = 16;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// ESTABLISHED, SYN-SENT and CLOSE-WAIT, as bits.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 8;

/// Requests in one message to the kernel. Each is answered with a message of its own, and all answers must fit
/// into our receive buffer (about 200 KiB) before we read the first.
const BATCH: usize = 64;

/// The kernel answers while we send, so this is only reached if something is badly wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// A conversation with the kernel about the sockets of this network namespace. Its calls block, for
/// microseconds a socket.
#[derive(Debug)]
pub struct Diag {
    socket: OwnedFd,
    sequence: u32,
}

impl Diag {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// [`DiagError::Open`].
    pub fn open() -> Result<Self, DiagError> {
        let open = || {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
            connect(&socket, &SocketAddrNetlink::new(0, 0))?;
            set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
            Ok(socket)
        };
        let socket = open().map_err(|error: Errno| DiagError::Open(error.into()))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// All connections of this machine to `remote`, whoever owns them.
    ///
    /// # Errors
    ///
    /// [`DiagError::List`] or [`DiagError::Talk`].
    pub fn connections_to(&mut self, remote: SocketAddr) -> Result<Vec<Socket>, DiagError> {
        let mut id = [0; 48];
        // The kernel filters by port, we by address.
        id[2..4].copy_from_slice(&remote.port().to_be_bytes());
        self.sequence += 1;
        let mut request = Vec::new();
        put(
            &mut request,
            LIST,
            REQUEST_DUMP,
            self.sequence,
            family_of(remote),
            &id,
        );
        self.send(&request)?;
        let mut found = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = self.receive(&mut buffer)?;
            for message in messages(&buffer[..length]) {
                match message.kind {
                    _ if message.sequence != self.sequence => {}
                    LIST => found.extend(socket_of(message.body).filter(|s| ends_at(s, remote))),
                    DONE | ERROR => {
                        return match errno(message.body) {
                            0 => Ok(found),
                            number => Err(DiagError::List(io::Error::from_raw_os_error(number))),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// Destroys `sockets`.
    ///
    /// # Errors
    ///
    /// [`DiagError::Destroy`] at the first that the kernel refuses to destroy, or [`DiagError::Talk`]; some
    /// may be destroyed then.
    pub fn destroy<'a>(
        &mut self,
        sockets: impl IntoIterator<Item = &'a Socket>,
    ) -> Result<Destroyed, DiagError> {
        let mut sum = Destroyed::default();
        let mut sockets = sockets.into_iter().peekable();
        while sockets.peek().is_some() {
            let mut request = Vec::new();
            let first = self.sequence + 1;
            for socket in sockets.by_ref().take(BATCH) {
                self.sequence += 1;
                let family = family_of(socket.remote);
                put(
                    &mut request,
                    DESTROY,
                    REQUEST_ACK,
                    self.sequence,
                    family,
                    &socket.id,
                );
            }
            self.send(&request)?;
            self.collect(first, &mut sum)?;
        }
        Ok(sum)
    }

    /// Reads the answers to the requests from number `first` on.
    fn collect(&self, first: u32, sum: &mut Destroyed) -> Result<(), DiagError> {
        let mut open = (self.sequence + 1 - first) as usize;
        let mut buffer = vec![0; 8 * 1024];
        while open > 0 {
            let length = self.receive(&mut buffer)?;
            let answers = messages(&buffer[..length])
                .filter(|answer| answer.kind == ERROR && (first..=self.sequence).contains(&answer.sequence));
            for answer in answers {
                open = open.saturating_sub(1);
                match errno(answer.body) {
                    0 => sum.destroyed += 1,
                    gone if gone == Errno::NOENT.raw_os_error() => sum.gone += 1,
                    refused => return Err(DiagError::Destroy(io::Error::from_raw_os_error(refused))),
                }
            }
        }
        Ok(())
    }

    fn send(&self, request: &[u8]) -> Result<(), DiagError> {
        let sent = retry_on_intr(|| send(&self.socket, request, SendFlags::empty()));
        sent.map(drop).map_err(|error| DiagError::Talk(error.into()))
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<usize, DiagError> {
        let received = retry_on_intr(|| recv(&self.socket, &mut *buffer, RecvFlags::empty()));
        match received {
            Ok((0, _)) => Err(DiagError::Talk(io::ErrorKind::UnexpectedEof.into())),
            Ok((length, _)) => Ok(length),
            Err(error) => Err(DiagError::Talk(error.into())),
        }
    }
}

/// Whether that is the other end; the scope of an IPv6 address is not part of what the kernel lists.
fn ends_at(socket: &Socket, remote: SocketAddr) -> bool {
    (socket.remote.ip(), socket.remote.port()) == (remote.ip(), remote.port())
}

fn family_of(address: SocketAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// Adds a `struct nlmsghdr` and a `struct inet_diag_req_v2`.
fn put(request: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, id: &[u8; 48]) {
    let length = (HEADER + 8 + id.len()) as u32;
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend(sequence.to_ne_bytes());
    request.extend([0; 4]);
    request.extend([family, IPPROTO_TCP, 0, 0]);
    request.extend(STATES.to_ne_bytes());
    request.extend(id);
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages in what was received. Each begins on a multiple of four.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0)? as usize;
        let body = bytes.get(HEADER..length)?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = word(bytes, 8)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, body })
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What the answer of an `ERROR` or `DONE` says; 0 is success.
fn errno(body: &[u8]) -> i32 {
    word(body, 0).map_or(0, |negative| (negative as i32).wrapping_neg())
}

/// Reads a `struct inet_diag_msg`.
fn socket_of(body: &[u8]) -> Option<Socket> {
    let id: [u8; 48] = body.get(4..52)?.try_into().ok()?;
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes([id[port], id[port + 1]]);
        let address: [u8; 16] = id[address..address + 16].try_into().ok()?;
        let ip = match *body.first()? {
            AF_INET => IpAddr::V4(Ipv4Addr::from_octets(*address.first_chunk()?)),
            AF_INET6 => IpAddr::V6(Ipv6Addr::from_octets(address)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    };
    Some(Socket {
        local: end(0, 4)?,
        remote: end(2, 20)?,
        uid: word(body, 64)?,
        inode: word(body, 68)?,
        id,
    })
}
