//! Nginx as a process: testing its configuration, finding it, signalling it, asking which plan it runs.
//!
//! Every step has a deadline. Exit codes are believed only where they say no.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mesh_model::Plan;
use mesh_render::parse_read_back;
use mesh_runtime::notify::VARIABLES;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

/// How long `nginx -t` may take.
const TEST_PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer to a read-back may take.
const READ_PATIENCE: Duration = Duration::from_secs(1);

/// Longer answers are not ours.
const LONGEST_ANSWER: u64 = 16 * 1024;

/// Why a step with Nginx failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum NginxError {
    /// The program cannot be run.
    #[error("cannot run {}", .program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A test did not end.
    #[error("{} -t did not end within {TEST_PATIENCE:?}", .0.display())]
    Endless(PathBuf),
    /// The configuration is refused.
    #[error("Nginx refuses the configuration: {0}")]
    Refused(String),
    /// There is no process to signal.
    #[error("Nginx does not run: {0}")]
    NotRunning(String),
    /// The process cannot be signalled.
    #[error("cannot signal Nginx (process {pid})")]
    Signal {
        /// The process.
        pid: i32,
        /// The cause.
        source: io::Error,
    },
}

impl NginxError {
    /// The same, with paths below `from` given as below `to`.
    pub(super) fn instead_of(self, from: &Path, to: &Path) -> Self {
        match self {
            Self::Refused(reason) => {
                Self::Refused(reason.replace(&*from.to_string_lossy(), &to.to_string_lossy()))
            }
            other => other,
        }
    }
}

/// The first Nginx that can be told on the command line where to log; see [`takes_error_log`].
const KNOWS_ERROR_LOG: [u32; 3] = [1, 19, 5];

/// Whether `program` knows `-e FILE`. Without it a test opens the error log that was compiled in, which is the
/// system's and, for a user who is not root, a complaint on every test.
pub(super) async fn takes_error_log(program: &Path) -> bool {
    let asked = Command::new(program).arg("-v").stdin(Stdio::null()).output();
    let Ok(Ok(output)) = timeout(TEST_PATIENCE, asked).await else {
        return false;
    };
    version(&String::from_utf8_lossy(&output.stderr)).is_some_and(|version| version >= KNOWS_ERROR_LOG)
}

