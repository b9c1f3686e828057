//! A real mesh-logs on files of its own.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mesh_lab::ports::PortBlock;
use mesh_lab::wait_until;
use mesh_store::reader::Place;
use mesh_store::{LogRow, Query, Reader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long anything may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A folder with a `mesh.toml`, and the daemon while it runs.
pub struct Rig {
    pub folder: tempfile::TempDir,
    pub port: u16,
    child: Option<Child>,
    _ports: PortBlock,
}

impl Rig {
    /// Writes a `mesh.toml` with these sources; `DIR` stands for the folder.
    pub fn new(sources: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = PortBlock::reserve().unwrap();
        let port = ports.base();
        let rig = Self {
            folder,
            port,
            child: None,
            _ports: ports,
        };
        rig.configure(sources);
        rig
    }

    pub fn configure(&self, sources: &str) {
        let text = format!(
            "[[broker]]\nid = \"broker1\"\naddress = \"127.0.0.1:{}\"\n\n[health]\nlisten = \"127.0.0.1:{}\"\n\n\
             [balancer]\nlisten = \"127.0.0.1:{}\"\nreadback = \"127.0.0.1:{}\"\n\n\
             [logs]\nlisten = \"127.0.0.1:{}\"\ndatabase = \"{}\"\n\n{sources}\n",
            self.port + 1,
            self.port + 2,
            self.port + 3,
            self.port + 4,
            self.port,
            self.database().display(),
        );
        let text = text.replace("DIR", &self.folder.path().display().to_string());
        std::fs::write(self.path("mesh.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("db/mesh.db")
    }

    /// The daemon's own log.
    pub fn own_log(&self) -> String {
        std::fs::read_to_string(self.path("mesh-logs.log")).unwrap_or_default()
    }

    pub fn start(&mut self) {
        self.start_with(|command| command);
    }

    /// Starts the daemon; `change` has the last word on how.
    pub fn start_with(&mut self, change: impl FnOnce(&mut Command) -> &mut Command) {
        assert!(self.child.is_none(), "it runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("mesh-logs.log"))
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-logs"));
        command
            .arg("--config")
            .arg(self.path("mesh.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .process_group(0);
        self.child = Some(change(&mut command).spawn().unwrap());
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; asserts that it ends in order.
    pub fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}: {}", self.own_log());
    }

    /// Waits for the daemon to end by itself and tells its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.take().expect("it runs").wait().unwrap().code()
    }

    /// Whether the daemon has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let child = self.child.as_mut().expect("it was started");
        child.try_wait().unwrap().is_some()
    }

    /// After [`Self::has_ended`], so that it can be started again.
    pub fn forget_ended(&mut self) {
        self.child = None;
    }

    /// Appends to a file in the folder.
    pub fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        append(&self.path(name), bytes);
    }

    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.to_owned()))
    }

    /// The value of the sample that begins with `name`.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.get("/metrics").await?;
        let line = page.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Every line that `query` asks for, oldest first; `None` while there is no database.
    pub async fn rows(&self, query: &str) -> Option<Vec<LogRow>> {
        let reader = Reader::open(&self.database()).await.ok()?;
        let query: Query = query.parse().unwrap();
        let mut rows = Vec::new();
        let mut place = Place::Newest;
        loop {
            let page = reader.page(&query, place, 5000).await.ok()?;
            rows.extend(page.rows);
            match page.older {
                Some(id) => place = Place::Before(id),
                None => break,
            }
        }
        reader.close().await;
        rows.reverse();
        Some(rows)
    }

    /// The bodies of every line that `query` asks for, oldest first.
    pub async fn bodies(&self, query: &str) -> Vec<String> {
        let rows = self.rows(query).await.unwrap_or_default();
        rows.into_iter().map(|row| row.body).collect()
    }

    /// Waits until exactly these lines are there.
    pub async fn expect(&self, query: &str, expected: &[&str]) {
        let found = wait_until("the lines", DEADLINE, async || {
            let found = self.bodies(query).await;
            if found == expected {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        });
        if let Err(error) = found.await {
            panic!("{error}\n{}", self.own_log());
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            let log = self.own_log();
            let worth = |line: &&str| !line.contains("\"INFO\"");
            eprintln!("{}", log.lines().filter(worth).collect::<Vec<_>>().join("\n"));
        }
    }
}

pub fn append(path: &Path, bytes: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(bytes.as_ref()).unwrap();
}

/// A source of files that are no program's.
pub fn plain(name: &str, path: &str) -> String {
    format!("[[logs.source]]\nname = \"{name}\"\npath = \"{path}\"\nformat = \"plain\"\n")
}
