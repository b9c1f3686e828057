//! `[mosquitto]`: how every broker is set up.

use std::path::PathBuf;
use std::time::Duration;

use super::{HOUR, SECOND, YEAR};
use crate::config::reader::Reader;

/// `[mosquitto]`: how every broker is set up. In a path, `{broker}` stands for the broker's id.
#[derive(Debug, Clone)]
pub struct Mosquitto {
    /// The broker's program.
    pub program: PathBuf,
    /// The mesh-plugin's shared library.
    pub plugin: PathBuf,
    /// Folder of a broker's own files.
    pub data_dir: PathBuf,
    /// The user that brokers run as when started by root.
    pub user: String,
    /// Whether clients may connect without a user name.
    pub allow_anonymous: bool,
    /// Mosquitto's `password_file`.
    pub password_file: Option<PathBuf>,
    /// Mosquitto's `acl_file`.
    pub acl_file: Option<PathBuf>,
    /// The configuration of Mosquitto's dynamic-security plugin.
    pub dynamic_security_file: Option<PathBuf>,
    /// The shared library of Mosquitto's dynamic-security plugin.
    pub dynamic_security_plugin: PathBuf,
    /// The folder of a broker's certificates, where links are encrypted.
    pub tls_dir: Option<PathBuf>,
    /// Whether links use those certificates.
    pub link_tls: bool,
    /// A folder of files with own directives.
    pub extra_dir: Option<PathBuf>,
    /// A database that a broker begins with which has none, such as that of the Mosquitto that was before it.
    pub first_database: Option<PathBuf>,
    /// How often the persistence file is written.
    pub autosave_interval: Duration,
    /// Unacknowledged QoS 1 and 2 messages in flight to one client or link.
    pub max_inflight_messages: u64,
    /// QoS 1 and 2 messages queued for one client or link beyond those in flight.
    pub max_queued_messages: u64,
    /// Messages that a broker keeps for peers that have not got them: so many own ones, and so many of all others.
    pub replay_messages: u64,
    /// The memory for each of both, in MiB.
    pub replay_mib: u64,
    /// How long a deletion is remembered.
    pub tombstone_ttl: Duration,
}

impl Mosquitto {
    /// Whether somebody decides who may connect. A client without a user name is let in by `allow_anonymous` even if
    /// every check defers to the next; one with a user name only by a check, or by the mesh-plugin where there is none.
    pub fn clients_are_authenticated(&self) -> bool {
        self.password_file.is_some() || self.dynamic_security_file.is_some() || !self.allow_anonymous
    }

    /// Whether somebody decides who may publish and subscribe to what.
    pub fn clients_are_restricted(&self) -> bool {
        self.acl_file.is_some() || self.dynamic_security_file.is_some()
    }
}

pub(super) fn read(reader: &mut Reader) -> Mosquitto {
    let mut s = reader.section("mosquitto");
    Mosquitto {
        program: s.program("program", "mosquitto", "the broker's program"),
        plugin: s.path(
            "plugin",
            "/usr/lib/mesh/libmesh_plugin.so",
            "the mesh-plugin's shared library",
        ),
        data_dir: s.path(
            "data_dir",
            "/var/lib/mosquitto",
            "folder of a broker's own files; `{broker}` stands for its id",
        ),
        user: s.text(
            "user",
            Some("mosquitto"),
            "the user that brokers run as when started by root",
        ),
        allow_anonymous: s.boolean(
            "allow_anonymous",
            true,
            "whether clients may connect without a user name",
        ),
        password_file: s.optional_path("password_file", "Mosquitto's `password_file`"),
        acl_file: s.optional_path("acl_file", "Mosquitto's `acl_file`"),
        dynamic_security_file: s.optional_path(
            "dynamic_security_file",
            "configuration of Mosquitto's dynamic-security plugin",
        ),
        dynamic_security_plugin: s.path(
            "dynamic_security_plugin",
            "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so",
            "shared library of that plugin",
        ),
        tls_dir: s.optional_path(
            "tls_dir",
            "folder of `ca.crt`, `{broker}.crt` and `{broker}.key`: links use TLS then, and each broker needs `tls`",
        ),
        link_tls: s.boolean(
            "link_tls",
            true,
            "false: brokers listen at `tls`, but links do not use it; the step between without and with TLS for a mesh \
             that runs",
        ),
        extra_dir: s.optional_path(
            "extra_dir",
            "a folder of `*.conf` files with own Mosquitto directives",
        ),
        first_database: s.optional_path(
            "first_database",
            "a `mosquitto.db` that deploy-brokers.sh gives once to a broker that has none; a file that is not there is none",
        ),
        autosave_interval: s.duration(
            "autosave_interval",
            "60s",
            SECOND..=24 * HOUR,
            "how often the persistence file is written; at most this much is lost to a power cut",
        ),
        max_inflight_messages: s.number(
            "max_inflight_messages",
            20_000,
            1..=65_534,
            "QoS 1 and 2 messages in flight to one client or link",
        ),
        max_queued_messages: s.number(
            "max_queued_messages",
            100_000,
            1..=100_000_000,
            "QoS 1 and 2 messages queued for one client or link beyond those in flight",
        ),
        replay_messages: s.number(
            "replay_messages",
            100_000,
            1..=100_000_000,
            "own messages that a broker keeps for peers that are away, and as many of all others",
        ),
        replay_mib: s.number(
            "replay_mib",
            64,
            1..=65_536,
            "memory for each of both, in MiB; what does not fit any more is lost to peers that are away",
        ),
        tombstone_ttl: s.duration(
            "tombstone_ttl",
            "7d",
            HOUR..=10 * YEAR,
            "how long a deletion of a retained message is remembered; a broker that was away for longer takes a \
             copy from its peers",
        ),
    }
}
