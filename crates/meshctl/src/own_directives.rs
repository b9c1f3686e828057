//! The operator's own directives in `mosquitto.extra_dir`: what among them a mesh cannot live with, and which files they
//! name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use mesh_model::names::LINK_USER;
use mesh_model::{Broker, BrokerId};
use mesh_runtime::config::Problem;
use mesh_runtime::{Config, ConfigError};

use crate::mosquitto_conf::options::{Fate, fate, names_a_file};
use crate::mosquitto_conf::{Conf, Directive, Section};

/// A port that is taken: on which machine, at which of its addresses (`None`: all), by whom.
struct Taken {
    machine: IpAddr,
    host: Option<IpAddr>,
    port: u16,
    owner: String,
}

/// Checks the own directives of every broker.
///
/// # Errors
///
/// [`ConfigError::Invalid`] with every problem in the files of one broker.
pub fn check(config: &Config) -> Result<(), ConfigError> {
    let Some(dir) = &config.mosquitto.extra_dir else {
        return Ok(());
    };
    let mut taken: Vec<Taken> = config.topology.brokers().iter().flat_map(ports).collect();
    for broker in config.topology.brokers() {
        let path = folder_of(dir, &broker.id);
        let conf = Conf::read_included(&path)?;
        let mut problems = Vec::new();
        problems.extend(named(&conf).filter_map(relative));
        problems.extend(conf.general.iter().filter_map(general));
        for listener in &conf.listeners {
            problems.extend(self::listener(listener, broker, &mut taken));
        }
        let peers: Vec<&BrokerId> = config.topology.peers(&broker.id).map(|peer| &peer.id).collect();
        problems.extend(conf.bridges.iter().flat_map(|section| bridge(section, &peers)));
        problems.extend(conf.plugins.iter().filter_map(|section| plugin(section, config)));
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { path, problems });
        }
    }
    Ok(())
}

/// The folders whose files come with a machine's own packages.
const SYSTEM: [&str; 3] = ["/usr", "/etc/ssl", "/etc/ca-certificates"];

/// The files that the own directives of `broker` name and that its machine does not have by itself.
///
/// # Errors
///
/// [`ConfigError`] if a file of directives cannot be read.
pub fn files(config: &Config, broker: &BrokerId) -> Result<BTreeSet<PathBuf>, ConfigError> {
    let Some(dir) = &config.mosquitto.extra_dir else {
        return Ok(BTreeSet::new());
    };
    let conf = Conf::read_included(&folder_of(dir, broker))?;
    let all = named(&conf).map(|directive| PathBuf::from(&directive.value));
    Ok(all
        .filter(|path| path.is_absolute() && !SYSTEM.iter().any(|folder| path.starts_with(folder)))
        .collect())
}

fn folder_of(dir: &Path, broker: &BrokerId) -> PathBuf {
    PathBuf::from(dir.to_string_lossy().replace("{broker}", broker.as_str()))
}

/// The directives that name a file.
fn named(conf: &Conf) -> impl Iterator<Item = &Directive> {
    let sections = conf.listeners.iter().chain(&conf.bridges);
    let all = conf
        .general
        .iter()
        .chain(sections.flat_map(|section| &section.options));
    all.filter(|directive| names_a_file(&directive.name))
}

fn relative(directive: &Directive) -> Option<Problem> {
    let why =
        "names a file without its folder, and a service has none that it starts in; give the whole path";
    (!Path::new(&directive.value).is_absolute()).then(|| directive.problem(why))
}

fn ports(broker: &Broker) -> Vec<Taken> {
    let all = [Some(broker.address), broker.websockets, broker.tls];
    let taken = all.into_iter().flatten().map(|address| Taken {
        machine: broker.address.ip(),
        host: Some(address.ip()).filter(|ip| !ip.is_unspecified()),
        port: address.port(),
        owner: format!("{} of the mesh", broker.id),
    });
    taken.collect()
}

/// What is wrong with a directive about the whole broker.
fn general(directive: &Directive) -> Option<Problem> {
    // What the mesh has anyway does no harm.
    let usual: BTreeMap<&str, bool> = [
        ("per_listener_settings", false),
        ("retain_available", true),
        ("persistence", true),
        ("set_tcp_nodelay", true),
        ("connection_messages", true),
        ("log_timestamp", true),
    ]
    .into();
    if let Some(usual) = usual.get(directive.name.as_str())
        && directive.switch() == Some(*usual)
    {
        return None;
    }
    let why = match fate(&directive.name)? {
        Fate::Own | Fate::Without(_) => return None,
        Fate::Setting(key) => format!("is set by {key} in mesh.toml; take the line out"),
        Fate::Mesh(why) => format!("is set by the mesh: {why}; take the line out"),
        Fate::Never(why) => format!("cannot be used in a mesh: {why}; take the line out"),
    };
    Some(directive.problem(why))
}

/// What is wrong with a listener; notes its port as taken.
fn listener(section: &Section, broker: &Broker, taken: &mut Vec<Taken>) -> Vec<Problem> {
    let Some(head) = &section.head else {
        // Mosquitto would make a listener of these, at port 1883 of all addresses.
        let stray = section.options.iter();
        let why = "belongs to a listener, and none stands before it in its file: Mosquitto would open port 1883 for it";
        return stray.map(|option| option.problem(why)).collect();
    };
    let (port, host) = match section.port_and_host() {
        Ok((0, _)) => return Vec::new(),
        Ok(place) => place,
        Err(problem) => return vec![problem],
    };
    let machine = broker.address.ip();
    // A name could be any address of this machine.
    let host = host.and_then(|host| match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        host => host.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified()),
    });
    let meets = |other: &&Taken| {
        let same_host = host.is_none() || other.host.is_none() || host == other.host;
        other.machine == machine && other.port == port && same_host
    };
    if let Some(other) = taken.iter().find(meets) {
        let why = format!("port {port} of {machine} is taken, by {}", other.owner);
        return vec![head.problem(why)];
    }
    taken.push(Taken {
        machine,
        host,
        port,
        owner: format!("{} at {}", broker.id, head.place()),
    });
    Vec::new()
}

fn bridge(section: &Section, peers: &[&BrokerId]) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(head) = &section.head
        && peers.iter().any(|peer| head.word() == format!("mesh-{peer}"))
    {
        problems.push(head.problem("is the name of a link; give the bridge another one"));
    }
    if let Some(user) = section.get("local_username")
        && user.value == LINK_USER
    {
        let why =
            "is the links' own: what this bridge brings would count as told by a peer; give it another one";
        problems.push(user.problem(why));
    }
    if let Some(id) = section.get("local_clientid")
        && id.value.starts_with("mesh.")
    {
        problems.push(id.problem("client ids that begin with mesh. are the mesh's own; give it another one"));
    }
    problems
}

/// A plugin here comes after the mesh-plugin, which hands on only what somebody else is to decide.
fn plugin(section: &Section, config: &Config) -> Option<Problem> {
    let mosquitto = &config.mosquitto;
    let mut missing = Vec::new();
    if !mosquitto.clients_are_authenticated() {
        missing.push("logins without mosquitto.password_file");
    }
    if !mosquitto.clients_are_restricted() {
        missing.push("topics without mosquitto.acl_file");
    }
    let head = section.head.as_ref()?;
    (!missing.is_empty()).then(|| {
        head.problem(format!(
            "is not asked about {}: the mesh-plugin comes first and allows them; set that, if need be to an empty file",
            missing.join(" and ")
        ))
    })
}
