//! Everything that is written before the first process starts, and what is to be started then.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use mesh_model::{BrokerId, Plan};
use mesh_runtime::secrets::Secrets;
use mesh_runtime::{Config, atomic_file};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::error::LabError;
use crate::layout::{Contents, mesh_toml};
use crate::net::{Addresses, Place};
use crate::options::{ExtraProcess, LabOptions};
use crate::process::Spec;
use crate::programs::Programs;
use crate::state::State;

/// The name of the balancer's process.
pub(crate) const NGINX: &str = "nginx";
/// The name of mesh-health's process.
pub(crate) const HEALTH: &str = "mesh-health";
/// The name of mesh-dashboard's process.
pub(crate) const DASHBOARD: &str = "mesh-dashboard";
/// The name of mesh-logs' process.
pub(crate) const LOGS: &str = "mesh-logs";

/// Enough for a thousand clients a broker; more would only make Nginx reserve memory.
const OPEN_FILES: u64 = 65_536;

/// The written lab.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
    /// In the order in which they are started; they are stopped the other way round.
    pub(crate) specs: Vec<Spec>,
}

/// Writes the configuration of every process into `state`.
pub(crate) fn write(
    state: &State,
    programs: &Programs,
    addresses: &Addresses,
    options: &LabOptions,
) -> Result<Setup, LabError> {
    let path = state.root().join("mesh.toml");
    let extra: Vec<&str> = options.extra.iter().map(|extra| extra.name.as_str()).collect();
    let text = mesh_toml(&Contents {
        state: state.root(),
        programs,
        addresses,
        user: &user_name()?,
        is_root: geteuid().is_root(),
        open_files: raise_open_files(),
        certificates: options.certificates.as_deref(),
        extra: &extra,
        settings: &options.settings,
    })?;
    atomic_file::write(&path, text.as_bytes(), 0o644)?;
    let config = Config::load(&path, std::env::vars(), &[])?;
    let secrets = Secrets::load_or_create(&config.security.secrets_dir)?;

    let mut specs = Vec::new();
    for (node, id) in config.topology.ids().enumerate() {
        let contents = match &options.broker_conf {
            Some(make) => make(&config, &secrets, id),
            None => mesh_render::broker_conf(&config, &secrets, id)?,
        };
        specs.push(broker(state, &config, id, node, &contents)?);
    }
    if let Some(nginx) = &programs.nginx {
        specs.push(balancer(state, &config, nginx.takes_error_log)?);
    }
    if let Some(program) = &programs.mesh_health {
        specs.push(daemon(state, HEALTH, program, &path)?);
    }
    if let Some(program) = &programs.mesh_dashboard {
        specs.push(daemon(state, DASHBOARD, program, &path)?);
    }
    if let Some(program) = &programs.mesh_logs {
        specs.push(daemon(state, LOGS, program, &path)?);
    }
    for (extra, address) in options.extra.iter().zip(&addresses.extra) {
        specs.push(other(state, &config, extra, *address)?);
    }
    Ok(Setup {
        config,
        secrets,
        specs,
    })
}

fn broker(state: &State, config: &Config, id: &BrokerId, node: usize, conf: &str) -> Result<Spec, LabError> {
    let folder = state.folder(id.as_str())?;
    let file = folder.join("mosquitto.conf");
    atomic_file::write(&file, conf.as_bytes(), 0o600)?;
    Ok(Spec {
        name: id.to_string(),
        program: config.mosquitto.program.clone(),
        arguments: vec!["-c".into(), file.into()],
        log: folder.join("mosquitto.log"),
        folder,
        place: Place::Node(node),
        supervised: false,
    })
}

