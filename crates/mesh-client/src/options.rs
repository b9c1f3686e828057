//! How to reach the network, and as whom.

use std::time::Duration;

use rumqttc::v5::MqttOptions;

use crate::connection::WINDOW;
use crate::error::ClientError;

/// How long a connection and its CONNACK may take together. A hung broker accepts and says nothing.
const CONNECT_PATIENCE_S: u64 = 3;

/// The shortest keep-alive that rumqttc takes.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// TLS, and whom to trust.
#[cfg(feature = "tls")]
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// Certificates to trust, as PEM; those of the operating system if `None`.
    pub ca: Option<Vec<u8>>,
    /// Our own certificate and its key, both as PEM, where the broker asks for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

#[cfg(feature = "tls")]
impl Tls {
    fn transport(&self) -> rumqttc::Transport {
        match &self.ca {
            Some(ca) => rumqttc::Transport::tls(ca.clone(), self.identity.clone(), None),
            None => rumqttc::Transport::tls_with_default_config(),
        }
    }
}

/// What a session shall be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name of the session. Two programs with the same one throw each other out.
    pub client_id: String,
    /// The balancer; or brokers in order of preference.
    pub brokers: Vec<(String, u16)>,
    /// Topic filters, subscribed with QoS 1.
    ///
    /// Not with 2, which links between brokers do not carry: for each message once, [`Messages`](crate::Messages)
    /// drops duplicates instead. (And a resumed QoS 2 handshake ends rumqttc 0.25 with "unsolicited PUBREL", at every
    /// connection anew.)
    pub subscriptions: Vec<String>,
    /// For how long a broker keeps subscriptions and queued messages; without subscriptions there is nothing to keep.
    pub session_expiry: Duration,
    /// Silence after which the connection is tested, at least 5 s; after twice that it is given up. It is what ends a
    /// connection to a hung broker when nobody else does.
    pub keep_alive: Duration,
    /// The longest pause between attempts.
    pub longest_pause: Duration,
    /// User name and password.
    pub login: Option<(String, String)>,
    /// TLS; without it the connection is plain TCP. Needs the feature `tls`.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// Bytes of the largest packet that we take; a broker drops what is larger. rumqttc's own default of 10 KiB makes
    /// a larger message an endless loop of redelivery.
    pub max_packet: u32,
}

impl Options {
    /// A session `client_id` with the default values: no subscriptions, and keep-alive 10 s.
    pub fn new(
        client_id: impl Into<String>,
        brokers: impl IntoIterator<Item = (impl Into<String>, u16)>,
    ) -> Self {
        Self {
            client_id: client_id.into(),
            brokers: brokers
                .into_iter()
                .map(|(host, port)| (host.into(), port))
                .collect(),
            subscriptions: Vec::new(),
            session_expiry: Duration::from_secs(3600),
            keep_alive: Duration::from_secs(10),
            longest_pause: Duration::from_secs(30),
            login: None,
            #[cfg(feature = "tls")]
            tls: None,
            max_packet: 256 << 20,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ClientError> {
        let wrong = |what: &str| Err(ClientError::Options(what.to_owned()));
        if self.brokers.is_empty() {
            return wrong("at least one broker must be named");
        }
        if self.client_id.trim().is_empty() {
            return wrong("the client id must not be empty: the session could not be found again");
        }
        if !(SHORTEST_KEEP_ALIVE..=Duration::from_secs(65_535)).contains(&self.keep_alive) {
            return wrong("the keep-alive must be 5 s to 65535 s");
        }
        #[cfg(feature = "tls")]
        if self
            .tls
            .as_ref()
            .is_some_and(|tls| tls.ca.is_none() && tls.identity.is_some())
        {
            return wrong("a certificate of our own needs the certificates to trust");
        }
        Ok(())
    }

    /// The options of one connection.
    pub(crate) fn mqtt(&self, (host, port): &(String, u16)) -> MqttOptions {
        let mut mqtt = MqttOptions::new(&self.client_id, host, *port);
        mqtt.set_keep_alive(self.keep_alive)
            .set_connection_timeout(CONNECT_PATIENCE_S)
            .set_manual_acks(true)
            .set_outgoing_inflight_upper_limit(WINDOW)
            .set_clean_start(self.subscriptions.is_empty())
            .set_session_expiry_interval(Some(self.session_expiry_s()))
            .set_receive_maximum(Some(WINDOW))
            .set_max_packet_size(Some(self.max_packet));
        if let Some((user, password)) = &self.login {
            mqtt.set_credentials(user, password);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            mqtt.set_transport(tls.transport());
        }
        mqtt
    }

    fn session_expiry_s(&self) -> u32 {
        if self.subscriptions.is_empty() {
            return 0;
        }
        u32::try_from(self.session_expiry.as_secs()).unwrap_or(u32::MAX)
    }
}
