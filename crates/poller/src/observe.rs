//! What happens inside a poller, for counters.

use std::time::Duration;

use crate::event::Identity;
use crate::failure::FailureKind;

/// Is told what happens; called from the poller's loop, so it must return at once.
pub trait Observer: Send + Sync {
    /// One thing happened.
    fn observe(&self, observation: Observation<'_>);
}

/// An observer that looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn observe(&self, _: Observation<'_>) {}
}

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observation<'a> {
    /// An HTTP request ended.
    Request {
        /// What it was for.
        operation: Operation,
        /// The HTTP status; `None` where no complete answer came.
        status: Option<u16>,
        /// From sending to the end of the answer.
        took: Duration,
    },
    /// A GET of events brought an answer that could be read, and nothing of it is handed out yet. Comes after the
    /// [`Observation::Request`] of that GET.
    Polled {
        /// Counts the answers of this poller; [`crate::Deliveries::poll`] names it.
        number: u64,
        /// Entries in the answer, known ones included.
        entries: usize,
    },
    /// A GET of events brought nothing that could be read. Comes after its [`Observation::Request`], if it was sent.
    PollFailed {
        /// What it means.
        kind: FailureKind,
    },
    /// A new access token is in use.
    TokenRefreshed,
    /// A session was created.
    SessionCreated {
        /// Why.
        cause: Cause,
    },
    /// A saved session answered its first GET.
    SessionResumed,
    /// The session is dead; its id is never used again.
    SessionLost {
        /// What the next session will be created for.
        cause: Cause,
    },
    /// The session was deleted on purpose.
    SessionDeleted,
    /// Entries came in a response.
    Received {
        /// The events' category, `unknown` for what is malformed.
        category: &'a str,
        /// They were known already.
        redelivered: bool,
        /// How many.
        count: usize,
    },
    /// The vendor confirmed acknowledgements (v2: the events are durable).
    Acknowledged {
        /// The events' category.
        category: &'a str,
        /// How many.
        count: usize,
    },
    /// The entry will not be delivered again: the vendor confirmed its acknowledgement (v2: the spool let go of it).
    Forgotten {
        /// Which one.
        identity: &'a Identity,
    },
    /// The vendor did not know some acknowledged ids (`eventIdsNotFound`).
    AcknowledgeNotFound {
        /// How many.
        count: usize,
    },
    /// The declared subscriptions stand in the session.
    SubscriptionsApplied {
        /// Newly created.
        created: usize,
        /// Changed with PUT.
        updated: usize,
        /// Not declared, and deleted.
        deleted: usize,
    },
}

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// POST to the token endpoint.
    Token,
    /// POST session.
    SessionCreate,
    /// DELETE session.
    SessionDelete,
    /// GET events.
    Events,
    /// POST acknowledge.
    Acknowledge,
    /// GET subscriptions.
    SubscriptionList,
    /// POST subscriptions.
    SubscriptionCreate,
    /// PUT subscriptions/{id}.
    SubscriptionUpdate,
    /// DELETE subscriptions/{id}.
    SubscriptionDelete,
}

impl Operation {
    /// The metrics label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::SessionCreate => "session_create",
            Self::SessionDelete => "session_delete",
            Self::Events => "events",
            Self::Acknowledge => "acknowledge",
            Self::SubscriptionList => "subscription_list",
            Self::SubscriptionCreate => "subscription_create",
            Self::SubscriptionUpdate => "subscription_update",
            Self::SubscriptionDelete => "subscription_delete",
        }
    }
}

/// Why a session is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The poller started and had none to resume.
    Start,
    /// The vendor said "Invalid or expired session".
    Expired,
    /// The vendor kept refusing the session without saying so (404, repeated 400).
    Lost,
    /// Another instance took the source over or gave it back.
    OwnerChange,
}

impl Cause {
    /// The metrics label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Expired => "expired",
            Self::Lost => "lost",
            Self::OwnerChange => "owner_change",
        }
    }
}
