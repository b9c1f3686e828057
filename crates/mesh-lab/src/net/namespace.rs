//! One network namespace, inhabited by a thread of this process.
//!
//! It has no name in `/run/netns` that could stay behind: the kernel frees it when the last process in it and
//! the last open file of it are gone, and those go with this process and its children. Whoever is started by
//! the inhabitant lives there too, and a socket made by it belongs there for good, whichever thread uses it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::thread::UnshareFlags;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace; see the module.
#[derive(Debug)]
pub(super) struct Namespace {
    jobs: mpsc::Sender<Job>,
    file: File,
}

impl Namespace {
    /// Makes an empty namespace, whose own loopback device is up.
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, entered) = mpsc::channel();
        thread::Builder::new().name(format!("ns-{name}")).spawn(move || {
            if ready.send(enter()).is_ok() {
                for job in inbox {
                    job();
                }
            }
        })?;
        let file = entered.recv().map_err(io::Error::other)??;
        let namespace = Self { jobs, file };
        namespace.command("ip", &["-batch", "-"], "link set lo up\n")?;
        Ok(namespace)
    }

    /// Does `job` inside.
    pub(super) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = mpsc::channel();
        // Nobody takes the result only if this function was left, which it is not before.
        let job: Job = Box::new(move || drop(done.send(job())));
        self.jobs
            .send(job)
            .map_err(|_gone| io::Error::other("the thread of a namespace is gone"))?;
        result
            .recv()
            .map_err(|_gone| io::Error::other("a job inside a namespace failed"))
    }

    /// Runs a program inside with `input` on its standard input; its complaint becomes the error.
    pub(super) fn command(&self, program: &str, arguments: &[&str], input: &str) -> io::Result<()> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = self.run(move || command.spawn())??;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!(
            "{program}: {} ({})",
            complaint.trim(),
            output.status
        )))
    }

    /// A path by which another process of the same user finds the namespace while this one lives.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// Moves this thread into a network namespace of its own and returns a handle of it.
fn enter() -> io::Result<File> {
    // SAFETY: only the network namespace is unshared, and only that of this thread, which has just begun and
    // runs nothing that was made elsewhere. The file descriptor table, the reason why this call can be
    // unsound, stays shared.
    #[allow(unsafe_code)]
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWNET)?;
    }
    File::open("/proc/thread-self/ns/net")
}
