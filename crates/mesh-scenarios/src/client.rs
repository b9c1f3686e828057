//! Client programs: started, fed, and read line by line with the time at which each line came.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::system_program;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

/// A line on a program's standard output, and when it came.
pub type Line = (Instant, String);

/// A program that is killed when this is dropped. What it says of itself is in a file.
#[derive(Debug)]
pub struct Client {
    child: Child,
    name: String,
    lines: watch::Receiver<Vec<Line>>,
    _reader: JoinHandle<()>,
}

impl Client {
    /// Starts a program; its standard error goes into `FOLDER/NAME.log`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> anyhow::Result<Self> {
        let log = File::create(folder.join(format!("{name}.log"))).context("make a log")?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let (sender, lines) = watch::channel(Vec::new());
        let reader = tokio::spawn(async move {
            let mut output = BufReader::new(output);
            let mut bytes = Vec::new();
            while output
                .read_until(b'\n', &mut bytes)
                .await
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                sender.send_modify(|lines| lines.push((Instant::now(), text)));
                bytes.clear();
            }
        });
        Ok(Self {
            child,
            name: name.to_owned(),
            lines,
            _reader: reader,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.borrow().clone()
    }

    /// How many lines so far.
    pub fn count(&self) -> usize {
        self.lines.borrow().len()
    }

    /// Writes the numbers from 1 to its standard input, so many a second, until it ends or the task is dropped.
    ///
    /// # Errors
    ///
    /// If it is fed already.
    pub fn feed(&mut self, per_second: u32) -> anyhow::Result<Feed> {
        let mut input = self.child.stdin.take().context("it is fed already")?;
        let task = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) / per_second);
            for number in 1_u64.. {
                ticks.tick().await;
                if input.write_all(format!("{number}\n").as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        Ok(Feed(task))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

/// Feeds a program until it is dropped.
#[derive(Debug)]
pub struct Feed(JoinHandle<()>);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// `mosquitto_pub` or `mosquitto_sub`, to be told what and where.
///
/// # Errors
///
/// If it is not installed.
pub fn mosquitto(name: &str, address: SocketAddr, version: &str) -> anyhow::Result<Command> {
    let remedy = "install it: `apt install mosquitto-clients` or `brew install mosquitto`";
    let mut command = Command::new(system_program(name, remedy)?);
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["-h", &host, "-p", &port, "-V", version]);
    Ok(command)
}

/// The longest time without a line, from the last line before `since` to the last line at all.
pub fn longest_gap(times: &[Instant], since: Instant) -> Duration {
    let pairs = times.windows(2).filter(|pair| pair[1] >= since);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_begins_before_the_fault() {
        let start = Instant::now();
        let at = |seconds: &[u64]| -> Vec<Instant> {
            seconds
                .iter()
                .map(|seconds| start + Duration::from_secs(*seconds))
                .collect()
        };
        let since = start + Duration::from_secs(11);
        let gap = |seconds: &[u64]| longest_gap(&at(seconds), since).as_secs();
        assert_eq!(gap(&[0, 9, 10, 15, 16]), 5, "what was before does not count");
        assert_eq!(gap(&[0, 10]), 0, "nothing came afterwards");
    }
}