fn balancer(state: &State, config: &Config, takes_error_log: bool) -> Result<Spec, LabError> {
    let folder = state.folder(NGINX)?;
    let file = folder.join("nginx.conf");
    atomic_file::write(&file, mesh_render::nginx_conf(config)?.as_bytes(), 0o644)?;
    let upstream = folder.join("upstream.conf");
    let plan = first_plan(config, &upstream);
    atomic_file::write(
        &upstream,
        mesh_render::upstream_conf(config, &plan)?.as_bytes(),
        0o644,
    )?;
    let mut arguments: Vec<OsString> = vec!["-c".into(), file.into(), "-p".into(), folder.clone().into()];
    if takes_error_log {
        arguments.extend(["-e".into(), folder.join("error.log").into()]);
    }
    Ok(Spec {
        name: NGINX.to_owned(),
        program: config.balancer.program.clone(),
        arguments,
        log: folder.join("nginx.log"),
        folder,
        place: Place::Host,
        supervised: true,
    })
}

/// The plan to begin with: that of an earlier lab in this folder if it was about the same brokers, so that
/// generations only rise and clients stay where they were, else the first.
fn first_plan(config: &Config, upstream: &Path) -> Plan {
    let fresh = mesh_render::first_plan(config);
    let text = std::fs::read_to_string(upstream).unwrap_or_default();
    match mesh_render::plan_of_upstream(&text) {
        None => fresh,
        Some(plan) if sorted(&plan) == sorted(&fresh) => plan,
        Some(plan) => Plan::new(plan.generation + 1, fresh.primary, fresh.standbys),
    }
}

fn sorted(plan: &Plan) -> Vec<&BrokerId> {
    let mut ids: Vec<&BrokerId> = plan.standbys.iter().chain([&plan.primary]).collect();
    ids.sort();
    ids
}

fn daemon(state: &State, name: &str, program: &Path, mesh_toml: &Path) -> Result<Spec, LabError> {
    let folder = state.folder(name)?;
    Ok(Spec {
        name: name.to_owned(),
        program: program.to_owned(),
        arguments: vec!["--config".into(), mesh_toml.into()],
        log: folder.join(format!("{name}.log")),
        folder,
        place: Place::Host,
        supervised: true,
    })
}

fn other(state: &State, config: &Config, extra: &ExtraProcess, listen: SocketAddr) -> Result<Spec, LabError> {
    let folder = state.folder(&extra.name)?;
    for (name, contents) in (extra.files)(config, listen, &folder) {
        atomic_file::write(&folder.join(name), contents.as_bytes(), 0o644)?;
    }
    Ok(Spec {
        name: extra.name.clone(),
        program: extra.program.clone(),
        arguments: extra.arguments.clone(),
        log: folder.join("output.log"),
        folder,
        place: Place::Host,
        supervised: true,
    })
}

/// The name of the user that this process runs as. The user database of macOS is not a file, so `id` is asked.
fn user_name() -> Result<String, LabError> {
    let output = Command::new("id")
        .arg("-un")
        .output()
        .map_err(LabError::io("run `id -un`"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Lets the programs open as many files as this user may, and returns how many.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    let now = limit.current.unwrap_or(OPEN_FILES);
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    // Where it cannot be raised (macOS has a second limit), fewer clients must do.
    if now < most && setrlimit(Resource::Nofile, raised).is_err() {
        return now;
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_of_an_earlier_lab_goes_on_if_the_brokers_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let config = |brokers: usize| {
            let path = folder.path().join("mesh.toml");
            let broker = |n| {
                format!(
                    "[[broker]]\nid = \"broker{n}\"\naddress = \"127.0.0.1:{}\"\n",
                    2000 + n
                )
            };
            std::fs::write(&path, (1..=brokers).map(broker).collect::<String>()).unwrap();
            Config::load(&path, [], &[]).unwrap()
        };
        let upstream = folder.path().join("upstream.conf");
        let two = config(2);
        assert_eq!(first_plan(&two, &upstream), mesh_render::first_plan(&two));

        let id = |text: &str| text.parse::<BrokerId>().unwrap();
        let moved = Plan::new(7, id("broker2"), [id("broker1")]);
        std::fs::write(&upstream, mesh_render::upstream_conf(&two, &moved).unwrap()).unwrap();
        assert_eq!(first_plan(&two, &upstream), moved);
        let three = config(3);
        let plan = first_plan(&three, &upstream);
        assert_eq!(
            (plan.generation, plan.primary.as_str(), plan.standbys.len()),
            (8, "broker1", 2)
        );
    }
}
