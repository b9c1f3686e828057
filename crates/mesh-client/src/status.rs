//! How it goes.

/// How a session goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The broker or balancer that we are connected to.
    pub connected: Option<String>,
    /// Whether the broker has all subscriptions.
    pub subscribed: bool,
    /// Connections so far.
    pub connections: u64,
    /// Connections so far at which the broker knew the session.
    pub resumed: u64,
    /// Messages in the outbox.
    pub waiting: u64,
    /// Messages acknowledged so far.
    pub acknowledged: u64,
    /// Messages that a broker refused, so that they were given up.
    pub refused: u64,
    /// Messages dropped so far because the queue to the program was full; those of QoS 1 come again.
    pub dropped: u64,
    /// Why the last connection ended or was not made.
    pub last_error: Option<String>,
}
