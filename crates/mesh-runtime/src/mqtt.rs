//! A plain MQTT connection: packets in, packets out, and no opinion about when. It speaks MQTT 5, or 3.1.1 for those who
//! ask for that.
//!
//! Probes and load generators need to know what happens on the wire and when; `rumqttc`'s event loop hides both
//! (it reconnects by itself and notices a frozen broker after ten seconds). Its codec is used here on our own
//! socket. Programs with an ordinary session use `rumqttc` itself.

mod v311;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{
    ConnAck, Connect, ConnectReturnCode, DisconnectReasonCode, Filter, Login, Publish, Subscribe,
};
use rumqttc::v5::mqttbytes::{Error as CodecError, QoS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub use rumqttc::v5::mqttbytes;
pub use rumqttc::v5::mqttbytes::v5::Packet;

/// Why a connection ended or never began.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// The broker closed the connection.
    #[error("the broker closed the connection")]
    Closed,
    /// The broker said goodbye.
    #[error("the broker disconnected us: {0:?}")]
    Disconnected(DisconnectReasonCode),
    /// The broker refused the session.
    #[error("the broker refused the session: {0:?}")]
    Refused(ConnectReturnCode),
    /// What arrived is not what MQTT prescribes.
    #[error("what the broker sent is not MQTT: {0}")]
    Protocol(String),
}

impl From<CodecError> for MqttError {
    fn from(error: CodecError) -> Self {
        Self::Protocol(format!("{error:?}"))
    }
}

/// What a client says of itself when it connects. Its session is clean: nothing outlives the connection.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The client id.
    pub client_id: String,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// Seconds after which the broker may close a silent connection; 0 for never.
    pub keep_alive_s: u16,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1: packets have no properties.
    V311,
    /// MQTT 5.
    #[default]
    V5,
}

/// An open MQTT session on a socket of its own.
#[derive(Debug)]
pub struct Connection {
    version: Version,
    stream: TcpStream,
    input: bytes::BytesMut,
    output: bytes::BytesMut,
}

impl Connection {
    /// Connects to `address` and waits for the broker to accept the session. There is no deadline inside.
    ///
    /// # Errors
    ///
    /// [`MqttError::Io`] if the connection cannot be made, [`MqttError::Refused`] if the broker refuses it.
    pub async fn open(address: SocketAddr, identity: &Identity) -> Result<(Self, ConnAck), MqttError> {
        Self::start(TcpStream::connect(address).await?, identity).await
    }

    /// Opens the session on a connected socket; see [`Self::open`].
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn start(stream: TcpStream, identity: &Identity) -> Result<(Self, ConnAck), MqttError> {
        let connect = Connect {
            keep_alive: identity.keep_alive_s,
            client_id: identity.client_id.clone(),
            clean_start: true,
            properties: None,
        };
        let login = identity
            .login
            .clone()
            .map(|(username, password)| Login { username, password });
        Self::start_as(stream, Packet::Connect(connect, None, login)).await
    }

    /// Opens a session on a connected socket with a CONNECT packet of the caller's own: one that outlives its
    /// connection, or that has a will; see [`Self::open`].
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub async fn start_as(stream: TcpStream, connect: Packet) -> Result<(Self, ConnAck), MqttError> {
        Self::start_in(Version::V5, stream, connect).await
    }