/// The numbers of `nginx version: nginx/1.22.1 (Ubuntu)`.
fn version(said: &str) -> Option<[u32; 3]> {
    let (_, rest) = said.split_once('/')?;
    let text = rest.split_whitespace().next()?;
    let mut numbers = text.splitn(3, '.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

/// Has Nginx test the configuration `conf`. Its complaints also go to `error_log`, if that is given.
pub(super) async fn test(program: &Path, conf: &Path, error_log: Option<&Path>) -> Result<(), NginxError> {
    let mut command = Command::new(program);
    command.arg("-t").arg("-q").arg("-c").arg(conf);
    if let Some(error_log) = error_log {
        command.arg("-e").arg(error_log);
    }
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| NginxError::Run {
            program: program.to_owned(),
            source,
        })?;
    let output = timeout(TEST_PATIENCE, child.wait_with_output())
        .await
        .map_err(|_| NginxError::Endless(program.to_owned()))?
        .map_err(|source| NginxError::Run {
            program: program.to_owned(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = first_complaint(&said).unwrap_or_else(|| format!("{}", output.status));
    Err(NginxError::Refused(reason))
}

/// The first line of Nginx's log that tells why it does not go on.
pub(super) fn first_complaint(log: &str) -> Option<String> {
    let line = log
        .lines()
        .find(|line| line.contains("[emerg]") || line.contains("[crit]"))?;
    let (_, text) = line.split_once("] ")?;
    // In its error log a process id and connection number stand before the text: `123#123: *4 text`.
    let text = match text.split_once(": ") {
        Some((ids, rest)) if ids.chars().all(|c| c.is_ascii_digit() || c == '#') => rest,
        _ => text,
    };
    Some(text.to_owned())
}

/// The master process that wrote `pid_file`, if it still runs and is an Nginx.
pub(super) fn master(pid_file: &Path) -> Result<Pid, NginxError> {
    let gone = |why: String| NginxError::NotRunning(why);
    let text = std::fs::read_to_string(pid_file)
        .map_err(|error| gone(format!("cannot read {}: {error}", pid_file.display())))?;
    let number: Option<i32> = text.trim().parse().ok();
    let pid = number.and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| gone(format!("{} names no process", pid_file.display())))?;
    // A number may have been given to another program since.
    match program_name(pid) {
        Some(name) if name.contains("nginx") => Ok(pid),
        Some(name) => Err(gone(format!("process {} is {name:?}", pid.as_raw_nonzero()))),
        None => Err(gone(format!("there is no process {}", pid.as_raw_nonzero()))),
    }
}

/// Has the master read its configuration again.
pub(super) fn reload(pid: Pid) -> Result<(), NginxError> {
    kill_process(pid, Signal::HUP).map_err(|error| NginxError::Signal {
        pid: pid.as_raw_nonzero().get(),
        source: error.into(),
    })
}

/// The plan that Nginx says it runs.
pub(super) async fn read_back(address: SocketAddr) -> Result<Plan, ReadBackFailure> {
    let read = async {
        let stream = TcpStream::connect(address).await?;
        let mut line = String::new();
        BufReader::new(stream.take(LONGEST_ANSWER))
            .read_line(&mut line)
            .await?;
        Ok::<_, io::Error>(line)
    };
    let line = match timeout(READ_PATIENCE, read).await {
        Ok(Ok(line)) => line,
        Ok(Err(error)) => {
            return Err(ReadBackFailure {
                is_certain: error.kind() == io::ErrorKind::ConnectionRefused,
                reason: format!("Nginx does not tell its plan on {address}: {error}"),
            });
        }
        Err(_) => {
            return Err(ReadBackFailure {
                is_certain: false,
                reason: format!("Nginx does not tell its plan on {address} within {READ_PATIENCE:?}"),
            });
        }
    };
    parse_read_back(&line).map_err(|error| ReadBackFailure {
        is_certain: !line.is_empty(),
        reason: format!("on {address} not Nginx answers: {error}"),
    })
}

/// Why there is no plan.
#[derive(Debug)]
pub(super) struct ReadBackFailure {
    /// Whether asking again would be of no use.
    pub(super) is_certain: bool,
    /// In a sentence.
    pub(super) reason: String,
}

/// How many workers of earlier generations still hold sessions; `None` where it cannot be told.
pub(super) fn old_workers(master: Pid) -> Option<u32> {
    let pid = master.as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let is_old = |child: &&str| {
        std::fs::read(format!("/proc/{child}/cmdline"))
            .is_ok_and(|title| String::from_utf8_lossy(&title).contains("is shutting down"))
    };
    u32::try_from(children.split_whitespace().filter(is_old).count()).ok()
}

#[cfg(target_os = "linux")]
fn program_name(pid: Pid) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).ok()?;
    Some(name.trim_end().to_owned())
}

#[cfg(not(target_os = "linux"))]
fn program_name(pid: Pid) -> Option<String> {
    let pid = pid.as_raw_nonzero().to_string();
    let output = std::process::Command::new("ps")
        .args(["-o", "comm=", "-p", &pid])
        .output()
        .ok()?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let debian = version("nginx version: nginx/1.22.1\n").unwrap();
        assert!(debian >= KNOWS_ERROR_LOG);
        let ubuntu = version("nginx version: nginx/1.18.0 (Ubuntu)\n").unwrap();
        assert!(ubuntu < KNOWS_ERROR_LOG);
        assert!(version("nginx version: openresty/1.9.15").unwrap() < KNOWS_ERROR_LOG);
        assert_eq!(version("not found"), None);
    }

    #[test]
    fn the_reason_is_what_nginx_says_first() {
        let tested = "nginx: [alert] could not open error log file\n\
            nginx: [emerg] unexpected \"}\" in /x/upstream.conf:3\nnginx: configuration file test failed\n";
        assert_eq!(
            first_complaint(tested).unwrap(),
            "unexpected \"}\" in /x/upstream.conf:3"
        );
        let logged = "2026/11/23 05:00:00 [notice] 7#7: signal 1 (SIGHUP) received\n\
            2026/11/23 05:00:00 [emerg] 7#7: bind() to 127.0.0.1:1 failed (98: Address already in use)\n";
        assert!(
            first_complaint(logged)
                .unwrap()
                .starts_with("bind() to 127.0.0.1:1")
        );
        assert_eq!(first_complaint("all is well"), None);
    }
}
