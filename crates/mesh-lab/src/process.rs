//! The child processes of a lab: started, watched, signalled, ended.
//!
//! Each is in a process group of its own, so that a terminal's Ctrl-C reaches only this program, and so that
//! what a child has started (Nginx's workers) can be signalled with it. A child begins as a shell that waits for
//! one line before it becomes the program; in between the keeper hears of it. So there is no instant at which
//! this process could be killed and a program stay behind.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process_group, test_kill_process_group, waitid,
};
use tokio::sync::{mpsc, watch};

use crate::keeper::Keeper;
use crate::net::{Network, Place};

/// How long what a dead process leaves in its group may take to vanish. It has been killed; where the first
/// process of the machine is slow to reap it, it is there in name only.
const GROUP_DEADLINE: Duration = Duration::from_millis(50);

/// What to run and where.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) folder: PathBuf,
    /// Gets standard output and standard error.
    pub(crate) log: PathBuf,
    pub(crate) place: Place,
    /// Whether it is started again when it dies, as systemd would.
    pub(crate) supervised: bool,
}

/// A process has ended.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) name: String,
    pub(crate) pid: Pid,
    pub(crate) status: ExitStatus,
    pub(crate) lived: Duration,
}

/// A process that was started. It can be signalled for as long as it is the one that was started.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    /// Whether the process has not been reaped. While this is locked, its number stays its own.
    alive: Mutex<bool>,
    /// The pipe from which the child learns that it may begin; closed without a word, the child ends.
    gate: Mutex<Option<ChildStdin>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Prepares `spec` to be started by [`Self::release`]; its end is told to `exits`.
    pub(crate) fn prepare(
        spec: &Spec,
        net: &Network,
        keeper: &Arc<Keeper>,
        exits: mpsc::UnboundedSender<Exit>,
    ) -> io::Result<Arc<Self>> {
        let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"read -r go && exec "$@" </dev/null"#])
            .arg(&spec.name)
            .arg(&spec.program)
            .args(&spec.arguments)
            .current_dir(&spec.folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let mut child = net.spawn(spec.place, command)?;
        let pid = Pid::from_child(&child);
        let gate = child.stdin.take();
        // If the keeper does not know of the child, the gate closes here and the child ends.
        let kept = keeper.keep(pid);
        let (ended, exit) = watch::channel(None);
        let process = Arc::new(Self {
            pid,
            alive: Mutex::new(true),
            gate: Mutex::new(gate),
            exit,
        });
        let waiter = Waiter {
            name: spec.name.clone(),
            process: Arc::clone(&process),
            keeper: Arc::clone(keeper),
            started: Instant::now(),
        };
        std::thread::Builder::new()
            .name(format!("wait-{}", spec.name))
            .spawn(move || waiter.run(child, &ended, &exits))?;
        kept?;
        Ok(process)
    }

    /// Lets the prepared process run.
    pub(crate) fn release(&self) -> io::Result<()> {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner).take();
        match gate {
            Some(mut gate) => gate.write_all(b"go\n"),
            None => Ok(()),
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// How it ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Signals the process and what it has started. Tells whether it was there to be signalled.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        *alive && kill_process_group(self.pid, signal).is_ok()
    }

    /// Completes when the process has ended and nothing of its group is left.
    pub(crate) async fn ended(&self) {
        let mut exit = self.exit.clone();
        // The sender is dropped only after it has sent.
        exit.wait_for(Option::is_some).await.ok();
    }

    /// Whether it stands still after SIGSTOP.
    pub(crate) fn is_stopped(&self) -> bool {
        let look = WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        matches!(waitid(WaitId::Pid(self.pid), look), Ok(Some(_)))
    }

    /// Kills the process and waits for its end without an executor, for at most `deadline`.
    pub(crate) fn kill_now(&self, deadline: Instant) {
        self.signal(Signal::KILL);
        while !self.has_ended() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Waits for the end of one process, on a thread of its own: it must work without an executor too.
struct Waiter {
    name: String,
    process: Arc<Process>,
    keeper: Arc<Keeper>,
    started: Instant,
}

impl Waiter {
    fn run(
        self,
        mut child: Child,
        ended: &watch::Sender<Option<ExitStatus>>,
        exits: &mpsc::UnboundedSender<Exit>,
    ) {
        let pid = self.process.pid;
        // Look first and reap later: until it is reaped, its number cannot become somebody else's.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), look).is_err_and(|error| error == Errno::INTR) {}
        let status = {
            let mut alive = self.process.alive.lock().unwrap_or_else(PoisonError::into_inner);
            // What a daemon leaves behind (workers of a killed Nginx) would keep its ports.
            kill_process_group(pid, Signal::KILL).ok();
            // The keeper is gone only when the lab is.
            self.keeper.forget(pid).ok();
            *alive = false;
            child.wait()
        };
        let deadline = Instant::now() + GROUP_DEADLINE;
        while test_kill_process_group(pid).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let Ok(status) = status else { return };
        ended.send_replace(Some(status));
        let exit = Exit {
            name: self.name,
            pid,
            status,
            lived: self.started.elapsed(),
        };
        // Nobody listens any more when the lab is being dropped.
        exits.send(exit).ok();
    }
}
