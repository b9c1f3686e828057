//! A broker's `mosquitto.conf`, with a bridge for each of its peers.

use std::net::SocketAddr;

use mesh_model::{Broker, BrokerId, Link, names};
use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;
use minijinja::context;
use serde::Serialize;

use crate::template::{RenderError, plain, plain_of, render};

#[derive(Serialize)]
struct Peer {
    id: String,
    /// Where the bridge connects.
    link_address: String,
    /// As the plugin reads it.
    named_address: String,
    link_client_id: String,
    local_client_id: String,
}

/// The configuration of the broker `id`.
///
/// # Errors
///
/// [`RenderError`] if `id` is unknown or a path cannot stand in the file.
pub fn broker_conf(config: &Config, secrets: &Secrets, id: &BrokerId) -> Result<String, RenderError> {
    let broker = config
        .topology
        .get(id)
        .ok_or_else(|| RenderError::UnknownBroker(id.clone()))?;
    let peers: Vec<Peer> = config
        .topology
        .peers(id)
        .map(|peer| describe_peer(config, peer, broker))
        .collect();
    let m = &config.mosquitto;
    let optional = |key, path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| plain_of(key, path, id)).transpose()
    };
    let dynamic_security_file = optional("mosquitto.dynamic_security_file", &m.dynamic_security_file)?;
    let password_file = optional("mosquitto.password_file", &m.password_file)?;
    let acl_file = optional("mosquitto.acl_file", &m.acl_file)?;
    let tls_file = |name: &str| {
        let path = m.tls_dir.as_ref().map(|folder| folder.join(name));
        optional("mosquitto.tls_dir", &path)
    };
    let listener = |address: Option<SocketAddr>| {
        address.map(|address| {
            context! { ip => address.ip().to_string(), port => address.port(), is_ipv4 => address.is_ipv4() }
        })
    };
    let tls = match tls_file("ca.crt")? {
        Some(ca) => Some(context! {
            ca,
            certificate => tls_file(&format!("{id}.crt"))?,
            key => tls_file(&format!("{id}.key"))?,
        }),
        None => None,
    };
    render(
        "broker.conf.j2",
        context! {
            source => config.path.to_string_lossy(),
            broker => context! {
                id => id.as_str(),
                ip => broker.address.ip().to_string(),
                port => broker.address.port(),
                address => broker.address.to_string(),
                websockets => listener(broker.websockets),
                tls => listener(broker.tls),
            },
            tls,
            peers,
            link_user => names::LINK_USER,
            secrets => context! { link => secrets.link, health => secrets.health },
            clients_are_authenticated => m.clients_are_authenticated(),
            clients_are_restricted => m.clients_are_restricted(),
            mosquitto => context! {
                user => m.user,
                allow_anonymous => m.allow_anonymous,
                link_tls => m.link_tls,
                plugin => plain("mosquitto.plugin", &m.plugin)?,
                dynamic_security_plugin =>
                    plain("mosquitto.dynamic_security_plugin", &m.dynamic_security_plugin)?,
                data_dir => plain_of("mosquitto.data_dir", &m.data_dir, id)?,
                extra_dir => optional("mosquitto.extra_dir", &m.extra_dir)?,
                autosave_interval_s => m.autosave_interval.as_secs(),
                max_inflight_messages => m.max_inflight_messages,
                max_queued_messages => m.max_queued_messages,
                replay_messages => m.replay_messages,
                replay_bytes => m.replay_mib << 20,
                tombstone_ttl_s => m.tombstone_ttl.as_secs(),
                dynamic_security_file,
                password_file,
                acl_file,
            },
        },
    )
}

/// The files that the configuration of the broker `id` names and that an operator gives: its users, what these may do,
/// its certificates, own directives, and what it begins with. A line of a kind and a path for each, for scripts; on the
/// broker's machine the path is the same, but that a `database` is followed by the path that it has there.
///
/// # Errors
///
/// [`RenderError::Path`] if a path cannot stand in the configuration.
pub fn files(config: &Config, id: &BrokerId) -> Result<String, RenderError> {
    let m = &config.mosquitto;
    let in_tls_dir = |name: String| Some(m.tls_dir.as_ref()?.join(name));
    let all = [
        ("passwords", "mosquitto.password_file", m.password_file.clone()),
        ("acl", "mosquitto.acl_file", m.acl_file.clone()),
        ("authority", "mosquitto.tls_dir", in_tls_dir("ca.crt".to_owned())),
        (
            "certificate",
            "mosquitto.tls_dir",
            in_tls_dir(format!("{id}.crt")),
        ),
        ("key", "mosquitto.tls_dir", in_tls_dir(format!("{id}.key"))),
        ("directives", "mosquitto.extra_dir", m.extra_dir.clone()),
        (
            "dynamic-security",
            "mosquitto.dynamic_security_file",
            m.dynamic_security_file.clone(),
        ),
    ];
    let given = all
        .into_iter()
        .filter_map(|(kind, key, path)| Some((kind, key, path?)));
    let mut lines = given
        .map(|(kind, key, path)| Ok(format!("{kind} {}\n", plain_of(key, &path, id)?)))
        .collect::<Result<String, RenderError>>()?;
    if let Some(database) = &m.first_database {
        lines += &format!(
            "database {} {}/mosquitto.db\n",
            plain_of("mosquitto.first_database", database, id)?,
            plain_of("mosquitto.data_dir", &m.data_dir, id)?
        );
    }
    Ok(lines)
}

fn describe_peer(config: &Config, peer: &Broker, broker: &Broker) -> Peer {
    let link = Link {
        from: peer.id.clone(),
        to: broker.id.clone(),
    };
    let encrypted = peer.tls.filter(|_| config.mosquitto.link_tls);
    let address = encrypted.unwrap_or(peer.address);
    Peer {
        id: peer.id.to_string(),
        link_address: address.to_string(),
        named_address: format!("{}={address}", peer.id),
        link_client_id: names::link_client_id(&link),
        local_client_id: names::local_client_id(&link),
    }
}
