//! The processes of one Nginx, and which connections are theirs.
//!
//! **By open files**, where `/proc/<pid>/fd` can be read: as root, with `CAP_SYS_PTRACE`, or as the user of Nginx's
//! workers if they were started as that user. A process is of this Nginx if its parent is the master, or if it has
//! a file below `balancer.dir` open, such as the log: so workers that outlived their master are found too, and
//! those of another Nginx are not. This is exact.
//!
//! **By user** else: a connection is Nginx's if it was made by the user of the workers, which the kernel tells to
//! everyone, and, if `balancer.proxy_bind` is set, from that address. Our own connections never count. Where the
//! user tells nothing, because the workers run as root or as we do, and there is no `proxy_bind` either, nothing is
//! closed and that is said.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use rustix::process::Pid;

use crate::shell::sock_destroy::Socket;

/// The most time between the starts of two workers of one generation, in ticks of 10 ms; two generations are
/// at least 100 ms apart.
const SAME_GENERATION: u64 = 8;

/// The age of a master, in ticks, below which its first two generations may be less than that apart. Afterwards
/// the first has been told to stop.
const YOUNG: u64 = 30;

/// Tells Nginx's connections from those of others.
#[derive(Debug)]
pub(super) enum Owner {
    /// By the inodes of open sockets.
    Files(BTreeSet<u32>),
    /// By the user, and the source address if Nginx has one of its own.
    User {
        users: BTreeSet<u32>,
        ours: BTreeSet<u32>,
        source: Option<IpAddr>,
    },
}

impl Owner {
    /// Looks at the processes of the Nginx with this master, if it lives, and folder.
    pub(super) fn find(master: Option<Pid>, dir: &Path, source: Option<IpAddr>) -> Result<Self, String> {
        let failed = |error| format!("cannot tell which processes are Nginx's: {error}");
        let all = nginx_processes().map_err(failed)?;
        let is_child = |process: &Process| Some(process.parent) == master;
        let is_orphan = |process: &Process| {
            !all.iter().any(|other| other.pid == process.parent)
                && title(process.pid).is_some_and(|title| title.contains("worker process"))
        };
        let mut inodes = BTreeSet::new();
        let mut hidden = Vec::new();
        for process in &all {
            match OpenFiles::of(process.pid, dir) {
                Ok(files) if files.has_one_below || is_child(process) => inodes.extend(files.sockets),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    if is_child(process) || is_orphan(process) {
                        hidden.push(process.pid);
                    }
                }
                // It has ended meanwhile, and its connections with it.
                Err(_) => {}
            }
        }
        if hidden.is_empty() {
            return Ok(Self::Files(inodes));
        }
        let users: BTreeSet<u32> = hidden.into_iter().filter_map(user_of).collect();
        let ours = rustix::process::geteuid().as_raw();
        if source.is_none() && (users.contains(&0) || users.contains(&ours)) {
            return Err(
                "cannot tell Nginx's connections from others: its workers run as root or as mesh-health does, \
                 and their open files may not be read; set balancer.proxy_bind, or run Nginx's workers as a \
                 user of their own (balancer.user), or give mesh-health CAP_SYS_PTRACE"
                    .to_owned(),
            );
        }
        let ours = OpenFiles::of(rustix::process::getpid(), dir).map_err(failed)?;
        Ok(Self::User {
            users,
            ours: ours.sockets,
            source,
        })
    }

    /// Whether `socket` is Nginx's.
    pub(super) fn owns(&self, socket: &Socket) -> bool {
        match self {
            Self::Files(inodes) => inodes.contains(&socket.inode),
            Self::User { users, ours, source } => {
                users.contains(&socket.uid)
                    && !ours.contains(&socket.inode)
                    && source.is_none_or(|source| socket.local.ip() == source)
            }
        }
    }

    /// How it is told, for the log.
    pub(super) fn told_by(&self) -> &'static str {
        match self {
            Self::Files(_) => "open files",
            Self::User { source: None, .. } => "user",
            Self::User { source: Some(_), .. } => "user and source address",
        }
    }
}

/// The workers of `master` that accept clients and are older than its newest generation.
pub(super) fn old_that_accept(master: Pid) -> Vec<Pid> {
    let accepts = |process: &Process| match title(process.pid) {
        // A worker that was made this instant has its master's title still.
        Some(title) => !title.contains("is shutting down") && !title.contains("cache"),
        None => false,
    };
    let mut accepting: Vec<Process> = children(master).into_iter().filter(accepts).collect();
    accepting.sort_by_key(|process| std::cmp::Reverse(process.started));
    let starts: Vec<u64> = accepting.iter().map(|process| process.started).collect();
    let newest = newest_generation(&starts);
    accepting
        .split_off(newest)
        .iter()
        .map(|process| process.pid)
        .collect()
}

