//! What a line says of clients, connections and brokers, beside being a line.

/// One thing that a line tells. All texts are hostile input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A broker accepted a client.
    Connected(Connected),
    /// A broker's session with a client ended.
    Disconnected {
        /// The client.
        client_id: String,
        /// Why.
        reason: String,
    },
    /// A broker begins to run; whoever was connected before is not any more.
    BrokerStarts,
    /// A broker ends in order.
    BrokerStops,
    /// A broker is taken to be dead, says mesh-health.
    BrokerDead {
        /// The broker.
        broker: String,
        /// What was wrong.
        reason: String,
    },
    /// A broker is healthy, says mesh-health.
    BrokerHealthy {
        /// The broker.
        broker: String,
    },
    /// The balancer accepted a connection.
    Accepted {
        /// Its number.
        number: i64,
        /// The client's address.
        remote_addr: String,
    },
    /// The balancer connected it to a broker.
    Proxied {
        /// Its number.
        number: i64,
        /// The balancer's address on that connection.
        broker_addr: String,
        /// The broker's address.
        upstream: String,
    },
    /// A connection of the balancer is over.
    Closed {
        /// Its number.
        number: i64,
    },
}

/// A client that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// The client.
    pub client_id: String,
    /// Its address as the broker sees it.
    pub address: String,
    /// Its user.
    pub username: Option<String>,
    /// `3.1`, `3.1.1` or `5`.
    pub protocol: &'static str,
    /// The keepalive in seconds.
    pub keep_alive: i64,
    /// Whether the client begins afresh.
    pub clean_start: bool,
}
