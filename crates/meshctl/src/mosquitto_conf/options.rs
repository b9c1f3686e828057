//! Every option of Mosquitto 2.0 and 2.1: what it belongs to, and what becomes of it in a mesh.
//!
//! `meshctl import` asks what to do with an option that somebody has; `meshctl check` whether it may stand among the own
//! directives of `mosquitto.extra_dir`.

use Fate::{Mesh, Never, Own, Setting, Without};
use Scope::{Bridge, General, Listener, Plugin};

/// What an option belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole broker.
    General,
    /// The `listener` before it.
    Listener,
    /// The `connection` before it.
    Bridge,
    /// The `plugin` before it.
    Plugin,
}

/// What becomes of an option, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// As an own directive it does what it did.
    Own,
    /// This setting of `mesh.toml` stands in its place.
    Setting(&'static str),
    /// It is left out, since the mesh has its own way, but may be an own directive.
    Without(&'static str),
    /// The rendered configuration has it, so there can be no other.
    Mesh(&'static str),
    /// It would break the mesh.
    Never(&'static str),
}

const LINKS_TOO: &str = "it would bound links like clients, and what they cannot queue is lost or late";
const LOGS: &str = "brokers log to the journal, with what mesh-logs needs";
const AT_NGINX: &str = "clients connect to Nginx, which has its own";
const NO_CERTIFICATES: &str =
    "TLS ends at Nginx, which asks clients for no certificates; they log in with a password";
const STAMPS: &str = "a link would break at a message that is as large as that and got a stamp; message_size_limit bounds \
     payloads and can be used";

/// In the order of `mosquitto.conf(5)`, more or less; what belongs to bridges and listeners follows.
#[rustfmt::skip]
const OPTIONS: &[(&str, Scope, Fate)] = &[
    ("acl_file", General, Setting("mosquitto.acl_file")),
    ("allow_anonymous", General, Setting("mosquitto.allow_anonymous")),
    ("password_file", General, Setting("mosquitto.password_file")),
    ("user", General, Setting("mosquitto.user")),
    ("autosave_interval", General, Setting("mosquitto.autosave_interval")),
    ("max_inflight_messages", General, Setting("mosquitto.max_inflight_messages")),
    ("max_queued_messages", General, Setting("mosquitto.max_queued_messages")),
    ("per_listener_settings", General, Never(
        "links have no listener, so Mosquitto would never ask the mesh-plugin about what they bring, and messages \
         would circle for ever")),
    ("allow_duplicate_messages", General, Own),
    ("allow_zero_length_clientid", General, Own),
    ("auto_id_prefix", General, Own),
    ("autosave_on_changes", General, Own),
    ("check_retain_source", General, Own),
    ("enable_control_api", General, Own),
    ("global_max_clients", General, Own),
    ("global_max_connections", General, Own),
    ("max_keepalive", General, Own),
    ("max_topic_alias_broker", General, Own),
    ("memory_limit", General, Own),
    ("message_size_limit", General, Own),
    ("persistent_client_expiration", General, Own),
    ("queue_qos0_messages", General, Own),
    ("retain_expiry_interval", General, Own),
    ("retry_interval", General, Own),
    ("upgrade_outgoing_qos", General, Own),
    ("clientid_prefixes", General, Never("it would keep links out, whose client ids begin with mesh.")),
    ("retain_available", General, Never("a client that sets it to false is cut off from what the mesh retains")),
    ("max_packet_size", General, Never(STAMPS)),
    ("max_inflight_bytes", General, Never(LINKS_TOO)),
    ("max_queued_bytes", General, Never(LINKS_TOO)),
    ("psk_file", General, Never(NO_CERTIFICATES)),
    ("connection_messages", General, Mesh(LOGS)),
    ("log_timestamp", General, Mesh(LOGS)),
    ("log_timestamp_format", General, Mesh(LOGS)),
    ("log_dest", General, Without(LOGS)),
    ("log_facility", General, Without(LOGS)),
    ("log_type", General, Without(LOGS)),
    ("websockets_log_level", General, Without(LOGS)),
    ("persistence", General, Mesh("brokers of a mesh always keep their state")),
    ("retained_persistence", General, Mesh("brokers of a mesh always keep their state")),
    ("persistence_location", General, Mesh("it is mosquitto.data_dir")),
    ("persistence_file", General, Mesh("the plugin reads mosquitto.db in mosquitto.data_dir")),
    ("packet_buffer_size", General, Mesh("the mesh-plugin must know how much is read at once")),
    ("websockets_headers_size", General, Mesh("the mesh-plugin must know how much is read at once")),
    ("set_tcp_nodelay", General, Mesh("messages must not wait for each other")),
    ("sys_interval", General, Mesh("mesh-health reads the counters every second")),
    ("pid_file", General, Without("systemd knows the process")),
    ("plugin_use", General, Never("the mesh-plugin must be the first for every listener")),

    ("port", Listener, Never("use `listener`: it changes the listener that there is without one")),
    ("bind_address", Listener, Never("use `listener`: it changes the listener that there is without one")),
    ("protocol", Listener, Without(AT_NGINX)),
    ("bind_interface", Listener, Without(AT_NGINX)),
    ("socket_domain", Listener, Without(AT_NGINX)),
    ("accept_protocol_versions", Listener, Without(AT_NGINX)),
    ("enable_proxy_protocol", Listener, Without(AT_NGINX)),
    ("proxy_protocol_v2_require_tls", Listener, Without(AT_NGINX)),
    ("http_dir", Listener, Without("Nginx hands on MQTT only")),
    ("http_api", Listener, Without("Nginx hands on MQTT only")),
    ("websockets_origin", Listener, Without("Nginx hands on what comes")),
    ("mount_point", Listener, Without("clients of all listeners meet at the same brokers, so topics are as they publish them")),
    ("max_connections", Listener, Without("links come to the same listener; balancer.worker_connections bounds clients")),
    ("max_qos", Listener, Without("links come to the same listener")),
    ("max_topic_alias", Listener, Without("links come to the same listener")),
    ("use_username_as_clientid", Listener, Without("a listener's own, and clients of all listeners come to the same")),
    ("listener_allow_anonymous", Listener, Without("access control is one for all listeners")),
    ("listener_auto_id_prefix", Listener, Without("access control is one for all listeners")),
    ("certfile", Listener, Without(AT_NGINX)),
    ("keyfile", Listener, Without(AT_NGINX)),
    ("cafile", Listener, Without(NO_CERTIFICATES)),
    ("capath", Listener, Without(NO_CERTIFICATES)),
    ("crlfile", Listener, Without(NO_CERTIFICATES)),
    ("require_certificate", Listener, Without(NO_CERTIFICATES)),
    ("use_identity_as_username", Listener, Without(NO_CERTIFICATES)),
    ("use_subject_as_username", Listener, Without(NO_CERTIFICATES)),
    ("disable_client_cert_date_checks", Listener, Without(NO_CERTIFICATES)),
    ("psk_hint", Listener, Without(NO_CERTIFICATES)),
    ("ciphers", Listener, Without(AT_NGINX)),
    ("ciphers_tls1.3", Listener, Without(AT_NGINX)),
    ("dhparamfile", Listener, Without(AT_NGINX)),
    ("tls_engine", Listener, Without(AT_NGINX)),
    ("tls_engine_kpass_sha1", Listener, Without(AT_NGINX)),
    ("tls_keyform", Listener, Without(AT_NGINX)),
    ("tls_version", Listener, Without("Nginx takes TLS 1.2 and 1.3")),

    ("auth_plugin_deny_special_chars", Plugin, Own),

    ("address", Bridge, Own),
    ("addresses", Bridge, Own),
    ("cleansession", Bridge, Own),
    ("clientid", Bridge, Own),
    ("idle_timeout", Bridge, Own),
    ("keepalive_interval", Bridge, Own),
    ("notification_topic", Bridge, Own),
    ("notifications", Bridge, Own),
    ("notifications_local_only", Bridge, Own),
    ("password", Bridge, Own),
    ("restart_timeout", Bridge, Own),
    ("round_robin", Bridge, Own),
    ("start_type", Bridge, Own),
    ("threshold", Bridge, Own),
    ("topic", Bridge, Own),
    ("try_private", Bridge, Own),
    ("username", Bridge, Own),
];

/// Names of options that load a plugin.
pub fn is_plugin(name: &str) -> bool {
    ["plugin", "auth_plugin", "global_plugin", "plugin_load"].contains(&name)
}

/// Whether the value of the option `name` is a file that Mosquitto reads; a plugin's options are its own.
pub fn names_a_file(name: &str) -> bool {
    let certificates = ["cafile", "certfile", "keyfile", "crlfile", "dhparamfile"];
    let lists = ["acl_file", "password_file", "psk_file"];
    certificates.contains(&name.strip_prefix("bridge_").unwrap_or(name)) || lists.contains(&name)
}

/// What becomes of the option `name`; `None` if it is not known.
pub fn fate(name: &str) -> Option<Fate> {
    Some(known(name)?.1)
}

/// What the option `name` belongs to; the whole broker if it is not known.
pub fn scope(name: &str) -> Scope {
    known(name).map_or(General, |(scope, _)| scope)
}

fn known(name: &str) -> Option<(Scope, Fate)> {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if begins(&["plugin_opt_", "auth_opt_"]) {
        return Some((Plugin, Own));
    }
    if begins(&["bridge_", "remote_", "local_"]) {
        return Some((Bridge, Own));
    }
    let (_, scope, fate) = OPTIONS.iter().find(|(option, ..)| *option == name)?;
    Some((*scope, *fate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_is_listed_once() {
        let mut names: Vec<_> = OPTIONS.iter().map(|(name, ..)| name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn files_are_known_by_the_options_that_name_them() {
        let named = |names: &[&str]| names.iter().all(|name| names_a_file(name));
        assert!(named(&["cafile", "bridge_cafile", "bridge_keyfile", "psk_file"]));
        for other in [
            "capath",
            "bridge_capath",
            "tls_keyform",
            "persistence_file",
            "pid_file",
        ] {
            assert!(!names_a_file(other), "{other}");
        }
    }

    #[test]
    fn options_are_found_also_by_their_beginning() {
        assert_eq!(
            (scope("bridge_cafile"), fate("remote_username")),
            (Bridge, Some(Own))
        );
        assert_eq!((scope("plugin_opt_x"), scope("mount_point")), (Plugin, Listener));
        assert_eq!((scope("of_the_future"), fate("of_the_future")), (General, None));
    }
}
