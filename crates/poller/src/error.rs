//! What keeps a poller from being made, and what ends it.

/// What keeps a [`Poller`](crate::Poller) from being made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// A setting is outside its range.
    #[error("{0}")]
    Settings(String),
    /// A v2 source was given no spool: what a v2 GET returns is gone from the vendor.
    #[error("a v2 source needs a spool")]
    SpoolMissing,
    /// The HTTP client could not be set up (TLS roots, proxy settings).
    #[error("the HTTP client could not be set up: {0}")]
    Http(String),
}

/// What ends a running [`Poller`](crate::Poller). Everything else is waited out.
#[derive(Debug, thiserror::Error)]
pub enum PollerError {
    /// The very first token request was answered "no", or a secret could not be read at the start. Later refusals are
    /// waited out, because credentials get rotated.
    #[error("the credentials were refused: {0}")]
    CredentialsRefused(String),
    /// The v2 spool cannot be read or written, and waiting did not help.
    #[error("the spool failed: {0}")]
    Spool(String),
    /// The saved session cannot be read at the start.
    #[error("the saved session cannot be used: {0}")]
    State(String),
}

/// How a poller ended by itself or because it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It was stopped.
    Stopped {
        /// Events that were handed out in this run and are not acknowledged: they will be delivered again.
        unacknowledged: usize,
    },
    /// An end event was acknowledged and the session deleted.
    Ended,
}
