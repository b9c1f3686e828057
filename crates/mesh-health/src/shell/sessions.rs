//! Moves sessions off a broker that no longer serves, by closing Nginx's own connections to it.
//!
//! A broker that hangs or is cut off closes nothing, and Nginx holds its clients there for ever; a reload only
//! concerns new clients. So the connections **of Nginx** to that broker are destroyed in the kernel: Nginx reads an
//! error, closes the client's side, and the client connects again, to the broker that serves now.
//!
//! Guarantees: nothing is closed but connections of this balancer's Nginx to the one broker that is named: no link
//! of another broker, no probe or canary, no client that passed Nginx by, no session on another broker. Whose a
//! connection is tells its owner (see [`workers`]).
//!
//! The order matters, and is the caller's: the new plan runs (its read-back says so), then
//! [`Sessions::old_workers_stopped`], then [`Sessions::close`], and that again after each of [`LOOK_AGAIN`].
//! Closed earlier, most clients come back through old workers, which still accept, and are stuck again.

mod workers;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use mesh_runtime::Config;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::nginx;
use super::probe::chain;
use super::sock_destroy::{Diag, DiagError, Socket};
use workers::Owner;

/// Pauses after a sweep before it is made again, each counted from the first: a worker that had just accepted a
/// client when it was told to stop may connect it to the old broker after the first sweep.
pub const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// Time between two looks at the workers.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long our own destroyed connection may take to show it. It does so at once.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);

/// What became of Nginx's connections to a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Those that were closed now.
    pub closed: usize,
    /// Those that are still there: what was more than at most to be closed.
    pub left: usize,
}

/// The sessions that Nginx holds.
#[derive(Debug, Clone)]
pub struct Sessions {
    dir: PathBuf,
    proxy_bind: Option<IpAddr>,
}

impl Sessions {
    /// Those of the Nginx that `config` describes.
    pub fn new(config: &Config) -> Self {
        Self {
            dir: config.balancer.dir.clone(),
            proxy_bind: config.balancer.proxy_bind,
        }
    }

    /// Proves that connections can be closed here, by making one of our own and destroying it.
    ///
    /// # Errors
    ///
    /// What is missing, and what to do about it.
    pub async fn capability(&self) -> Result<(), String> {
        blocking(|| prove().map_err(|error| remedy(&error))).await
    }

