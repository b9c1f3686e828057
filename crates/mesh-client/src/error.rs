//! What can go wrong here. A lost connection is not among it: that is what the crate is for.

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The outbox cannot be used.
    #[error("the outbox cannot be used; is there room, and does another program use it?")]
    Outbox(#[from] rusqlite::Error),
    /// The program is ending.
    #[error("work on the outbox was broken off")]
    Aborted(#[source] tokio::task::JoinError),
    /// An option is impossible.
    #[error("{0}")]
    Options(String),
    /// The session has ended for good.
    #[error("the client was closed")]
    Closed,
}
