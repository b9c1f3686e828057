//! mesh-logs itself, on files of the bench.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::ports::PortBlock;
use mesh_lab::wait_until;
use mesh_store::Reader;
use tokio::process::{Child, Command};

use crate::commands::bench::usage;

/// So many bytes that nothing is deleted.
pub(super) const EVERYTHING: u64 = 1_000_000_000_000;

/// A running mesh-logs; killed when dropped.
pub(super) struct Daemon {
    child: Child,
    database: PathBuf,
    _ports: PortBlock,
}

/// What it has cost so far.
pub(super) struct Usage {
    pub(super) cpu: Option<Duration>,
    /// The most memory that it ever had, in bytes.
    pub(super) peak: Option<u64>,
}

impl Daemon {
    /// Starts it on `sources`, in `folder`, where its database is `mesh.db`, of which it keeps so many bytes.
    pub(super) fn start(folder: &Path, sources: &str, keep_bytes: u64) -> anyhow::Result<Self> {
        let ports = PortBlock::reserve()?;
        let port = ports.base();
        let brokers: String = (1..=5)
            .map(|n| {
                format!(
                    "[[broker]]\nid = \"broker{n}\"\naddress = \"127.0.0.1:{}\"\n\n",
                    18_830 + n
                )
            })
            .collect();
        // Nobody answers as mesh-health here.
        let text = format!(
            "{brokers}[health]\nlisten = \"127.0.0.1:{}\"\n\n[logs]\nlisten = \"127.0.0.1:{port}\"\ndatabase = \"mesh.db\"\n\
             keep_age = \"3650days\"\nkeep_bytes = {keep_bytes}\n\n{sources}",
            port + 1
        );
        let config = folder.join("mesh.toml");
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(folder.join("daemon.out"))?;
        let program = mesh_lab::own_program("mesh-logs")?;
        let child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start mesh-logs")?;
        Ok(Self {
            child,
            database: folder.join("mesh.db"),
            _ports: ports,
        })
    }

    /// Waits until so many lines of all sources are stored.
    pub(super) async fn until_stored(&self, lines: u64, deadline: Duration) -> anyhow::Result<()> {
        let mut reader = None;
        wait_until("all lines in the database", deadline, async || {
            if reader.is_none() {
                reader = Reader::open(&self.database).await.ok();
            }
            let Some(reader) = &reader else {
                return Err("no database".to_owned());
            };
            let sources = reader.sources().await.map_err(|error| error.to_string())?;
            let stored: u64 = sources.iter().map(|source| source.lines).sum();
            if stored >= lines {
                Ok(())
            } else {
                Err(format!("{stored} of {lines}"))
            }
        })
        .await?;
        Ok(())
    }

    pub(super) fn usage(&self) -> Usage {
        let pid = self.child.id();
        Usage {
            cpu: pid.and_then(usage::cpu_of_process),
            peak: pid.and_then(usage::peak_of),
        }
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        self.child.wait().await?;
        Ok(())
    }
}