    /// As [`Self::start_as`], in this version.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; [`MqttError::Protocol`] for a will in 3.1.1, which is not spoken here.
    pub async fn start_in(
        version: Version,
        stream: TcpStream,
        connect: Packet,
    ) -> Result<(Self, ConnAck), MqttError> {
        stream.set_nodelay(true)?;
        let mut connection = Self {
            version,
            stream,
            input: bytes::BytesMut::new(),
            output: bytes::BytesMut::new(),
        };
        connection.send(&connect).await?;
        match connection.receive().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok((connection, ack)),
            Packet::ConnAck(ack) => Err(MqttError::Refused(ack.code)),
            other => Err(MqttError::Protocol(format!("expected CONNACK, got {other:?}"))),
        }
    }

    /// The local end of the socket.
    ///
    /// # Errors
    ///
    /// If the operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Adds `packet` to what the next [`Self::flush`] sends.
    ///
    /// # Errors
    ///
    /// [`MqttError::Protocol`] if the packet cannot be encoded.
    pub fn queue(&mut self, packet: &Packet) -> Result<(), MqttError> {
        match self.version {
            Version::V311 => v311::write(packet, &mut self.output)?,
            Version::V5 => {
                packet.write(&mut self.output, None)?;
            }
        }
        Ok(())
    }

    /// Sends everything that is queued.
    ///
    /// # Errors
    ///
    /// [`MqttError::Io`].
    pub async fn flush(&mut self) -> Result<(), MqttError> {
        // `write_all_buf` takes from the buffer what was sent, so a cancelled flush can be resumed.
        self.stream.write_all_buf(&mut self.output).await?;
        Ok(())
    }

    /// Sends `packet` now.
    ///
    /// # Errors
    ///
    /// As [`Self::queue`] and [`Self::flush`].
    pub async fn send(&mut self, packet: &Packet) -> Result<(), MqttError> {
        self.queue(packet)?;
        self.flush().await
    }

    /// Waits for the next packet. May be cancelled without losing anything.
    ///
    /// # Errors
    ///
    /// [`MqttError`]; the connection is of no use afterwards.
    pub async fn receive(&mut self) -> Result<Packet, MqttError> {
        loop {
            match self.take()? {
                Some(Packet::Disconnect(goodbye)) => {
                    return Err(MqttError::Disconnected(goodbye.reason_code));
                }
                Some(packet) => return Ok(packet),
                None if self.stream.read_buf(&mut self.input).await? == 0 => return Err(MqttError::Closed),
                None => {}
            }
        }
    }

    /// The next packet if it has arrived already, without waiting for more bytes.
    ///
    /// # Errors
    ///
    /// [`MqttError::Protocol`].
    pub fn take(&mut self) -> Result<Option<Packet>, MqttError> {
        if self.version == Version::V311 {
            return v311::read(&mut self.input);
        }
        match Packet::read(&mut self.input, None) {
            Ok(packet) => Ok(Some(packet)),
            Err(CodecError::InsufficientBytes(missing)) => {
                self.input.reserve(missing.max(16 * 1024));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Subscribes to `filters` with at most `qos` and waits until the broker has granted all of them.
    /// Messages that arrive meanwhile are dropped.
    ///
    /// # Errors
    ///
    /// [`MqttError::Protocol`] if a filter is refused, else as [`Self::receive`].
    pub async fn subscribe(&mut self, filters: &[&str], qos: QoS) -> Result<(), MqttError> {
        self.send(&subscribe(filters, qos)).await?;
        loop {
            if let Packet::SubAck(ack) = self.receive().await? {
                use rumqttc::v5::mqttbytes::v5::SubscribeReasonCode::Success;
                return match ack.return_codes.iter().find(|code| !matches!(code, Success(_))) {
                    None => Ok(()),
                    Some(code) => Err(MqttError::Protocol(format!(
                        "a subscription was refused: {code:?}"
                    ))),
                };
            }
        }
    }
}

/// A PUBLISH packet; `pkid` is 0 for QoS 0 and must not be otherwise.
pub fn publish(topic: &str, qos: QoS, pkid: u16, payload: impl Into<bytes::Bytes>) -> Packet {
    let mut publish = Publish::new(topic, qos, payload, None);
    publish.pkid = pkid;
    Packet::Publish(publish)
}

/// A SUBSCRIBE packet for `filters` with at most `qos`, the first of its connection.
pub fn subscribe(filters: &[&str], qos: QoS) -> Packet {
    let filters = filters.iter().map(|filter| Filter::new(*filter, qos)).collect();
    Packet::Subscribe(Subscribe {
        pkid: 1,
        filters,
        properties: None,
    })
}

/// Opens a session as [`Connection::open`] does, or gives up after `deadline`.
///
/// # Errors
///
/// As [`Connection::open`]; [`io::ErrorKind::TimedOut`] at the deadline.
pub async fn open_within(
    address: SocketAddr,
    identity: &Identity,
    deadline: Duration,
) -> Result<Connection, MqttError> {
    match tokio::time::timeout(deadline, Connection::open(address, identity)).await {
        Ok(opened) => opened.map(|(connection, _ack)| connection),
        Err(_elapsed) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}
