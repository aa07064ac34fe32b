//! Who still owes a receipt for an event, and the proof that nobody does.

use viaduct_faults::{Mistake, makes};
use viaduct_poller::{AckToken, DurabilityProof};
use viaduct_sink::Receipt;

use crate::config::SinkIndex;

/// Somebody whose receipt an event waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creditor {
    /// A required sink, or the dead letter that stands in for its record.
    Sink(SinkIndex),
    /// The dead letter of an event that no sink gets.
    DeadLetters,
}

/// How many sinks a configuration may have; one bit is the dead letters'.
pub(crate) const MAX_SINKS: usize = 63;

impl Creditor {
    fn bit(self) -> u64 {
        match self {
            Self::Sink(sink) => 1 << sink.get(),
            Self::DeadLetters => 1 << MAX_SINKS,
        }
    }
}

/// Every required sink holds the event durably, or its dead letter is durable. Only [`Owed::settle`] makes one.
#[derive(Debug)]
pub(crate) struct Settled(());

impl DurabilityProof for Settled {}

/// The receipts that an event still waits for, with the token that they will pay for.
#[derive(Debug)]
#[must_use = "dropping it leaves the event unacknowledged"]
pub(crate) struct Owed {
    token: AckToken,
    waiting: u64,
}

impl Owed {
    /// An event that waits for nobody yet.
    pub(crate) fn new(token: AckToken) -> Self {
        Self { token, waiting: 0 }
    }

    /// The event waits for `creditor`, too.
    pub(crate) fn expect(&mut self, creditor: Creditor) {
        if !makes(Mistake::AcknowledgeFirst) {
            self.waiting |= creditor.bit();
        }
    }

    /// `creditor` delivered. A receipt nobody waits for (a best-effort sink's) changes nothing.
    pub(crate) fn receive(&mut self, creditor: Creditor, _receipt: &Receipt) {
        self.waiting &= !creditor.bit();
    }

    /// Acknowledges the event if nobody owes a receipt any more; gives itself back otherwise.
    pub(crate) fn settle(self) -> Result<(), Self> {
        if self.waiting == 0 {
            self.token.acknowledge(Settled(()));
            Ok(())
        } else {
            Err(self)
        }
    }
}