/// Whether `master` was started so shortly ago that generations cannot be told apart yet.
pub(super) fn is_young(master: Pid) -> bool {
    let age = || {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let seconds: f64 = uptime.split(' ').next()?.parse().ok()?;
        Some(((seconds * 100.0) as u64).saturating_sub(Process::nginx(master)?.started))
    };
    age().is_some_and(|age| age < YOUNG)
}

/// How many of the first of `starts`, which fall, are close together.
fn newest_generation(starts: &[u64]) -> usize {
    let gap = starts
        .windows(2)
        .position(|pair| pair[0] - pair[1] > SAME_GENERATION);
    gap.map_or(starts.len(), |last| last + 1)
}

/// The workers of `master` that only finish their sessions.
pub(super) fn shutting_down(master: Pid) -> Vec<Pid> {
    children(master)
        .iter()
        .map(|process| process.pid)
        .filter(|pid| title(*pid).is_some_and(|title| title.contains("is shutting down")))
        .collect()
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    parent: Pid,
    /// Ticks since the machine started.
    started: u64,
}

impl Process {
    /// The process `pid` if it is an Nginx and alive.
    fn nginx(pid: Pid) -> Option<Self> {
        let stat = std::fs::read_to_string(of(pid, "stat")).ok()?;
        // `1234 (nginx) S 1200 …`, where a name may hold brackets itself.
        let (head, tail) = stat.rsplit_once(") ")?;
        let (_, name) = head.split_once(" (")?;
        let fields: Vec<&str> = tail.split(' ').collect();
        if !name.contains("nginx") || matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        Some(Self {
            pid,
            parent: Pid::from_raw(fields.get(1)?.parse().ok()?)?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

fn nginx_processes() -> io::Result<Vec<Process>> {
    let number = |entry: std::fs::DirEntry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?);
    let entries = std::fs::read_dir("/proc")?.flatten();
    Ok(entries.filter_map(number).filter_map(Process::nginx).collect())
}

/// The processes that `master` has started.
fn children(master: Pid) -> Vec<Process> {
    let list = std::fs::read_to_string(of(master, &format!("task/{}/children", master.as_raw_nonzero())));
    match list {
        Ok(list) => list
            .split_whitespace()
            .filter_map(|child| Pid::from_raw(child.parse().ok()?))
            .filter_map(Process::nginx)
            .collect(),
        // Not every kernel keeps such a list.
        Err(_) => {
            let all = nginx_processes().unwrap_or_default();
            all.into_iter()
                .filter(|process| process.parent == master)
                .collect()
        }
    }
}

fn of(pid: Pid, file: &str) -> String {
    format!("/proc/{}/{file}", pid.as_raw_nonzero())
}

fn title(pid: Pid) -> Option<String> {
    let title = std::fs::read(of(pid, "cmdline")).ok()?;
    Some(String::from_utf8_lossy(&title).into_owned())
}

/// The user as whom a process makes sockets.
fn user_of(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(of(pid, "status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(3)?.parse().ok()
}

/// What a process has open.
struct OpenFiles {
    /// The inodes of its sockets.
    sockets: BTreeSet<u32>,
    /// Whether it has a file below the folder open.
    has_one_below: bool,
}

impl OpenFiles {
    fn of(pid: Pid, dir: &Path) -> io::Result<Self> {
        // Links show where a file really is.
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        let mut files = Self {
            sockets: BTreeSet::new(),
            has_one_below: false,
        };
        for entry in std::fs::read_dir(of(pid, "fd"))? {
            let Ok(target) = std::fs::read_link(entry?.path()) else {
                // Closed meanwhile.
                continue;
            };
            let socket = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            match socket {
                Some(inode) => {
                    files.sockets.insert(inode);
                }
                None => files.has_one_below |= target.starts_with(&dir),
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_told_apart_by_their_starts() {
        assert_eq!(newest_generation(&[]), 0);
        assert_eq!(newest_generation(&[500]), 1);
        assert_eq!(newest_generation(&[503, 502, 502, 490, 489]), 3);
        assert_eq!(newest_generation(&[508, 504, 500]), 3);
        // A slow machine takes longer for all of them than lies between two generations.
        assert_eq!(newest_generation(&[520, 514, 508, 502, 490]), 4);
    }
}
