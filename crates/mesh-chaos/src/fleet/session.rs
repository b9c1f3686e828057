//! Making connections, one after the other.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use mesh_runtime::mqtt::mqttbytes::v5::{Connect, ConnectProperties};
use mesh_runtime::mqtt::{Connection, MqttError, Packet, Version, mqttbytes};
use tokio::net::TcpStream;

use crate::Login;

/// For a connection and its CONNACK together: a hung broker accepts and says nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A connection that says nothing for that long is given up.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// Between two questions whether the broker is there.
pub(super) const PING: Duration = Duration::from_secs(4);

/// How long a broker keeps a session.
const EXPIRY_S: u32 = 3600;

/// Upper bound of the first pause; doubled with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Upper bound of all pauses. Less than what suits a real fleet (30 s), so that outages are the mesh's, not theirs.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Connects; tells whether the broker knew the session.
pub(super) async fn dial(
    version: Version,
    address: SocketAddr,
    client_id: String,
    keeps: bool,
    login: &Login,
) -> Result<(Connection, bool), MqttError> {
    let properties = ConnectProperties {
        session_expiry_interval: keeps.then_some(EXPIRY_S),
        ..ConnectProperties::new()
    };
    let connect = Connect {
        keep_alive: 0,
        client_id,
        clean_start: !keeps,
        properties: Some(properties),
    };
    let open = async {
        let stream = TcpStream::connect(address).await?;
        let login = login
            .as_ref()
            .map(|(name, password)| mqttbytes::v5::Login::new(name, password));
        Connection::start_in(version, stream, Packet::Connect(connect, None, login)).await
    };
    match tokio::time::timeout(PATIENCE, open).await {
        Ok(opened) => opened.map(|(connection, ack)| (connection, ack.session_present)),
        Err(_elapsed) => Err(silent()),
    }
}

/// A connection that says nothing.
pub(super) fn silent() -> MqttError {
    io::Error::from(io::ErrorKind::TimedOut).into()
}

/// The pauses between attempts: exponential, with full jitter.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    failures: u32,
}

impl Pauses {
    /// A connection was served.
    pub(super) fn served(&mut self) {
        self.failures = 0;
    }

    /// Waits for the next attempt.
    pub(super) async fn next(&mut self) {
        let longest = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16)));
        self.failures += 1;
        tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
    }
}
