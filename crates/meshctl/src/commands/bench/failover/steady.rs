//! What mesh-health costs while nothing happens.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_lab::{ExtraProcess, Lab, own_program, wait_until};
use mesh_model::HealthStatus;
use mesh_runtime::Config;
use serde::Serialize;

use super::simulated::Simulated;
use super::systems::{System, status};
use crate::commands::bench::usage;

/// How many brokers are simulated.
const SIMULATED: usize = 50;

/// A second mesh-health and the Nginx that it tells, for the simulated brokers.
const HEALTH: &str = "health-50";
const NGINX: &str = "nginx-50";

/// How long it is left alone before the measuring begins.
const SETTLE: Duration = Duration::from_millis(500);

const DEADLINE: Duration = Duration::from_secs(30);

/// mesh-health at rest.
#[derive(Debug, Clone, Serialize)]
pub struct Steady {
    /// How many brokers it watches.
    pub brokers: usize,
    /// Whether these only answer as brokers do.
    pub simulated: bool,
    /// Percent of one core; `None` where it cannot be told.
    pub cpu_percent: Option<f64>,
    /// Memory in MiB.
    pub rss_mib: Option<f64>,
    /// For how many seconds it was watched.
    pub seconds: f64,
}

/// What the lab has to run for [`simulated`]; the files are written then.
pub fn extra(lab_nginx: &Path) -> anyhow::Result<Vec<ExtraProcess>> {
    let process = |name: &str, program: &Path, arguments: &[&str]| ExtraProcess {
        name: name.to_owned(),
        program: program.to_owned(),
        arguments: arguments.iter().map(Into::into).collect(),
        files: Arc::new(|_, _, _| Vec::new()),
    };
    let health = own_program("mesh-health")?;
    Ok(vec![
        process(HEALTH, &health, &["--config", "mesh.toml"]),
        process(NGINX, lab_nginx, &["-p", ".", "-c", "nginx.conf"]),
    ])
}

/// The lab's own mesh-health on its real brokers.
pub async fn real(lab: &Lab, watch: Duration) -> anyhow::Result<Steady> {
    System::Ours.start(lab).await?;
    let pid = lab.pid("mesh-health").context("mesh-health does not run")?;
    let steady = measure(pid, lab.config().topology.brokers().len(), false, watch).await;
    System::Ours.stop(lab).await?;
    Ok(steady)
}

/// A mesh-health of its own on simulated brokers.
pub async fn simulated(lab: &Lab, watch: Duration) -> anyhow::Result<Steady> {
    let simulated = Simulated::start(SIMULATED).await?;
    let config = write_files(lab, &simulated)?;
    lab.restart(NGINX).await?;
    lab.restart(HEALTH).await?;
    let url = format!("http://{}", config.health.listen);
    wait_until("health of every simulated broker", DEADLINE, async || {
        let status = status(&url).await?;
        let healthy = |broker: &&mesh_model::BrokerSnapshot| broker.health == HealthStatus::Healthy;
        match status.brokers.iter().filter(healthy).count() {
            SIMULATED if status.balancer.confirmed => Ok(()),
            count => Err(format!("{count} are healthy, {:?}", status.balancer)),
        }
    })
    .await?;
    let pid = lab.pid(HEALTH).context("mesh-health does not run")?;
    let steady = measure(pid, SIMULATED, true, watch).await;
    lab.halt(HEALTH).await?;
    lab.halt(NGINX).await?;
    Ok(steady)
}

fn write_files(lab: &Lab, simulated: &Simulated) -> anyhow::Result<Config> {
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    let (ours, folder) = (&lab.config().balancer, lab.log_dir(NGINX));
    let mut text = String::new();
    for (id, address) in &simulated.brokers {
        text += &format!("[[broker]]\nid = \"{id}\"\naddress = \"{address}\"\n");
    }
    // The read-back takes the port that mesh-logs would have.
    text += &format!(
        "[balancer]\nlisten = \"{}\"\nreadback = \"127.0.0.1:{}\"\ndir = {}\nprogram = {}\n\
         worker_connections = 1024\n",
        lab.extra(NGINX),
        lab.ports().logs,
        quoted(&folder),
        quoted(&ours.program),
    );
    if let Some(module) = &ours.stream_module {
        text += &format!("stream_module = {}\n", quoted(module));
    }
    if let Some(user) = &ours.user {
        text += &format!("user = \"{user}\"\n");
    }
    text += &format!(
        "[health]\nlisten = \"{}\"\n[security]\nsecrets_dir = {}\n",
        lab.extra(HEALTH),
        quoted(&lab.config().security.secrets_dir),
    );
    let path = lab.log_dir(HEALTH).join("mesh.toml");
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let config = Config::load(&path, [], &[])?;
    let plan = mesh_render::first_plan(&config);
    std::fs::write(folder.join("nginx.conf"), mesh_render::nginx_conf(&config)?)?;
    std::fs::write(
        folder.join("upstream.conf"),
        mesh_render::upstream_conf(&config, &plan)?,
    )?;
    Ok(config)
}

async fn measure(pid: u32, brokers: usize, simulated: bool, watch: Duration) -> Steady {
    tokio::time::sleep(SETTLE).await;
    let (start, before) = (Instant::now(), usage::cpu_of_process(pid));
    tokio::time::sleep(watch).await;
    let (elapsed, after) = (start.elapsed(), usage::cpu_of_process(pid));
    let used = after
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    Steady {
        brokers,
        simulated,
        cpu_percent: used.map(|used| used.as_secs_f64() / elapsed.as_secs_f64() * 100.0),
        rss_mib: usage::memory_of(pid).map(|bytes| bytes as f64 / f64::from(1 << 20)),
        seconds: elapsed.as_secs_f64(),
    }
}
