//! Listeners: clients connect to Nginx from now on, which has one door of each kind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_runtime::config::Problem;

use super::{Import, Verdict};
use crate::mosquitto_conf::options::{Fate, fate};
use crate::mosquitto_conf::{Conf, Directive, Section};

/// Where brokers take WebSockets from Nginx.
const BROKER_WEBSOCKETS: u16 = 8083;

/// The kinds of doors, as settings of `[balancer]`.
const KINDS: [&str; 4] = ["listen", "tls", "websockets", "websockets_tls"];

/// A listener that can be one of Nginx's.
struct Door<'a> {
    section: &'a Section,
    kind: &'static str,
    address: SocketAddr,
    /// Why the address is another one than before, if it is.
    moved: Option<String>,
}

impl Import {
    /// What becomes of the listeners.
    pub(super) fn doors(&mut self, conf: &Conf) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut doors = Vec::new();
        for section in conf.listeners.iter().filter(|section| exists(section)) {
            match door(section) {
                Ok(Ok(door)) => doors.push(door),
                Ok(Err(why)) => self.note_on(Verdict::Left, name(section), why),
                Err(problem) => problems.push(problem),
            }
            for option in &section.options {
                self.listener_option(option);
            }
        }
        for kind in KINDS {
            self.choose(kind, &doors);
        }
        let tls: Vec<&Door<'_>> = doors.iter().filter(|door| door.kind.ends_with("tls")).collect();
        self.certificate(&tls);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// Of the listeners of one kind the first that can be reached from other machines becomes Nginx's.
    fn choose(&mut self, kind: &'static str, doors: &[Door<'_>]) {
        let of_kind: Vec<&Door<'_>> = doors.iter().filter(|door| door.kind == kind).collect();
        let outside = of_kind.iter().find(|door| !door.address.ip().is_loopback());
        let Some(chosen) = outside.or(of_kind.first()).copied() else {
            if kind == "listen" {
                // Without TLS, Nginx always listens; nobody else shall come to that.
                self.set("balancer", "listen", "127.0.0.1:1883");
                let how = "balancer.listen = \"127.0.0.1:1883\", for this machine only";
                self.note_on(Verdict::Changed, "no listener without TLS and WebSockets", how);
            } else {
                self.unset("balancer", kind);
            }
            return;
        };
        self.set("balancer", kind, chosen.address.to_string());
        if kind.starts_with("websockets") {
            self.websockets = Some(BROKER_WEBSOCKETS);
        }
        let now = format!("balancer.{kind} = \"{}\"", chosen.address);
        match &chosen.moved {
            None => self.note_on(Verdict::Took, name(chosen.section), now),
            Some(why) => self.note_on(Verdict::Changed, name(chosen.section), format!("{now}: {why}")),
        }
        for door in of_kind {
            if !std::ptr::eq(door.section, chosen.section) {
                let how = format!(
                    "the balancer has one door of this kind; clients go to {}",
                    chosen.address
                );
                self.note_on(Verdict::Left, name(door.section), how);
            }
        }
    }

    /// One certificate for all doors with TLS.
    fn certificate(&mut self, doors: &[&Door<'_>]) {
        self.unset("balancer", "certificate");
        self.unset("balancer", "certificate_key");
        let pairs: Vec<(&Directive, &Directive)> = doors
            .iter()
            .filter_map(|door| Some((door.section.get("certfile")?, door.section.get("keyfile")?)))
            .collect();
        let Some((certificate, key)) = pairs.first() else {
            return;
        };
        self.set("balancer", "certificate", "certs/balancer.crt");
        self.set("balancer", "certificate_key", "certs/balancer.key");
        self.copy(certificate, "certs/balancer.crt", false);
        self.copy(key, "certs/balancer.key", true);
        self.note(
            Verdict::Took,
            certificate,
            "balancer.certificate = \"certs/balancer.crt\"",
        );
        self.note(
            Verdict::Took,
            key,
            "balancer.certificate_key = \"certs/balancer.key\"",
        );
        for (other, _) in &pairs[1..] {
            if other.value != certificate.value {
                let how = "the balancer shows one certificate at all doors, the first";
                self.note(Verdict::Left, other, how);
            }
        }
    }

    /// An option of a listener that is not what makes it a door.
    fn listener_option(&mut self, option: &Directive) {
        match (option.name.as_str(), fate(&option.name)) {
            ("port" | "bind_address" | "protocol" | "certfile" | "keyfile", _) => {}
            (_, Some(Fate::Without(why) | Fate::Never(why) | Fate::Mesh(why))) => {
                self.note(Verdict::Left, option, why);
            }
            _ => self.note(Verdict::Left, option, "the balancer has no such thing"),
        }
    }
}

/// Whether Mosquitto makes it: one that no line begins, if something is said of it.
fn exists(section: &Section) -> bool {
    section.head.is_some() || !section.options.is_empty()
}

fn name(section: &Section) -> String {
    let begin = section.head.as_ref().or_else(|| section.get("port"));
    let first = begin.or(section.options.first());
    first.map_or("the default listener".to_owned(), |directive| {
        format!("{directive} ({})", directive.place())
    })
}

/// What door a listener becomes, or why it becomes none.
fn door(section: &Section) -> Result<Result<Door<'_>, String>, Problem> {
    let (port, host) = section.port_and_host()?;
    if port == 0 {
        return Ok(Err(
            "a Unix socket; clients on this machine use the balancer".to_owned()
        ));
    }
    if section.get("psk_hint").is_some() {
        return Ok(Err(
            "Nginx knows no pre-shared keys; its clients need a certificate's TLS".to_owned(),
        ));
    }
    let tls = section.get("certfile").is_some() && section.get("keyfile").is_some();
    let protocol = section.get("protocol").map_or("mqtt", Directive::word);
    let kind = match (protocol, tls) {
        ("mqtt", false) => "listen",
        ("mqtt", true) => "tls",
        ("websockets", false) => "websockets",
        ("websockets", true) => "websockets_tls",
        (other, _) => return Ok(Err(format!("the balancer hands on MQTT, not {other}"))),
    };
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let unknown = |name: &str| {
        let why = format!(
            "which address {name} has is not known here, and this one opens nothing; set balancer.{kind}"
        );
        (loopback, Some(why))
    };
    let (ip, moved) = match (section.get("bind_interface"), host) {
        (Some(interface), _) => unknown(interface.word()),
        (None, None) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), None),
        (None, Some("localhost")) => (loopback, None),
        (None, Some(host)) => host.parse().map_or_else(|_| unknown(host), |ip| (ip, None)),
    };
    Ok(Ok(Door {
        section,
        kind,
        address: SocketAddr::new(ip, port),
        moved,
    }))
}
