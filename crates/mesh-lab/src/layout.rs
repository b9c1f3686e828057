//! Which port is whose, and the `mesh.toml` of a lab.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::error::LabError;
use crate::net::Addresses;
use crate::programs::Programs;

/// The ports of a lab on 127.0.0.1. They follow from the base port alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// Where Nginx takes clients: the base port.
    pub balancer: u16,
    /// Where Nginx tells which plan it runs.
    pub readback: u16,
    /// Where the brokers take clients.
    pub brokers: Vec<u16>,
    /// The page.
    pub dashboard: u16,
    /// mesh-health's API.
    pub health: u16,
    /// mesh-logs' API.
    pub logs: u16,
    /// Where the extra processes listen, in their order.
    pub extra: Vec<u16>,
    /// Where WebSockets are taken.
    pub websockets: Option<Door<u16>>,
    /// Where TLS is taken: from clients by Nginx, from links by brokers.
    pub tls: Option<Door<u16>>,
}

/// A further way into the balancer and to each broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door<T> {
    /// That of the balancer.
    pub balancer: T,
    /// Those of the brokers.
    pub brokers: Vec<T>,
}

impl<T> Door<T> {
    /// The same with each place changed by `change`.
    pub(crate) fn map<U>(&self, change: impl Fn(&T) -> U) -> Door<U> {
        Door {
            balancer: change(&self.balancer),
            brokers: self.brokers.iter().map(change).collect(),
        }
    }
}

/// The most brokers of a lab whose brokers have further doors: there are no more ports.
pub const MAX_BROKERS_WITH_DOORS: usize = 15;

/// The base port of `meshctl lab` if none is named.
const DEFAULT_BASE: u16 = 18_830;

impl Ports {
    /// The ports for `brokers` brokers above `base`.
    ///
    /// # Errors
    ///
    /// [`LabError::Options`] if there are no such ports.
    pub fn new(base: u16, brokers: usize) -> Result<Self, LabError> {
        if !(2..=65_000).contains(&base) {
            return Err(LabError::Options(format!(
                "the base port {base} must be between 2 and 65000"
            )));
        }
        let [dashboard, health, logs] = match base {
            DEFAULT_BASE => [3000, 3001, 3002],
            base => [base + 70, base + 71, base + 72],
        };
        Ok(Self {
            balancer: base,
            readback: base - 1,
            brokers: (base + 1..).take(brokers).collect(),
            dashboard,
            health,
            logs,
            extra: Vec::new(),
            websockets: None,
            tls: None,
        })
    }

    /// The same with ports for WebSockets, for TLS, or both.
    ///
    /// # Errors
    ///
    /// [`LabError::Options`] if there are more than [`MAX_BROKERS_WITH_DOORS`] brokers.
    pub fn with_doors(mut self, websockets: bool, tls: bool) -> Result<Self, LabError> {
        let count = self.brokers.len();
        if (websockets || tls) && count > MAX_BROKERS_WITH_DOORS {
            return Err(LabError::Options(format!(
                "with WebSockets or TLS a lab has at most {MAX_BROKERS_WITH_DOORS} brokers"
            )));
        }
        let base = self.balancer;
        let door = |balancer, first| Door {
            balancer: base + balancer,
            brokers: (base + first..).take(count).collect(),
        };
        self.websockets = websockets.then(|| door(73, 16));
        self.tls = tls.then(|| door(74, 32));
        Ok(self)
    }

    /// The same with ports for `count` extra processes: above those of the brokers, below those of the daemons.
    #[must_use]
    pub fn with_extra(mut self, count: usize) -> Self {
        self.extra = (self.balancer + 50..).take(count).collect();
        self
    }
}

/// What [`mesh_toml`] writes down.
pub(crate) struct Contents<'a> {
    pub(crate) state: &'a Path,
    pub(crate) programs: &'a Programs,
    pub(crate) addresses: &'a Addresses,
    pub(crate) user: &'a str,
    pub(crate) is_root: bool,
    /// How many files a process may have open.
    pub(crate) open_files: u64,
    /// The folder of the certificates, if there is TLS.
    pub(crate) certificates: Option<&'a Path>,
    /// The names of the extra processes.
    pub(crate) extra: &'a [&'a str],
    /// TOML that is laid over it.
    pub(crate) settings: &'a str,
}

