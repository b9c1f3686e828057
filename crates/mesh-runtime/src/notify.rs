//! Telling the service manager how it goes: systemd's `sd_notify` protocol.
//!
//! Guarantees: nothing happens where no service manager listens (`NOTIFY_SOCKET` is not set); sending never blocks,
//! since the watchdog is fed by the very loop that must not be held up; what cannot be sent is told to the caller.
//! (The crate `sd-notify` sends on a blocking socket, and one datagram socket is all that there is to it.)

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The variables by which a service manager speaks to its service. Children must not inherit them: what they say
/// would be taken for ours.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// One thing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State<'a> {
    /// The start is over; dependants may begin.
    Ready,
    /// How it goes, in a sentence for people.
    Status(&'a str),
    /// The watchdog need not bite yet.
    Watchdog,
    /// The end has begun.
    Stopping,
    /// The start takes this much longer, counted from now.
    ExtendTimeout(Duration),
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            // The protocol's lines end at a newline.
            Self::Status(text) => write!(f, "STATUS={}", text.replace('\n', " ")),
            Self::Watchdog => f.write_str("WATCHDOG=1"),
            Self::Stopping => f.write_str("STOPPING=1"),
            Self::ExtendTimeout(more) => write!(f, "EXTEND_TIMEOUT_USEC={}", more.as_micros()),
        }
    }
}

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The service manager that the environment of this process names.
    ///
    /// # Errors
    ///
    /// If `NOTIFY_SOCKET` is set to what is no address.
    pub fn from_env() -> io::Result<Self> {
        Self::new(|name| std::env::var_os(name))
    }

    /// As [`Self::from_env`], with the variables given by `variable`.
    ///
    /// # Errors
    ///
    /// As [`Self::from_env`].
    pub fn new(variable: impl Fn(&str) -> Option<OsString>) -> io::Result<Self> {
        let [socket, usec, pid] = VARIABLES.map(variable);
        let Some(socket) = socket.filter(|path| !path.is_empty()) else {
            return Ok(Self::default());
        };
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(true)?;
        let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
        let is_meant = pid.is_none_or(|pid| number(pid) == Some(std::process::id().into()));
        let watchdog = usec.and_then(number).filter(|usec| *usec > 0 && is_meant);
        Ok(Self {
            manager: Some((sender, address(&socket)?)),
            watchdog: watchdog.map(Duration::from_micros),
        })
    }

    /// Whether there is a service manager.
    pub fn is_heard(&self) -> bool {
        self.manager.is_some()
    }

    /// The silence after which the service manager takes this program to be stuck, if it watches at all.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells all of `states` in one message, without waiting.
    ///
    /// # Errors
    ///
    /// If the service manager cannot take it now; the message is lost then.
    pub fn send(&self, states: &[State<'_>]) -> io::Result<()> {
        let Some((sender, manager)) = &self.manager else {
            return Ok(());
        };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        sender.send_to_addr(lines.join("\n").as_bytes(), manager)?;
        Ok(())
    }
}

/// A path, or after an `@` a name in Linux's abstract namespace.
fn address(text: &OsStr) -> io::Result<SocketAddr> {
    match text.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(text),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("NOTIFY_SOCKET {text:?} is neither a path nor an abstract name"),
        )),
    }
}

/// Tells the service manager that the start is over, and from then on how it goes and that the program lives; when
/// `token` is cancelled, that the end has begun.
pub async fn tell(how_it_goes: impl Fn() -> String, token: CancellationToken) {
    let notifier = Notifier::from_env().unwrap_or_default();
    let mut ready = vec![State::Ready];
    let every = notifier
        .watchdog()
        .map_or(Duration::from_secs(1), |watchdog| watchdog / 3);
    while !token.is_cancelled() {
        let sentence = how_it_goes();
        let mut states = ready.clone();
        states.extend([State::Watchdog, State::Status(&sentence)]);
        match notifier.send(&states) {
            Ok(()) => ready.clear(),
            Err(error) => tracing::debug!(%error, "the service manager does not listen"),
        }
        token.run_until_cancelled(tokio::time::sleep(every)).await;
    }
    notifier.send(&[State::Stopping]).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notifier(pairs: &[(&str, &OsStr)]) -> io::Result<Notifier> {
        let find = |name: &str| pairs.iter().find(|(key, _)| *key == name);
        Notifier::new(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn what_is_told_arrives_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.as_os_str())]).unwrap();
        let extend = State::ExtendTimeout(Duration::from_secs(2));
        notifier
            .send(&[State::Ready, State::Status("well\nREADY=0"), extend])
            .unwrap();
        assert_eq!(
            receive(&manager),
            "READY=1\nSTATUS=well READY=0\nEXTEND_TIMEOUT_USEC=2000000"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_told_arrives_at_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("mesh-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", OsStr::new(&format!("@{name}")))]).unwrap();
        notifier.send(&[State::Watchdog]).unwrap();
        assert_eq!(receive(&manager), "WATCHDOG=1");
    }

    #[test]
    fn a_manager_that_does_not_listen_holds_nobody_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(&[("NOTIFY_SOCKET", path.as_os_str())]).unwrap();
        // The queue of a datagram socket is finite; a blocking sender would hang here.
        let full = (0..100_000).find_map(|_| notifier.send(&[State::Watchdog]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(manager);
        assert!(notifier.send(&[State::Stopping]).is_err());
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let [socket, usec] = ["/run/x", "3000000"].map(OsStr::new);
        let me = std::process::id().to_string();
        let watchdog = |pid: Option<&str>, usec: &OsStr| {
            let mut pairs = vec![("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", usec)];
            pairs.extend(pid.map(|pid| ("WATCHDOG_PID", OsStr::new(pid))));
            notifier(&pairs).unwrap().watchdog()
        };
        let three = Some(Duration::from_secs(3));
        assert_eq!(watchdog(None, usec), three);
        assert_eq!(watchdog(Some(&me), usec), three);
        assert_eq!(watchdog(Some("1"), usec), None);
        assert_eq!(watchdog(None, OsStr::new("soon")), None);
    }

    #[test]
    fn without_a_manager_nothing_happens_and_a_wrong_address_is_an_error() {
        let nobody = notifier(&[("WATCHDOG_USEC", OsStr::new("1"))]).unwrap();
        assert!(!nobody.is_heard());
        assert_eq!(nobody.watchdog(), None);
        nobody.send(&[State::Ready]).unwrap();
        assert!(notifier(&[("NOTIFY_SOCKET", OsStr::new("vsock:2:1"))]).is_err());
    }
}
