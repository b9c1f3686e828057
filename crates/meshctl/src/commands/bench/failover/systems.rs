//! Who is compared: four ways to lead clients to five brokers.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::{ExtraProcess, Lab, system_program, wait_until};
use mesh_model::{BrokerId, HealthStatus, Snapshot};
use mesh_runtime::Config;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a system may take until it leads clients to a broker.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// How long one question to a daemon may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// What leads clients to brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum System {
    /// Nginx and mesh-health, with the settings of the lab, which are the defaults.
    Ours,
    /// HAProxy as its documentation advises: an MQTT check each 500 ms, two failures, sessions shut down.
    HaproxySane,
    /// HAProxy as fast as it goes: short checks, one failure, live traffic observed.
    HaproxyAggressive,
    /// The same Nginx with what it notices by itself.
    NginxPassive,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "ours",
            Self::HaproxySane => "haproxy sane",
            Self::HaproxyAggressive => "haproxy fast",
            Self::NginxPassive => "nginx passive",
        })
    }
}

impl System {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 4] = [
        Self::Ours,
        Self::HaproxySane,
        Self::HaproxyAggressive,
        Self::NginxPassive,
    ];

    /// Why it cannot be measured here, if so.
    pub fn missing(self) -> Option<String> {
        self.haproxy()?;
        system_program("haproxy", "install it: `apt install haproxy`")
            .err()
            .map(|missing| missing.to_string())
    }

    /// Whether a broker that hangs is none of its business.
    pub fn never_notices_hangs(self) -> bool {
        self == Self::NginxPassive
    }

    /// What the lab has to run for the systems that are here.
    pub fn extra() -> Vec<ExtraProcess> {
        let programs = Self::ALL.into_iter().filter_map(|system| {
            let (name, server) = system.haproxy()?;
            let program = system_program("haproxy", "").ok()?;
            Some(ExtraProcess {
                name: name.to_owned(),
                program,
                arguments: ["-f", "haproxy.cfg", "-db"].map(OsString::from).into(),
                files: Arc::new(move |config, listen, _| {
                    vec![("haproxy.cfg".to_owned(), haproxy_cfg(config, listen, server))]
                }),
            })
        });
        programs.collect()
    }

    /// The name of the process and its settings for each server, if it is an HAProxy.
    fn haproxy(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::HaproxySane => Some(("haproxy-sane", "inter 500ms fall 2 rise 2")),
            Self::HaproxyAggressive => Some((
                "haproxy-fast",
                "inter 250ms fastinter 100ms fall 1 rise 2 observe layer4 error-limit 1 on-error mark-down",
            )),
            Self::Ours | Self::NginxPassive => None,
        }
    }

    /// Where clients connect.
    pub fn address(self, lab: &Lab) -> SocketAddr {
        match self.haproxy() {
            Some((name, _)) => lab.extra(name),
            None => lab.balancer(),
        }
    }

    /// Starts it afresh, so that no earlier fault is remembered, and returns when it leads clients to its primary
    /// and could lead them elsewhere.
    pub async fn start(self, lab: &Lab) -> anyhow::Result<()> {
        match self {
            Self::Ours => {
                let forgotten = std::fs::remove_file(lab.config().state_file());
                if let Err(error) = forgotten
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    return Err(error).context("cannot have mesh-health forget earlier faults");
                }
                lab.restart("nginx").await?;
                lab.restart("mesh-health").await?;
                let ready = async || {
                    let status = status(&lab.health_url()).await?;
                    let healthy = |id: &BrokerId| {
                        let mut brokers = status.brokers.iter();
                        brokers.any(|broker| broker.id == *id && broker.health == HealthStatus::Healthy)
                    };
                    let backup = status.backup.as_ref();
                    if status.balancer.confirmed && healthy(&status.primary) && backup.is_some_and(healthy) {
                        Ok(())
                    } else {
                        Err(format!("state {:?}, backup {backup:?}", status.state))
                    }
                };
                wait_until("a healthy primary and backup", READY_DEADLINE, ready).await?;
            }
            Self::NginxPassive => lab.restart("nginx").await?,
            Self::HaproxySane | Self::HaproxyAggressive => {
                let (name, _) = self.haproxy().context("it is an HAProxy")?;
                lab.restart(name).await?;
            }
        }
        Ok(())
    }

    /// Ends it; brokers go on.
    pub async fn stop(self, lab: &Lab) -> anyhow::Result<()> {
        match self {
            Self::Ours => {
                lab.halt("mesh-health").await?;
                lab.halt("nginx").await?;
            }
            Self::NginxPassive => lab.halt("nginx").await?,
            Self::HaproxySane | Self::HaproxyAggressive => {
                let (name, _) = self.haproxy().context("it is an HAProxy")?;
                lab.halt(name).await?;
            }
        }
        Ok(())
    }

    /// The broker that new clients are sent to, and the next.
    pub async fn order(self, lab: &Lab) -> anyhow::Result<(BrokerId, BrokerId)> {
        let mut ids = lab.config().topology.ids().cloned();
        if self.haproxy().is_some() {
            return ids.next().zip(ids.next()).context("there are five brokers");
        }
        let answer = ask(lab.readback(), "").await.map_err(anyhow::Error::msg)?;
        let plan = mesh_render::parse_read_back(&answer)?;
        let next = plan.standbys.first().cloned();
        Ok((plan.primary, next.context("there are five brokers")?))
    }

    /// What is said of it below the tables.
    pub fn about(self) -> String {
        match self.haproxy() {
            Some((_, server)) => {
                format!(
                    "HAProxy, CONNECT/CONNACK check, {server}, on-marked-down shutdown-sessions, backups in order"
                )
            }
            None if self == Self::Ours => "Nginx with mesh-health, default settings".to_owned(),
            None => "Nginx with the same upstream and no mesh-health".to_owned(),
        }
    }
}

/// A CONNECT of MQTT 3.1.1 without a client id, a clean session and 60 seconds of keep-alive.
const CONNECT: &str = "100c00044d5154540402003c0000";

/// Without a `maxconn`, which HAProxy then takes from how many files it may open.
fn haproxy_cfg(config: &Config, listen: SocketAddr, server: &str) -> String {
    let mut text = format!(
        "global\n\
         defaults\n  mode tcp\n  timeout connect 4s\n  timeout client 30h\n  timeout server 30h\n  \
         option redispatch 1\n\
         frontend mqtt\n  bind {listen}\n  default_backend brokers\n\
         backend brokers\n  option tcp-check\n  tcp-check connect\n  tcp-check send-binary {CONNECT}\n  \
         tcp-check expect binary 20020000\n  tcp-check send-binary e000\n  \
         default-server check {server} on-marked-down shutdown-sessions\n"
    );
    for (place, broker) in config.topology.brokers().iter().enumerate() {
        let backup = if place == 0 { "" } else { " backup" };
        text += &format!("  server {} {}{backup}\n", broker.id, broker.address);
    }
    text
}

/// What the mesh-health at `url` says of everything.
pub async fn status(url: &str) -> Result<Snapshot, String> {
    let address = url.trim_start_matches("http://");
    let address: SocketAddr = address.parse().map_err(|_| format!("{address} is no address"))?;
    let answer = ask(address, "GET /v1/status HTTP/1.0\r\n\r\n").await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("an answer without a body")?;
    serde_json::from_str(body).map_err(|error| error.to_string())
}

async fn ask(address: SocketAddr, question: &str) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(question.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_elapsed) => Err("no answer".to_owned()),
    }
}
