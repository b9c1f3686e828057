//! The socket behind a bridge of this broker, which the plugin API does not tell.
//!
//! It is found among the process's own descriptors by the address of its remote end, while the link is up (a
//! socket that was reset has no remote end any more), and known again by its inode. Only Linux lets read what
//! arrived before a connection was reset.

use std::fs;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::{RecvFlags, getpeername, recv};

/// With more descriptors than this the search is not made: it would hold up the broker for too long.
const MOST_DESCRIPTORS: usize = 1 << 16;

/// So much is asked of the kernel at once.
const CHUNK: usize = 64 << 10;

/// A connected socket of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Socket {
    descriptor: RawFd,
    /// Tells it from a later one with the same number.
    inode: u64,
}

impl Socket {
    /// The only one whose remote end is `address`; `None` if there is none or more than one.
    pub fn connected_to(address: SocketAddr) -> Option<Self> {
        let mut found = None;
        // No disk is asked for what is below /proc.
        for (number, entry) in fs::read_dir("/proc/self/fd").ok()?.enumerate() {
            let descriptor: RawFd = entry.ok()?.file_name().to_str()?.parse().ok()?;
            if number >= MOST_DESCRIPTORS {
                return None;
            }
            if remote_end(descriptor) == Some(address) && found.replace(descriptor).is_some() {
                return None;
            }
        }
        let descriptor = found?;
        let inode = inode(descriptor)?;
        Some(Self { descriptor, inode })
    }

    /// Takes out what has arrived and was not read, at most `most` bytes and a bit. Nothing, if the socket is gone.
    pub fn drain(self, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        if inode(self.descriptor) != Some(self.inode) {
            return bytes;
        }
        let mut chunk = [MaybeUninit::uninit(); CHUNK];
        while bytes.len() < most {
            match recv(borrow(self.descriptor), &mut chunk, RecvFlags::DONTWAIT) {
                Ok(((read, _), _)) if !read.is_empty() => bytes.extend_from_slice(read),
                Err(Errno::INTR) => {}
                // The end, nothing more, or the error of the broken connection.
                Ok(_) | Err(_) => break,
            }
        }
        bytes
    }
}

fn remote_end(descriptor: RawFd) -> Option<SocketAddr> {
    getpeername(borrow(descriptor)).ok()??.try_into().ok()
}

fn inode(descriptor: RawFd) -> Option<u64> {
    fstat(borrow(descriptor)).ok().map(|stat| stat.st_ino)
}

fn borrow<'a>(descriptor: RawFd) -> BorrowedFd<'a> {
    // SAFETY: it is not -1, being the name of a file in /proc/self/fd, and is used for one system call. Descriptors of
    // connections are opened and closed on this thread only; about others (the resolver's) it is only asked where
    // they lead to, and the answer is at worst EBADF.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_arrived_before_the_end_is_read_from_the_right_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(Socket::connected_to(address), None);
        let near = TcpStream::connect(address).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let socket = Socket::connected_to(address).unwrap();
        assert_eq!(socket.drain(1 << 20), b"");
        let sent: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
        far.write_all(&sent).unwrap();
        drop(far);
        let mut all = Vec::new();
        while all.len() < sent.len() {
            all.extend(socket.drain(1 << 20));
        }
        assert!(all == sent);
        drop(near);
        assert_eq!(socket.drain(1 << 20), b"", "a closed socket is not read");
    }

    #[test]
    fn one_of_two_is_not_guessed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _both = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        assert_eq!(Socket::connected_to(address), None);
    }
}
