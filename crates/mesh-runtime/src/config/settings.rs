//! Every setting of `mesh.toml`: its key, its default, its range and its meaning, each in one place.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use mesh_model::{Broker, BrokerId, Topology, TopologyError};

use super::Config;
use super::reader::Reader;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(31_557_600);

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
    /// A folder of files with own directives.
    pub extra_dir: Option<PathBuf>,
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

/// `[balancer]`: how Nginx is set up.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where Nginx tells the generation that it runs.
    pub readback: SocketAddr,
    /// Folder of `nginx.conf`, `upstream.conf`, logs and the pid file.
    pub dir: PathBuf,
    /// Nginx's program.
    pub program: PathBuf,
    /// Nginx's stream module where it is a file of its own.
    pub stream_module: Option<PathBuf>,
    /// The user of Nginx's worker processes.
    pub user: Option<String>,
    /// The source address of Nginx's connections to the brokers.
    pub proxy_bind: Option<IpAddr>,
    /// How long a connection to a broker may take.
    pub proxy_connect_timeout: Duration,
    /// How long a session may be silent.
    pub proxy_timeout: Duration,
    /// How long Nginx by itself avoids a primary that refused a connection.
    pub fail_timeout: Duration,
    /// Connections per worker process.
    pub worker_connections: u64,
    /// How long a reload may take before it is taken to have failed.
    pub reload_timeout: Duration,
}

/// When clients go back to a more preferred broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failback {
    /// Only when an operator says so.
    Never,
    /// By itself, when the more preferred broker has been healthy for this long.
    After(Duration),
}

impl FromStr for Failback {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "never" {
            return Ok(Self::Never);
        }
        let after = text
            .strip_prefix("after ")
            .and_then(|rest| humantime::parse_duration(rest).ok());
        match after {
            Some(after) if after >= SECOND => Ok(Self::After(after)),
            Some(_) => Err("must be at least \"after 1s\"".to_owned()),
            None => Err(format!("{text:?} is neither \"never\" nor like \"after 5m\"")),
        }
    }
}

/// `[health]`: how brokers are watched and when clients are moved.
#[derive(Debug, Clone)]
pub struct Health {
    /// Where the API answers.
    pub listen: SocketAddr,
    /// Time between two PINGREQ of a probe session.
    pub probe_interval: Duration,
    /// Silence after which a broker is suspect.
    pub suspect_after: Duration,
    /// Silence after which a broker is dead.
    pub dead_after: Duration,
    /// Time between two fresh connections and round trips.
    pub round_trip_interval: Duration,
    /// Answers in time that a broker owes before it is healthy again.
    pub recovery_answers: u64,
    /// Time for which a broker must answer before it is healthy again.
    pub recovery_time: Duration,
    /// The most that the recovery time is doubled to.
    pub recovery_time_max: Duration,
    /// Time for which a broker's death counts as a flap.
    pub flap_window: Duration,
    /// Lag of the daemon's own loop above which it gives no verdict.
    pub max_loop_lag: Duration,
    /// Time between two canaries of a broker.
    pub canary_interval: Duration,
    /// Silence of a link's canaries after which it is down.
    pub link_down_after: Duration,
    /// When clients go back to a more preferred broker.
    pub failback: Failback,
    /// Switches that need not be, e.g. automatic failbacks, within `optional_switch_window`.
    pub optional_switches: u64,
    /// The time in which optional switches are counted.
    pub optional_switch_window: Duration,
    /// How long a choice in need waits for a better one.
    pub need_grace: Duration,
    /// How long it takes to move the sessions off a draining broker.
    pub drain_time: Duration,
    /// Where the operator's wishes are kept; beside `upstream.conf` if not given.
    pub state_file: Option<PathBuf>,
}

