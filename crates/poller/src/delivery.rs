//! What a consumer gets, and how it says that an event is safe.
//!
//! Every delivered entry comes with an [`AckToken`]. Only the poller makes tokens, and a token is used up by giving
//! proof that the event is durable. So the order "durable, then acknowledged" is kept by the compiler:
//!
//! ```compile_fail
//! # fn forget(token: viaduct_poller::AckToken) {
//! // No proof, no acknowledgement.
//! token.acknowledge();
//! # }
//! ```
//!
//! ```compile_fail
//! # fn twice(token: viaduct_poller::AckToken) {
//! struct Durable;
//! impl viaduct_poller::DurabilityProof for Durable {}
//! token.acknowledge(Durable);
//! token.acknowledge(Durable); // used after move
//! # }
//! ```
//!
//! ```compile_fail
//! // Nobody but the poller makes tokens.
//! let token = viaduct_poller::AckToken { handle: 1 };
//! ```
//!
//! What a consumer writes instead:
//!
//! ```
//! use viaduct_poller::{AckToken, DurabilityProof};
//!
//! /// Exists only after `fsync` returned.
//! struct Synced(());
//! impl DurabilityProof for Synced {}
//!
//! fn keep(file: &mut std::fs::File, raw: &str, token: AckToken) -> std::io::Result<()> {
//!     use std::io::Write;
//!     file.write_all(raw.as_bytes())?; // an error drops the token: the event will be delivered again
//!     file.sync_all()?;
//!     token.acknowledge(Synced(()));
//!     Ok(())
//! }
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use crate::event::Entry;
use crate::store::SessionId;

/// One entry and the duty to settle it.
#[derive(Debug)]
pub struct Delivery {
    /// The event, or what came in its place.
    pub entry: Entry,
    /// Used up when the entry is durable; dropped, it releases the entry.
    pub token: AckToken,
}

/// The fresh entries of one response, in the vendor's order.
#[derive(Debug)]
pub struct Deliveries {
    /// The session they came in.
    pub session: SessionId,
    /// The [`crate::Observation::Polled`] that brought them; `None` where they were read back from the spool.
    pub poll: Option<u64>,
    /// At least one.
    pub items: Vec<Delivery>,
}

/// Implemented by a consumer's type that can only exist once an event is durable: a broker's delivery report, a
/// finished fsync.
pub trait DurabilityProof {}

/// The right to acknowledge one delivered entry.
///
/// Dropping it without [`AckToken::acknowledge`] is safe: nothing is acknowledged, and the entry is handed out again
/// when the vendor delivers it again (v2: when the poller replays its spool). Tokens may be settled in any order.
#[derive(Debug)]
#[must_use = "an entry is acknowledged only through its token"]
pub struct AckToken {
    handle: u64,
    ends: Option<Arc<Ends>>,
}

impl AckToken {
    pub(crate) fn new(handle: u64, ends: Arc<Ends>) -> Self {
        Self { handle, ends: Some(ends) }
    }

    /// The entry is durable: the vendor may forget it.
    ///
    /// With `proof` in hand this never blocks; the poller sends the acknowledgement soon, together with others.
    pub fn acknowledge(mut self, proof: impl DurabilityProof) {
        drop(proof);
        self.send(true);
    }

    fn send(&mut self, durable: bool) {
        if let Some(ends) = self.ends.take() {
            // A poller that is gone cannot acknowledge any more; the vendor then delivers the event again.
            ends.add([Settled { handle: self.handle, durable }]);
        }
    }
}

impl Drop for AckToken {
    fn drop(&mut self) {
        self.send(false);
    }
}

/// A token's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) handle: u64,
    pub(crate) durable: bool,
}

/// The tokens of one poller that came to their ends, until it looks: one wake-up, however many they are.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    settled: Mutex<Vec<Settled>>,
    arrived: Notify,
}

impl Ends {
    fn lock(&self) -> MutexGuard<'_, Vec<Settled>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, settled: impl IntoIterator<Item = Settled>) {
        let mut list = self.lock();
        let was_empty = list.is_empty();
        list.extend(settled);
        drop(list);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Those that are there.
    #[cfg(feature = "simulation")]
    pub(crate) fn take_now(&self) -> Vec<Settled> {
        std::mem::take(&mut self.lock())
    }

    /// Waits until there are some, and swaps them with `taken`, which must be empty. Cancel-safe.
    pub(crate) async fn take(&self, taken: &mut Vec<Settled>) {
        debug_assert!(taken.is_empty());
        loop {
            std::mem::swap(&mut *self.lock(), taken);
            if !taken.is_empty() {
                return;
            }
            self.arrived.notified().await;
        }
    }
}

/// The entries that a poller hands out.
///
/// The channel behind it has no limit of its own, so that a slow consumer can never hold up the polls that keep the
/// session alive. It is bounded all the same: the poller never has more than `max_in_flight` entries handed out and
/// unsettled. Dropping the stream stops the poller.
#[derive(Debug)]
pub struct DeliveryStream {
    receiver: mpsc::UnboundedReceiver<Box<Deliveries>>,
}

impl DeliveryStream {
    pub(crate) fn new(receiver: mpsc::UnboundedReceiver<Box<Deliveries>>) -> Self {
        Self { receiver }
    }

    /// The next response's fresh entries; `None` when the poller has stopped polling and everything was taken.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Deliveries> {
        self.receiver.recv().await.map(|deliveries| *deliveries)
    }

    /// What has been handed out and not taken yet.
    #[cfg(feature = "simulation")]
    pub fn try_next(&mut self) -> Option<Deliveries> {
        self.receiver.try_recv().ok().map(|deliveries| *deliveries)
    }
}
