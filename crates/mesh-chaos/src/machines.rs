//! Faults on machines of their own: services of systemd, reached over ssh or through Multipass.
//!
//! Who is interrupted leaves behind what it has broken; `deploy-brokers.sh` mends it, but for a cut, which ends by
//! itself after [`CUT_ENDS`].

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use mesh_lab::{Fault, wait_until};
use mesh_model::BrokerId;
use mesh_runtime::mqtt::{Connection, Identity};
use tokio::process::Command;

use crate::Login;

/// How a machine is reached.
#[derive(Debug, Clone)]
pub enum Reach {
    /// By ssh as this user: root, or one who may use sudo without a password.
    Ssh(String),
    /// By `multipass exec`.
    Multipass,
}

/// For a command on a machine, which may have a whole service to stop.
const COMMAND: Duration = Duration::from_secs(60);

/// For a broker to answer after its start: it may have a large state to load.
const START: Duration = Duration::from_secs(30);

/// Minutes after which a cut ends by itself.
const CUT_ENDS: u32 = 15;

/// The brokers' machines, and this one with the daemons.
#[derive(Debug, Clone)]
pub struct Machines {
    pub(crate) brokers: Vec<(BrokerId, SocketAddr)>,
    pub(crate) reach: Reach,
    pub(crate) login: Login,
}