/// `[announce]`: who is told of what matters, beside those who read logs and metrics.
#[derive(Debug, Clone)]
pub struct Announce {
    /// A program that is run for each announcement.
    pub command: Option<PathBuf>,
    /// Where each announcement is posted to.
    pub webhook: Option<Uri>,
    /// For how long the same is not announced again.
    pub repeat_after: Duration,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// The pause before the second attempt.
    pub retry_interval: Duration,
    /// How long an announcement is tried.
    pub give_up_after: Duration,
}

/// `[security]`: where secrets are.
#[derive(Debug, Clone)]
pub struct Security {
    /// Folder with one file a mesh user, each holding that user's password.
    pub secrets_dir: PathBuf,
}

/// How often a new log file is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRotation {
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Never.
    Never,
}

/// `[log]`: the daemons' own log lines.
#[derive(Debug, Clone)]
pub struct Log {
    /// What is logged, in the syntax of tracing's `EnvFilter`.
    pub level: String,
    /// Folder of rotating log files, beside the lines on standard output.
    pub dir: Option<PathBuf>,
    /// How often a new log file is begun.
    pub rotation: LogRotation,
    /// How many log files of a daemon are kept.
    pub keep: u64,
}

/// Reads everything; `None` if the brokers are not a topology, in which case `reader` holds a problem.
pub(super) fn read(reader: &mut Reader, path: &Path) -> Option<Config> {
    let topology = read_topology(reader);
    let mosquitto = read_mosquitto(reader);
    let balancer = read_balancer(reader);
    let health = read_health(reader);
    let announce = read_announce(reader);
    let security = Security {
        secrets_dir: reader.section("security").path(
            "secrets_dir",
            "secrets",
            "folder with the files `mesh-link` and `mesh-health`, each the password of that user",
        ),
    };
    let log = read_log(reader);
    Some(Config {
        path: path.to_owned(),
        topology: topology?,
        mosquitto,
        balancer,
        health,
        announce,
        security,
        log,
    })
}

fn read_topology(reader: &mut Reader) -> Option<Topology> {
    let entries = reader.list("broker", |broker| {
        let id = broker.required::<BrokerId>(
            "id",
            "1 to 32 characters of a-z, 0-9 and -, beginning with a letter",
            "name of the broker; the order of the list is the order of priority",
        );
        let address = broker.required_address("address", "where the broker takes MQTT connections");
        Some(Broker {
            id: id?,
            address: address?,
        })
    });
    // Entries with a problem of their own are left out, but count for the positions of the others.
    let (positions, brokers): (Vec<usize>, Vec<Broker>) = entries
        .into_iter()
        .enumerate()
        .filter_map(|(position, entry)| Some((position, entry?)))
        .unzip();
    match Topology::new(brokers) {
        Ok(topology) => Some(topology),
        Err(errors) => {
            for error in errors {
                report(reader, error.at(&positions));
            }
            None
        }
    }
}

fn report(reader: &mut Reader, error: TopologyError) {
    let key = match &error {
        // Some entries may be there, all with problems of their own.
        TopologyError::Empty if reader.has_problems() => return,
        TopologyError::Empty => "broker".to_owned(),
        TopologyError::DuplicateId { second, .. } => format!("broker[{second}].id"),
        TopologyError::DuplicateAddress { second, .. } => format!("broker[{second}].address"),
    };
    reader.problem(&key, error.to_string());
}