    /// Waits until every worker from before the last reload is gone or shuts down, so that none of them accepts.
    ///
    /// Workers of one generation are started one right after the other, and Nginx sleeps 100 ms between starting a
    /// new generation and telling the old one to stop: that gap between start times tells them apart, also when
    /// mesh-health has been restarted since. Only the first generation may be followed sooner, so in the first
    /// moments of an Nginx this waits a little longer.
    ///
    /// # Errors
    ///
    /// After `deadline`, with the workers that still accept; or if Nginx does not run.
    pub async fn old_workers_stopped(&self, deadline: Duration) -> Result<(), String> {
        let end = Instant::now() + deadline;
        loop {
            let master = self.master()?;
            let old = workers::old_that_accept(master);
            let is_late = Instant::now() >= end;
            if old.is_empty() && (is_late || !workers::is_young(master)) {
                return Ok(());
            }
            if is_late {
                return Err(format!(
                    "workers of Nginx from before the reload still accept clients after {deadline:?}: {}",
                    list(&old)
                ));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Closes Nginx's connections to a broker with these addresses, `at_most` so many, in one sweep.
    ///
    /// # Errors
    ///
    /// If the kernel does not let us, or if it cannot be told which connections are Nginx's. Nothing of anybody
    /// else is closed in any case.
    pub async fn close(&self, broker: &[SocketAddr], at_most: Option<usize>) -> Result<Closed, String> {
        let (this, broker) = (self.clone(), broker.to_vec());
        blocking(move || this.sweep(&broker, at_most)).await
    }

    /// How many connections Nginx has to a broker with these addresses.
    ///
    /// # Errors
    ///
    /// As [`Self::close`], but listing needs no rights.
    pub async fn count(&self, broker: &[SocketAddr]) -> Result<usize, String> {
        self.close(broker, Some(0)).await.map(|found| found.left)
    }

    /// Where [`Self::capability`] is missing: ends the workers that shut down, with all their sessions, and tells
    /// how many. That moves the sessions off a broker that was demoted with the last reload, since these are all
    /// in old workers; but an old worker may hold sessions of earlier generations on healthy brokers too, and
    /// those **are cut as well**.
    ///
    /// # Errors
    ///
    /// If Nginx does not run, or if its workers cannot be signalled.
    pub async fn close_by_ending_old_workers(&self) -> Result<usize, String> {
        let old = workers::shutting_down(self.master()?);
        let mut ended = 0;
        for pid in &old {
            match kill_process(*pid, Signal::TERM) {
                Ok(()) => ended += 1,
                Err(Errno::SRCH) => {}
                Err(error) => return Err(format!("cannot end the old workers {}: {error}", list(&old))),
            }
        }
        if ended > 0 {
            tracing::warn!(
                workers = ended,
                "ended old workers of Nginx; sessions on other brokers may have been cut with them"
            );
        }
        Ok(ended)
    }

    fn master(&self) -> Result<Pid, String> {
        nginx::master(&self.dir.join("nginx.pid")).map_err(|error| chain(&error))
    }

    fn sweep(&self, broker: &[SocketAddr], at_most: Option<usize>) -> Result<Closed, String> {
        let mut diag = Diag::open().map_err(|error| remedy(&error))?;
        // First the list, then the owners: whoever owns what is listed does so still, or it is gone.
        let mut all = Vec::new();
        for address in broker {
            all.extend(diag.connections_to(*address).map_err(|error| remedy(&error))?);
        }
        if all.is_empty() {
            return Ok(Closed { closed: 0, left: 0 });
        }
        let owner = Owner::find(self.master().ok(), &self.dir, self.proxy_bind)?;
        let of_nginx: Vec<&Socket> = all.iter().filter(|socket| owner.owns(socket)).collect();
        let chosen = at_most.unwrap_or(usize::MAX).min(of_nginx.len());
        let done = diag
            .destroy(of_nginx[..chosen].iter().copied())
            .map_err(|error| remedy(&error))?;
        tracing::debug!(
            ?broker,
            closed = done.destroyed,
            gone = done.gone,
            of_nginx = of_nginx.len(),
            all = all.len(),
            told_by = owner.told_by(),
            "closed connections of Nginx"
        );
        Ok(Closed {
            closed: done.destroyed,
            left: of_nginx.len() - chosen,
        })
    }
}

/// Makes a connection to ourselves and destroys it.
fn prove() -> Result<(), DiagError> {
    let make = || {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_read_timeout(Some(PROOF_PATIENCE))?;
        Ok((listener.local_addr()?, stream.local_addr()?, stream, listener))
    };
    let (remote, local, mut stream, _listener) = make().map_err(DiagError::Talk)?;
    let mut diag = Diag::open()?;
    let listed = diag.connections_to(remote)?;
    let Some(ours) = listed.iter().find(|socket| socket.local == local) else {
        return Err(DiagError::List(Errno::NOENT.into()));
    };
    diag.destroy([ours])?;
    // It is believed when it is seen.
    match stream.read(&mut [0]) {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => Ok(()),
        _ => Err(DiagError::Destroy(Errno::OPNOTSUPP.into())),
    }
}

/// What is missing, and what to do.
fn remedy(error: &DiagError) -> String {
    let what = chain(error);
    let (DiagError::Open(cause)
    | DiagError::Talk(cause)
    | DiagError::List(cause)
    | DiagError::Destroy(cause)) = error;
    if cause.kind() == std::io::ErrorKind::Unsupported && !cfg!(target_os = "linux") {
        return "connections of other processes can be closed on Linux only".to_owned();
    }
    let advice = match (error, Errno::from_io_error(cause)) {
        (_, Some(Errno::PERM | Errno::ACCESS)) => {
            "the right CAP_NET_ADMIN is missing; give it to mesh-health, with \
             AmbientCapabilities=CAP_NET_ADMIN in its unit"
        }
        (DiagError::Destroy(_), Some(Errno::OPNOTSUPP)) => {
            "the kernel is built without CONFIG_INET_DIAG_DESTROY; one that has it is needed"
        }
        (DiagError::Open(_), Some(Errno::AFNOSUPPORT)) => {
            "netlink is shut off; add AF_NETLINK to RestrictAddressFamilies= in the unit"
        }
        (DiagError::Open(_), Some(Errno::PROTONOSUPPORT)) | (_, Some(Errno::NOENT)) => {
            "the kernel's module tcp_diag is missing; `modprobe tcp_diag`"
        }
        _ => return what,
    };
    format!("{what}: {advice}")
}

fn list(processes: &[Pid]) -> String {
    let numbers: Vec<String> = processes
        .iter()
        .map(|pid| pid.as_raw_nonzero().to_string())
        .collect();
    numbers.join(", ")
}

/// Runs what waits for the kernel beside the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(format!("closing connections was interrupted: {error}")),
    }
}