impl Machines {
    /// Puts a fault in place, or ends one.
    pub(crate) async fn fault(&self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill { process } => self.kill(process).await,
            Fault::Hang { process } => {
                let (unit, _) = self.unit(process);
                // Returns when it stands still.
                let script = format!(
                    "systemctl kill --signal=STOP {unit}
                     pid=$(systemctl show --value --property MainPID {unit})
                     for _ in $(seq 50); do ! grep -q '^State:.*T' /proc/$pid/status || exit 0; sleep 0.1; done
                     exit 1"
                );
                self.run(process, &script).await
            }
            Fault::Resume { process } => {
                let (unit, _) = self.unit(process);
                self.run(process, &format!("systemctl kill --signal=CONT {unit}"))
                    .await
            }
            Fault::Restart { process } => {
                let (unit, _) = self.unit(process);
                // One that hangs would not end in order.
                let script = format!(
                    "systemctl kill --signal=KILL {unit} 2>/dev/null; systemctl reset-failed {unit} 2>/dev/null
                     systemctl restart {unit}"
                );
                self.run(process, &script).await?;
                self.answers(process).await
            }
            Fault::Cut { broker, from: None } => self.filter(broker, "all", "", "").await,
            Fault::Cut {
                broker,
                from: Some(from),
            } => {
                let ip = self.address(from)?.ip();
                let (to, of) = (format!("ip saddr {ip}"), format!("ip daddr {ip}"));
                self.filter(broker, &format!("from_{from}"), &to, &of).await
            }
            Fault::CutWay { broker, from } => {
                let ip = self.address(from)?.ip();
                let to = format!("ip saddr {ip}");
                // Nothing is sent to where nothing listens.
                self.filter(broker, &format!("from_{from}"), &to, "ip daddr 192.0.2.0")
                    .await
            }
            Fault::Loss { broker, percent } => {
                let share = format!("numgen random mod 100 < {percent}");
                self.filter(broker, "loss", &share, &share).await
            }
            Fault::Slow { broker, kbit } => {
                // What comes faster is dropped, as a full buffer drops it; TCP slows down.
                let bytes = u64::from(*kbit) * 1000 / 8;
                let share = format!("limit rate over {bytes} bytes/second burst 16 kbytes");
                self.filter(broker, "slow", &share, &share).await
            }
            Fault::Heal { broker, from } => {
                let which = from.as_ref().map(|from| format!("from_{from}"));
                let pattern = which.map_or("mesh_cut_".to_owned(), |which| {
                    format!("mesh_cut_{}$", table_name(&which))
                });
                let script = format!(
                    "nft list tables | sed -n 's/^table inet //p' | grep '^{pattern}' |
                     while read -r table; do
                       nft delete table inet $table; systemctl stop $table.timer 2>/dev/null; done
                     true"
                );
                self.run(broker.as_str(), &script).await
            }
        }
    }

    /// Has every broker run as if nothing had been done to it: what is cut, hangs or is dead is so no more.
    ///
    /// # Errors
    ///
    /// If a machine cannot be reached; the others are mended all the same.
    pub async fn mend(&self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for (id, _) in &self.brokers {
            let heal = Fault::Heal {
                broker: id.clone(),
                from: None,
            };
            let healed = self.fault(&heal).await;
            let script = "systemctl kill --signal=CONT mosquitto 2>/dev/null; systemctl start mosquitto";
            let started = self.run(id.as_str(), script).await;
            result = result.and(healed).and(started);
        }
        result
    }

    /// Ends a broker in order, so that it saves its state.
    ///
    /// # Errors
    ///
    /// If its machine cannot be reached.
    pub async fn halt(&self, broker: &BrokerId) -> anyhow::Result<()> {
        self.run(broker.as_str(), "systemctl stop mosquitto").await
    }

    /// Makes a broker save its state now.
    ///
    /// # Errors
    ///
    /// If its machine cannot be reached.
    pub async fn save(&self, broker: &BrokerId) -> anyhow::Result<()> {
        self.run(broker.as_str(), "systemctl kill --signal=USR1 mosquitto")
            .await
    }

    /// Removes all files of a broker that does not run.
    ///
    /// # Errors
    ///
    /// If its machine cannot be reached.
    pub async fn lose_files(&self, broker: &BrokerId) -> anyhow::Result<()> {
        let script = "dir=$(sed -n 's/^plugin_opt_data_dir //p' /etc/mesh/mosquitto.conf)
                      find \"${dir:?}\" -mindepth 1 -delete";
        self.run(broker.as_str(), script).await
    }

    /// Whether all machines have what cuts them off.
    pub(crate) async fn can_cut(&self) -> bool {
        for (id, _) in &self.brokers {
            if self.run(id.as_str(), "command -v nft >/dev/null").await.is_err() {
                return false;
            }
        }
        true
    }

    async fn kill(&self, process: &str) -> anyhow::Result<()> {
        let (unit, is_broker) = self.unit(process);
        // A broker stays dead until it is restarted; a daemon is started again by systemd.
        let stop = if is_broker {
            format!("; systemctl stop {unit}")
        } else {
            String::new()
        };
        self.run(process, &format!("systemctl kill --signal=KILL {unit}{stop}"))
            .await
    }

    /// Drops what comes to a broker's machine if `to` holds and what it sends if `of` does, all but ssh's, by which it is
    /// told to end it.
    async fn filter(&self, broker: &BrokerId, which: &str, to: &str, of: &str) -> anyhow::Result<()> {
        let table = format!("mesh_cut_{}", table_name(which));
        let script = format!(
            "nft -f - <<'END' || exit 1
add table inet {table}
delete table inet {table}
table inet {table} {{
  chain to {{ type filter hook input priority -300; iif lo accept; tcp dport 22 accept; {to} drop; }}
  chain of {{ type filter hook output priority -300; oif lo accept; tcp sport 22 accept; {of} drop; }}
}}
END
systemctl stop {table}.timer 2>/dev/null
systemd-run --quiet --collect --unit={table} --on-active={CUT_ENDS}min nft delete table inet {table}"
        );
        self.run(broker.as_str(), &script).await
    }

    /// The unit of a process, and whether it is a broker's.
    fn unit(&self, process: &str) -> (String, bool) {
        let is_broker = self.brokers.iter().any(|(id, _)| id.as_str() == process);
        let unit = match process {
            _ if is_broker => "mosquitto",
            "nginx" => "mesh-nginx",
            other => other,
        };
        (unit.to_owned(), is_broker)
    }

    fn address(&self, broker: &BrokerId) -> anyhow::Result<SocketAddr> {
        let found = self.brokers.iter().find(|(id, _)| id == broker);
        found
            .map(|(_, address)| *address)
            .with_context(|| format!("there is no {broker}"))
    }

    /// Waits until a broker takes clients.
    async fn answers(&self, process: &str) -> anyhow::Result<()> {
        let Some((_, address)) = self.brokers.iter().find(|(id, _)| id.as_str() == process) else {
            return Ok(());
        };
        let identity = Identity {
            client_id: format!("chaos-a{:x}", fastrand::u32(..)),
            login: self.login.clone(),
            keep_alive_s: 0,
        };
        let what = format!("an answer of {process}");
        let answer = wait_until(&what, START, async || {
            Connection::open(*address, &identity).await.map(drop)
        });
        Ok(answer.await?)
    }

    /// Runs a script as root where `process` is.
    async fn run(&self, process: &str, script: &str) -> anyhow::Result<()> {
        let address = self.brokers.iter().find(|(id, _)| id.as_str() == process);
        let mut command = match (address, &self.reach) {
            (None, _) => by_words(if rustix::process::geteuid().is_root() {
                &["sh", "-c"]
            } else {
                &["sudo", "-n", "sh", "-c"]
            }),
            (Some((id, _)), Reach::Multipass) => {
                by_words(&["multipass", "exec", id.as_str(), "--", "sudo", "sh", "-c"])
            }
            (Some((_, address)), Reach::Ssh(user)) => {
                let mut command = by_words(&["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]);
                command.arg(format!("{user}@{}", address.ip()));
                if user != "root" {
                    command.args(["sudo", "-n"]);
                }
                command.args(["sh", "-c"]);
                command
            }
        };
        // ssh puts its arguments together and has a shell take them apart again.
        let is_ssh = address.is_some() && matches!(self.reach, Reach::Ssh(_));
        command.arg(if is_ssh { quoted(script) } else { script.to_owned() });
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND, command.output());
        let output = output
            .await
            .with_context(|| format!("the machine of {process} does not answer within {COMMAND:?}"))?
            .with_context(|| format!("cannot reach the machine of {process}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "on the machine of {process}: {}",
            said.trim()
        );
        Ok(())
    }
}

fn by_words(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// nftables takes no hyphens in names.
fn table_name(text: &str) -> String {
    text.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_one_word_of_a_shell() {
        let script = "printf '%s' \"$0 it's\"";
        let words = format!("sh -c {}", quoted(script));
        let output = std::process::Command::new("sh")
            .args(["-c", &words])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "sh it's");
    }
}