fn read_mosquitto(reader: &mut Reader) -> Mosquitto {
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
        extra_dir: s.optional_path(
            "extra_dir",
            "a folder of `*.conf` files with own Mosquitto directives",
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

fn read_balancer(reader: &mut Reader) -> Balancer {
    let mut s = reader.section("balancer");
    let balancer = Balancer {
        listen: s.address("listen", ([0, 0, 0, 0], 1883).into(), "where clients connect"),
        readback: s.address(
            "readback",
            ([127, 0, 0, 1], 18829).into(),
            "where Nginx tells the plan that it runs",
        ),
        dir: s.path(
            "dir",
            "/etc/mesh/nginx",
            "folder of `nginx.conf`, `upstream.conf`, logs and pid file",
        ),
        program: s.program("program", "nginx", "Nginx's program"),
        stream_module: s.optional_path(
            "stream_module",
            "Nginx's stream module where it is a file of its own (Debian)",
        ),
        user: s.optional_parsed(
            "user",
            "text",
            "the user of Nginx's workers; Nginx's own default if not given",
        ),
        proxy_bind: s.optional_parsed(
            "proxy_bind",
            "IP address",
            "source address of Nginx's connections to the brokers",
        ),
        proxy_connect_timeout: s.duration(
            "proxy_connect_timeout",
            "4s",
            100 * MS..=MINUTE,
            "how long a connection to a broker may take; at least two SYN retries",
        ),
        proxy_timeout: s.duration(
            "proxy_timeout",
            "30h",
            MINUTE..=30 * 24 * HOUR,
            "how long a session may be silent; above 1.5 times the longest MQTT keepalive, 65,535 s",
        ),
        fail_timeout: s.duration(
            "fail_timeout",
            "1h",
            SECOND..=24 * HOUR,
            "how long Nginx by itself avoids a primary that refused a connection",
        ),
        worker_connections: s.number(
            "worker_connections",
            16_384,
            64..=1_000_000,
            "connections a worker",
        ),
        reload_timeout: s.duration(
            "reload_timeout",
            "2s",
            100 * MS..=MINUTE,
            "how long Nginx may take to run a new plan before the last good one is put back",
        ),
    };
    if balancer.listen == balancer.readback {
        s.problem(
            "readback",
            format!("{} is balancer.listen already", balancer.readback),
        );
    }
    balancer
}

fn read_health(reader: &mut Reader) -> Health {
    let mut s = reader.section("health");
    let health = Health {
        listen: s.address("listen", ([127, 0, 0, 1], 3001).into(), "where the API answers"),
        probe_interval: s.duration(
            "probe_interval",
            "200ms",
            10 * MS..=MINUTE,
            "time between two PINGREQ of a probe session; varied by 10 %",
        ),
        suspect_after: s.duration(
            "suspect_after",
            "250ms",
            10 * MS..=MINUTE,
            "silence after which a broker is suspect; nothing is done yet",
        ),
        dead_after: s.duration(
            "dead_after",
            "1s",
            50 * MS..=10 * MINUTE,
            "silence after which a broker is dead",
        ),
        round_trip_interval: s.duration(
            "round_trip_interval",
            "2s",
            100 * MS..=10 * MINUTE,
            "time between two fresh connections with a published message",
        ),
        recovery_answers: s.number(
            "recovery_answers",
            5,
            1..=10_000,
            "answers that a returning broker owes before it is healthy",
        ),
        recovery_time: s.duration(
            "recovery_time",
            "10s",
            MS..=HOUR,
            "time for which a returning broker must answer before it is healthy; doubled by each flap",
        ),
        recovery_time_max: s.duration(
            "recovery_time_max",
            "10m",
            MS..=24 * HOUR,
            "the most it is doubled to",
        ),
        flap_window: s.duration(
            "flap_window",
            "10m",
            SECOND..=24 * HOUR,
            "how long a death counts as a flap",
        ),
        max_loop_lag: s.duration(
            "max_loop_lag",
            "100ms",
            MS..=MINUTE,
            "lag of mesh-health's own loop above which it gives no verdict",
        ),
        canary_interval: s.duration(
            "canary_interval",
            "1s",
            50 * MS..=MINUTE,
            "time between two canaries",
        ),
        link_down_after: s.duration(
            "link_down_after",
            "2500ms",
            100 * MS..=10 * MINUTE,
            "silence of canaries between two healthy brokers after which their link is down",
        ),
        failback: s.parsed_or(
            "failback",
            "\"never\" or e.g. \"after 5m\"",
            "never",
            Failback::Never,
            "when clients go back to a more preferred broker by themselves: once it has been healthy for that long",
        ),
        optional_switches: s.number(
            "optional_switches",
            3,
            1..=1000,
            "switches that need not be (automatic failbacks) within `optional_switch_window`; more are held back",
        ),
        optional_switch_window: s.duration(
            "optional_switch_window",
            "5m",
            SECOND..=24 * HOUR,
            "the time in which they are counted",
        ),
        need_grace: s.duration(
            "need_grace",
            "300ms",
            MS..=MINUTE,
            "how long, when the primary is dead and nobody is eligible, a choice in need waits for a better one",
        ),
        drain_time: s.duration(
            "drain_time",
            "30s",
            100 * MS..=24 * HOUR,
            "the time over which the sessions of a draining broker are moved, in slices",
        ),
        state_file: s.optional_path(
            "state_file",
            "where it is kept which brokers are drained or disabled; `mesh-health.json` in balancer.dir if not given",
        ),
    };
    if health.suspect_after <= health.probe_interval {
        s.problem(
            "suspect_after",
            "must be more than health.probe_interval, or every broker is always suspect",
        );
    }
    if health.dead_after <= health.suspect_after {
        s.problem("dead_after", "must be more than health.suspect_after");
    }
    if health.recovery_time_max < health.recovery_time {
        s.problem("recovery_time_max", "must not be less than health.recovery_time");
    }
    if health.link_down_after <= health.canary_interval {
        s.problem("link_down_after", "must be more than health.canary_interval");
    }
    health
}

fn read_announce(reader: &mut Reader) -> Announce {
    let mut s = reader.section("announce");
    Announce {
        command: s.optional_path(
            "command",
            "a program run for each announcement, without a shell: the event as JSON on standard input, its fields \
             also as MESH_EVENT, MESH_BROKER, MESH_FROM, MESH_TO, MESH_REASON, …",
        ),
        webhook: s.optional_parsed::<Webhook>(
            "webhook",
            "URL, e.g. \"http://127.0.0.1:9000/mesh\"",
            "where each announcement is posted to as JSON; plain http, so for https use a command or a local proxy",
        )
        .map(|webhook| webhook.0),
        repeat_after: s.duration(
            "repeat_after",
            "10m",
            MS..=24 * HOUR,
            "for how long the same event of the same broker and incident is not announced again",
        ),
        timeout: s.duration(
            "timeout",
            "10s",
            10 * MS..=10 * MINUTE,
            "how long one attempt may take",
        ),
        retry_interval: s.duration(
            "retry_interval",
            "1s",
            10 * MS..=10 * MINUTE,
            "pause before the second attempt; doubled before each further one, up to 5 minutes",
        ),
        give_up_after: s.duration(
            "give_up_after",
            "1h",
            SECOND..=7 * 24 * HOUR,
            "how long one announcement is tried before the next has its turn",
        ),
    }
}

/// A URL that can be posted to.
struct Webhook(Uri);

impl FromStr for Webhook {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("{text:?} is not a URL: {error}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) if !host.is_empty() => Ok(Self(uri)),
            (Some("https"), _) => Err(
                "only plain http is spoken; use announce.command, or a proxy on this machine, for https"
                    .to_owned(),
            ),
            _ => Err(format!("{text:?} is not a URL with http:// and a host")),
        }
    }
}

fn read_log(reader: &mut Reader) -> Log {
    let mut s = reader.section("log");
    Log {
        level: s.text(
            "level",
            Some("info"),
            "what is logged: error, warn, info, debug or trace, also by module",
        ),
        dir: s.optional_path("dir", "folder of log files, beside the lines on standard output"),
        rotation: s.choice(
            "rotation",
            &[
                ("daily", LogRotation::Daily),
                ("hourly", LogRotation::Hourly),
                ("never", LogRotation::Never),
            ],
            0,
            "how often a new log file is begun",
        ),
        keep: s.number("keep", 7, 1..=10_000, "how many log files of a daemon are kept"),
    }
}