/// The text of the lab's `mesh.toml`.
pub(crate) fn mesh_toml(contents: &Contents<'_>) -> Result<String, LabError> {
    let Contents {
        state,
        programs,
        addresses,
        ..
    } = contents;
    let path = |path: &Path| value(path.to_string_lossy().into_owned());
    let address = |address: SocketAddr| value(address.to_string());
    let mut document = DocumentMut::new();

    let doors = [("websockets", &addresses.websockets), ("tls", &addresses.tls)];
    let mut brokers = ArrayOfTables::new();
    for (index, broker) in addresses.brokers.iter().enumerate() {
        let mut table = Table::new();
        table["id"] = value(format!("broker{}", index + 1));
        table["address"] = address(*broker);
        for (name, door) in doors {
            if let Some(door) = door {
                table[name] = address(door.brokers[index]);
            }
        }
        brokers.push(table);
    }
    document["broker"] = Item::ArrayOfTables(brokers);

    let mosquitto = section(&mut document, "mosquitto");
    mosquitto["program"] = path(&programs.mosquitto);
    if let Some(plugin) = &programs.plugin {
        mosquitto["plugin"] = path(plugin);
    }
    mosquitto["data_dir"] = path(&state.join("{broker}"));
    if let Some(folder) = contents.certificates {
        mosquitto["tls_dir"] = path(folder);
    }
    // Started by root, a broker would else become somebody who may not write here.
    mosquitto["user"] = value(contents.user);

    let balancer = section(&mut document, "balancer");
    balancer["listen"] = address(addresses.balancer);
    balancer["readback"] = address(addresses.readback);
    for (name, door) in doors {
        if let Some(door) = door {
            balancer[name] = address(door.balancer);
        }
    }
    if let Some(folder) = contents.certificates {
        balancer["certificate"] = path(&folder.join("balancer.crt"));
        balancer["certificate_key"] = path(&folder.join("balancer.key"));
    }
    balancer["dir"] = path(&state.join("nginx"));
    if let Some(nginx) = &programs.nginx {
        balancer["program"] = path(&nginx.program);
        if let Some(module) = &nginx.stream_module {
            balancer["stream_module"] = path(module);
        }
    }
    if contents.is_root {
        balancer["user"] = value(contents.user);
    }
    if let Some(source) = addresses.proxy_bind {
        balancer["proxy_bind"] = value(source.to_string());
    }
    // Nginx asks for 64 files more than it may have connections.
    let connections = contents.open_files.saturating_sub(64).clamp(64, 16_384);
    balancer["worker_connections"] = value(i64::try_from(connections).unwrap_or(64));

    section(&mut document, "health")["listen"] = address(addresses.health);
    section(&mut document, "dashboard")["listen"] = address(addresses.dashboard);
    if programs.mesh_logs.is_some() {
        let logs = section(&mut document, "logs");
        logs["listen"] = address(addresses.logs);
        logs["database"] = path(&state.join("mesh.db"));
        logs["source"] = Item::ArrayOfTables(sources(contents));
    }
    section(&mut document, "security")["secrets_dir"] = path(&state.join("secrets"));

    let settings: DocumentMut = contents
        .settings
        .parse()
        .map_err(|error| LabError::Settings(Box::new(error)))?;
    lay_over(document.as_table_mut(), settings.as_table());
    let head = "# Written by the lab at each start.\n\n";
    Ok(format!("{head}{document}"))
}

/// What every process of the lab writes.
fn sources(contents: &Contents<'_>) -> ArrayOfTables {
    let mut sources = ArrayOfTables::new();
    let mut add = |name: &str, file: &str, format: &str| {
        let mut table = Table::new();
        table["name"] = value(name);
        table["path"] = value(contents.state.join(file).to_string_lossy().into_owned());
        table["format"] = value(format);
        if format == "mosquitto" {
            table["broker"] = value(name);
        } else {
            table["node"] = value("host");
            table["service"] = value(name.split('.').next().unwrap_or(name));
        }
        sources.push(table);
    };
    for number in 1..=contents.addresses.brokers.len() {
        let name = format!("broker{number}");
        add(&name, &format!("{name}/mosquitto.log"), "mosquitto");
    }
    if contents.programs.nginx.is_some() {
        add("nginx.error", "nginx/error.log", "nginx");
        add("nginx.access", "nginx/access.log", "nginx");
        add("nginx.output", "nginx/nginx.log", "nginx");
    }
    if contents.programs.mesh_health.is_some() {
        add("mesh-health", "mesh-health/mesh-health.log", "mesh");
    }
    if contents.programs.mesh_dashboard.is_some() {
        add("mesh-dashboard", "mesh-dashboard/mesh-dashboard.log", "mesh");
    }
    add("mesh-logs", "mesh-logs/mesh-logs.log", "mesh");
    for name in contents.extra {
        add(name, &format!("{name}/output.log"), "auto");
    }
    sources
}

