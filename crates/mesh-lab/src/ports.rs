//! Ports that are free, and who has them if they are not.
//!
//! Labs that run at the same time, in one test program or in several, take their ports from blocks of 100. A
//! block belongs to whoever holds the lock on its file in the folder for temporary files; the operating system
//! drops the lock with the process, so a block is never lost.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};

use crate::error::LabError;

/// Blocks begin here: below the ports that Linux and macOS give to outgoing connections (32768 and 49152), and
/// away from the lab's own 18830.
const FIRST: u16 = 20_000;
const LAST: u16 = 31_900;
const SIZE: u16 = 100;
/// A lab uses one port below its base.
const BASE: u16 = 10;

/// A block of ports that no other lab takes while this value lives.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    _lock: File,
}

impl PortBlock {
    /// Reserves a block all of whose ports are free.
    ///
    /// # Errors
    ///
    /// [`LabError::NoPorts`] if there is none.
    pub fn reserve() -> Result<Self, LabError> {
        let uid = rustix::process::getuid().as_raw();
        let folder = std::env::temp_dir().join(format!("mesh-lab-ports-{uid}"));
        std::fs::create_dir_all(&folder)
            .map_err(LabError::io(format!("make the folder {}", folder.display())))?;
        let blocks = (LAST - FIRST) / SIZE;
        // Programs begin at different blocks, so that each finds one at its first try.
        let start = (std::process::id() % u32::from(blocks)) as u16;
        for step in 0..blocks {
            let first = FIRST + (start + step) % blocks * SIZE;
            let path = folder.join(first.to_string());
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.map_err(LabError::io(format!("open {}", path.display())))?;
            if file.try_lock().is_ok() && (first..first + SIZE).all(is_free) {
                return Ok(Self { first, _lock: file });
            }
        }
        Err(LabError::NoPorts {
            first: FIRST,
            last: LAST,
        })
    }

    /// The base port for a lab on this block.
    pub fn base(&self) -> u16 {
        self.first + BASE
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Checks that `port`, needed for `what`, can be listened on.
pub(crate) fn check(port: u16, what: &str) -> Result<(), LabError> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Err(LabError::PortTaken {
            port,
            what: what.to_owned(),
            owner: owner(port).unwrap_or_else(|| "another program".to_owned()),
        }),
        Err(error) => Err(LabError::io(format!("listen on port {port} ({what})"))(error)),
    }
}

/// The program that listens on `port`, as far as `/proc` tells.
#[cfg(target_os = "linux")]
fn owner(port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let local = columns.get(1)?.rsplit_once(':')?.1;
            let matches = u16::from_str_radix(local, 16) == Ok(port) && columns.get(3) == Some(&LISTEN);
            matches.then(|| columns.get(9).copied().map(str::to_owned))?
        })
    })?;
    let socket = format!("socket:[{inode}]");
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        files.find(|file| std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*socket))?;
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(format!("{} (pid {pid})", name.trim_end()))
    })
}

#[cfg(not(target_os = "linux"))]
fn owner(_port: u16) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_blocks_are_never_the_same() {
        let one = PortBlock::reserve().unwrap();
        let two = PortBlock::reserve().unwrap();
        assert_ne!(one.base(), two.base());
    }

    #[test]
    fn a_taken_port_is_refused_with_its_owner() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let message = check(port, "balancer").unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("port {port} (balancer) is already in use by ")),
            "{message}"
        );
        if cfg!(target_os = "linux") {
            assert!(
                message.contains(&format!("(pid {})", std::process::id())),
                "{message}"
            );
        }
        drop(listener);
        check(port, "balancer").unwrap();
    }
}
