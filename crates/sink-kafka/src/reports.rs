//! Delivery reports: one slot per record, one wake-up per batch, and one per failure.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::Notify;

/// What the delivery report of a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// acks=all was met.
    At { partition: i32, offset: i64 },
    /// It was not, or nobody knows.
    Failed(RDKafkaErrorCode),
}

/// Collects the reports of one batch.
#[derive(Debug)]
pub(crate) struct Reports {
    slots: Mutex<Vec<Option<Delivered>>>,
    open: AtomicUsize,
    failed: AtomicUsize,
    /// Several batches may wake the same waiter.
    changed: Arc<Notify>,
}

/// What librdkafka carries along with a record: where its report belongs.
#[derive(Debug)]
pub(crate) struct Ticket {
    reports: Arc<Reports>,
    index: usize,
}

impl Reports {
    /// For `count` records, none of which is sent yet.
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Self::waking(count, Arc::new(Notify::new()))
    }

    /// The same, with the one waiter of several batches: it is told when this one is done, and of failures.
    pub(crate) fn waking(count: usize, changed: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::new(vec![None; count]),
            // One more than the records sent, so that it is not zero while the batch is still being handed over.
            open: AtomicUsize::new(1),
            failed: AtomicUsize::new(0),
            changed,
        })
    }

    /// A ticket for the record at `index`, or one of several for what belongs together (a failure among them counts); its
    /// report is waited for from now on.
    pub(crate) fn ticket(self: &Arc<Self>, index: usize) -> Box<Ticket> {
        self.open.fetch_add(1, Ordering::AcqRel);
        Box::new(Ticket { reports: self.clone(), index })
    }

    /// The failures reported so far, if there are more of them than `seen`, which is then brought up to date.
    pub(crate) fn failed_since(&self, seen: &mut usize) -> Vec<(usize, RDKafkaErrorCode)> {
        let failed = self.failed.load(Ordering::Acquire);
        if failed == *seen {
            return Vec::new();
        }
        *seen = failed;
        let slots = self.slots();
        let failures = slots.iter().enumerate().filter_map(|(index, slot)| match slot {
            Some(Delivered::Failed(code)) => Some((index, *code)),
            _ => None,
        });
        failures.collect()
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Option<Delivered>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.changed.notify_one();
        }
    }

    /// No further ticket will be made. Call once.
    pub(crate) fn complete(&self) {
        self.close_one();
    }

    /// Whether all reports are in, after [`Reports::complete`].
    pub(crate) fn done(&self) -> bool {
        self.open.load(Ordering::Acquire) == 0
    }

    /// Whether a failure is among them.
    pub(crate) fn any_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire) > 0
    }

    /// What is reported so far.
    pub(crate) fn take(&self) -> Vec<Option<Delivered>> {
        std::mem::take(&mut *self.slots())
    }

    /// Waits for the reports of all tickets. Call once, when no further ticket will be made.
    pub(crate) async fn all(&self) -> Vec<Option<Delivered>> {
        self.complete();
        while !self.done() {
            self.changed.notified().await;
        }
        self.take()
    }
}

impl Ticket {
    /// The report arrived. Called on librdkafka's polling thread.
    pub(crate) fn report(self, delivered: Delivered) {
        if let Some(slot) = self.reports.slots().get_mut(self.index)
            && !matches!(slot, Some(Delivered::Failed(_)))
        {
            *slot = Some(delivered);
        }
        if matches!(delivered, Delivered::Failed(_)) {
            self.reports.failed.fetch_add(1, Ordering::AcqRel);
            self.reports.changed.notify_one();
        }
        self.reports.close_one();
    }

    /// The record was never handed over: no report will come.
    pub(crate) fn withdraw(self) {
        self.reports.close_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_batch_is_done_when_every_ticket_is() {
        let reports = Reports::new(3);
        let first = reports.ticket(0);
        let second = reports.ticket(1);
        let withdrawn = reports.ticket(2);
        let waiting = tokio::spawn({
            let reports = reports.clone();
            async move { reports.all().await }
        });
        second.report(Delivered::At { partition: 1, offset: 5 });
        let mut seen = 0;
        assert!(reports.failed_since(&mut seen).is_empty());
        withdrawn.withdraw();
        first.report(Delivered::Failed(RDKafkaErrorCode::Fatal));
        assert_eq!(reports.failed_since(&mut seen), [(0, RDKafkaErrorCode::Fatal)]);
        assert!(reports.failed_since(&mut seen).is_empty());
        let slots = waiting.await.unwrap();
        assert_eq!(
            slots,
            [
                Some(Delivered::Failed(RDKafkaErrorCode::Fatal)),
                Some(Delivered::At { partition: 1, offset: 5 }),
                None
            ]
        );
    }

    #[tokio::test]
    async fn a_batch_without_tickets_is_done_at_once() {
        assert_eq!(Reports::new(1).all().await, [None]);
    }
}