fn section<'a>(document: &'a mut DocumentMut, name: &str) -> &'a mut Table {
    document
        .entry(name)
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_mut()
        .expect("it was made as a table")
}

/// Puts everything of `over` into `under`; of two values that of `over` stays.
fn lay_over(under: &mut Table, over: &Table) {
    for (key, item) in over {
        match (under.get_mut(key).and_then(Item::as_table_mut), item.as_table()) {
            (Some(under), Some(over)) => lay_over(under, over),
            _ => {
                under.insert(key, item.clone());
            }
        }
    }
}

/// The source address of Nginx's connections in the loopback lab, by which mesh-health tells them from links
/// and probes. macOS has only 127.0.0.1 on its loopback.
pub(crate) fn loopback_source() -> Option<IpAddr> {
    cfg!(target_os = "linux").then_some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_runtime::Config;

    #[test]
    fn the_base_port_gives_all_others() {
        let ports = Ports::new(18_830, 2).unwrap();
        assert_eq!(ports.readback, 18_829);
        assert_eq!(ports.brokers, [18_831, 18_832]);
        assert_eq!((ports.dashboard, ports.health, ports.logs), (3000, 3001, 3002));
        let ports = Ports::new(20_010, 1).unwrap();
        assert_eq!(
            (ports.dashboard, ports.health, ports.logs),
            (20_080, 20_081, 20_082)
        );
        let doors = ports.with_doors(true, true).unwrap();
        let (websockets, tls) = (doors.websockets.unwrap(), doors.tls.unwrap());
        assert_eq!((websockets.balancer, tls.balancer), (20_083, 20_084));
        assert_eq!((websockets.brokers, tls.brokers), (vec![20_026], vec![20_042]));
        assert!(Ports::new(20_010, 16).unwrap().with_doors(true, false).is_err());
        assert!(Ports::new(1, 1).is_err() && Ports::new(65_001, 1).is_err());
    }

    #[test]
    fn the_lab_writes_a_mesh_toml_that_is_accepted_with_settings_laid_over() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs {
            mosquitto: "/usr/sbin/mosquitto".into(),
            plugin: Some("/x/libmesh_plugin.so".into()),
            nginx: None,
            mesh_health: None,
            mesh_dashboard: None,
            mesh_logs: Some("/x/mesh-logs".into()),
        };
        let addresses = Addresses::loopback(&Ports::new(18_830, 5).unwrap());
        let text = |settings| {
            mesh_toml(&Contents {
                state: folder.path(),
                programs: &programs,
                addresses: &addresses,
                user: "ada",
                is_root: true,
                open_files: 1024,
                certificates: None,
                extra: &["haproxy"],
                settings,
            })
        };
        let file = folder.path().join("mesh.toml");
        std::fs::write(
            &file,
            text("[health]\ndead_after = \"2s\"\n[mosquitto]\nuser = \"eve\"\n").unwrap(),
        )
        .unwrap();
        let config = Config::load(&file, [], &[]).unwrap();
        assert_eq!(config.topology.brokers().len(), 5);
        assert_eq!(config.health.dead_after.as_secs(), 2);
        assert_eq!(config.health.listen.port(), 3001);
        let sources = config.logs.sources.iter().map(|source| source.name.as_str());
        let expected = [
            "broker1",
            "broker2",
            "broker3",
            "broker4",
            "broker5",
            "mesh-logs",
            "haproxy",
        ];
        assert_eq!(sources.collect::<Vec<_>>(), expected);
        assert_eq!(config.logs.listen.port(), 3002);
        assert_eq!(config.mosquitto.user, "eve");
        assert_eq!(config.balancer.worker_connections, 960);
        assert!(text("[health").is_err());
    }
}
