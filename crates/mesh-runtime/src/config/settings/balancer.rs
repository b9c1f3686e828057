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
    /// Where they connect with TLS.
    pub tls: Option<SocketAddr>,
    /// Where they connect by WebSockets.
    pub websockets: Option<SocketAddr>,
    /// Where they connect by WebSockets with TLS.
    pub websockets_tls: Option<SocketAddr>,
    /// The certificate that Nginx shows, with those that it was signed by; PEM.
    pub certificate: Option<PathBuf>,
    /// The private key of that certificate; PEM.
    pub certificate_key: Option<PathBuf>,
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
        tls: s.optional_parsed(
            "tls",
            "address",
            "where clients connect with TLS, usually port 8883",
        ),
        websockets: s.optional_parsed(
            "websockets",
            "address",
            "where clients connect by WebSockets, usually port 8083; each broker needs `websockets` then",
        ),
        websockets_tls: s.optional_parsed(
            "websockets_tls",
            "address",
            "where clients connect by WebSockets with TLS, usually port 8084",
        ),
        certificate: s.optional_path(
            "certificate",
            "the certificate that clients with TLS are shown, followed by what it was signed by (PEM)",
        ),
        certificate_key: s.optional_path("certificate_key", "its private key (PEM)"),
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
    let doors = [
        ("listen", Some(balancer.listen)),
        ("readback", Some(balancer.readback)),
        ("tls", balancer.tls),
        ("websockets", balancer.websockets),
        ("websockets_tls", balancer.websockets_tls),
    ];
    for (place, (name, address)) in doors.iter().enumerate() {
        let mut earlier = doors[..place].iter();
        if let Some(address) = address
            && let Some((other, _)) = earlier.find(|(_, other)| other.as_ref() == Some(address))
        {
            s.problem(name, format!("{address} is balancer.{other} already"));
        }
    }
    let needs = [
        ("certificate", balancer.certificate.is_none()),
        ("certificate_key", balancer.certificate_key.is_none()),
    ];
    if balancer.tls.or(balancer.websockets_tls).is_some() {
        for (name, is_missing) in needs {
            if is_missing {
                s.problem(name, "must be given where clients may connect with TLS");
            }
        }
    }
    balancer
}

impl Balancer {
    /// Whether clients may connect by WebSockets.
    pub fn has_websockets(&self) -> bool {
        self.websockets.or(self.websockets_tls).is_some()
    }
}
