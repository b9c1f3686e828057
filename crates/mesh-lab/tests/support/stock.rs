//! A single broker without mesh-plugin: the measure of what access control must still do with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mesh_lab::ports::PortBlock;
use mesh_lab::wait_until;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::PATIENCE;

/// Killed when dropped.
pub struct Stock {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    _ports: PortBlock,
}

impl Stock {
    /// Starts a broker whose configuration is a listener and `lines`, with its files in `folder`.
    pub async fn start(folder: &Path, lines: &str) -> Self {
        let ports = PortBlock::reserve().expect("ports are free");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.base()));
        let user = user_name();
        let conf = format!(
            "user {user}\nlistener {} {}\n{lines}\n",
            address.port(),
            address.ip()
        );
        Self::run(folder, &conf, address, ports).await
    }

    /// Runs a broker with the whole configuration `conf`, which listens on `address`.
    pub async fn run(folder: &Path, conf: &str, address: SocketAddr, ports: PortBlock) -> Self {
        let (file, log) = (folder.join("mosquitto.conf"), folder.join("mosquitto.log"));
        std::fs::write(&file, conf).expect("the folder can be written");
        let output = std::fs::File::create(&log).expect("the folder can be written");
        let child = Command::new(mesh_lab::mosquitto_program().expect("mosquitto is installed"))
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .expect("it can be started");
        let mut stock = Self {
            child,
            address,
            log,
            _ports: ports,
        };
        let listens = wait_until("a listening broker", PATIENCE, async || {
            let ended = stock.child.try_wait().expect("it can be asked");
            assert!(
                ended.is_none(),
                "the broker ended: {}",
                std::fs::read_to_string(&stock.log).unwrap()
            );
            tokio::net::TcpStream::connect(address).await.map(drop)
        });
        listens.await.unwrap_or_else(|late| panic!("{late}"));
        stock
    }

    /// Where it takes clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes it read its configuration again.
    pub async fn reload(&self) {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.expect("it runs"), Signal::HUP).expect("it takes a signal");
        let done = wait_until("a reload", PATIENCE, async || {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if log.contains("Reloading config.") {
                Ok(())
            } else {
                Err(log)
            }
        });
        done.await.unwrap_or_else(|late| panic!("{late}"));
    }
}

/// The user that runs this test: started by root, a broker would else become somebody who may not read its files.
pub fn user_name() -> String {
    let output = std::process::Command::new("id")
        .arg("-un")
        .output()
        .expect("id runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
