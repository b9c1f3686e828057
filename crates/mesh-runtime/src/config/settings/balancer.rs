//! `[balancer]`: how Nginx is set up.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{HOUR, MINUTE, MS, SECOND};
use crate::config::reader::Reader;

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

pub(super) fn read(reader: &mut Reader) -> Balancer {
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
            "/var/lib/mesh/nginx",
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
