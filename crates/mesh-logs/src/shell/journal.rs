//! Lines out of a journal, near or far: a command that prints what `journalctl -o json -f` prints.
//!
//! A command that ends is started again, sooner after it gave lines than after it gave none. It goes on with the entry
//! stored last, which journalctl then prints once more and which is dropped here: if it does not come, it has been
//! deleted from the journal, and others with it. (`--after-cursor` cannot tell, and silently skips one more entry then.) With
//! `--merge`, since `-f` alone gives nothing of what was written before the machine's last start.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use mesh_runtime::config::LogSource;
use mesh_runtime::notify::VARIABLES;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout, timeout_at};

use super::intake::{Ended, Intake, Order, Orders, now_ns, register};
use super::retry::Attempts;
use super::status::Status;
use crate::core::journal;

/// Entries are handed on at least this often.
const HAND_ON_EVERY: Duration = Duration::from_millis(50);

/// And at most so many at once.
const MOST: usize = 1000;

/// A longer line is no entry; journald's own limit is far below.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;

/// The most that is kept of what a command complains.
const LONGEST_COMPLAINT: u64 = 1024;

/// Runs `command` again and again and hands on its entries. Ends when the pipeline does.
pub async fn run(source: LogSource, command: String, orders: Orders, status: Arc<Status>) {
    let Ok(state) = register(&orders, &source.name, "").await else {
        return;
    };
    let mut intake = Intake::new(&source, state);
    let mut attempts = Attempts::new(&intake, Arc::clone(&status));
    loop {
        match follow(&mut intake, &command, &orders, &status).await {
            Err(Failed::Ended) => return,
            Err(Failed::Command(error)) => attempts.failed(&intake, error).await,
        }
    }
}

enum Failed {
    Ended,
    Command(String),
}

impl From<Ended> for Failed {
    fn from(_: Ended) -> Self {
        Self::Ended
    }
}

/// The command with the place where it goes on.
fn going_on(command: &str, cursor: &str) -> String {
    let option = if journal::is_cursor(cursor) {
        format!("--merge --no-tail --cursor='{cursor}'")
    } else {
        "--merge --no-tail".to_owned()
    };
    command.replace("{after}", &option)
}

async fn follow(
    intake: &mut Intake,
    command: &str,
    orders: &Orders,
    status: &Status,
) -> Result<std::convert::Infallible, Failed> {
    let mut awaited = (!intake.state.journal.is_empty()).then(|| intake.state.journal.clone());
    let failed = |error: std::io::Error| Failed::Command(error.to_string());
    let mut child = start(&going_on(command, &intake.state.journal)).map_err(failed)?;
    let stdout = child
        .stdout
        .take()
        .ok_or_else(|| Failed::Command("it has no output".to_owned()))?;
    let mut lines = BufReader::with_capacity(64 * 1024, stdout);
    let mut line = Vec::new();
    let mut hand_on: Option<Instant> = None;
    loop {
        let read = (&mut lines).take(LONGEST_LINE);
        let length = match hand_on {
            // Reading may be given up in the middle of a line; what has come of it stays in `line`.
            Some(at) => timeout_at(at, read_line(read, &mut line)).await.ok(),
            None => Some(read_line(read, &mut line).await),
        };
        let is_over = matches!(length, Some(Ok(0)));
        if let Some(length) = length {
            length.map_err(failed)?;
            if line.last() == Some(&b'\n') {
                entry(intake, &line, &mut awaited);
                line.clear();
                hand_on.get_or_insert_with(|| Instant::now() + HAND_ON_EVERY);
            }
        }
        let is_due = hand_on.is_some_and(|at| Instant::now() >= at) || is_over;
        if is_due || intake.pending() >= MOST {
            hand_on = None;
            if intake.has_rows() {
                let chunk = intake.take();
                status.read(&chunk.state);
                orders.send(Order::Store(chunk)).await.map_err(|_| Ended)?;
            }
        }
        if is_over {
            return Err(Failed::Command(last_words(child).await));
        }
    }
}

async fn read_line(mut from: impl AsyncBufReadExt + Unpin, line: &mut Vec<u8>) -> std::io::Result<usize> {
    from.read_until(b'\n', line).await
}

fn entry(intake: &mut Intake, line: &[u8], awaited: &mut Option<String>) {
    let bytes = line.len() as u64;
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let read_ns = now_ns();
    let Some((cursor, parsed)) = journal::parse(&mut intake.parser, line) else {
        // ssh and journalctl may say something else, e.g. that it follows a rotated journal now.
        intake.line(line, bytes, read_ns);
        return;
    };
    if let Some(awaited) = awaited.take() {
        if awaited == cursor {
            return;
        }
        intake.gap(
            "the entry that was read last is not in the journal any more".to_owned(),
            read_ns,
        );
    }
    intake.parsed(parsed, bytes, read_ns);
    intake.state.journal = cursor;
}

fn start(command: &str) -> std::io::Result<Child> {
    let mut shell = Command::new("/bin/sh");
    for variable in VARIABLES {
        shell.env_remove(variable);
    }
    shell
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// How a command ended, in words.
async fn last_words(mut child: Child) -> String {
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = stderr.take(LONGEST_COMPLAINT);
        timeout(Duration::from_millis(200), stderr.read_to_string(&mut said))
            .await
            .ok();
    }
    let status = match timeout(Duration::from_secs(1), child.wait()).await {
        Ok(Ok(status)) => status.to_string(),
        Ok(Err(error)) => error.to_string(),
        Err(_elapsed) => "it closed its output".to_owned(),
    };
    match said.trim() {
        "" => status,
        said => format!("{status}: {said}"),
    }
}
