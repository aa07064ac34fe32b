//! From the poller's observations to the counters and the checkpoints.

use std::sync::Arc;

use viaduct_poller::{Observation, Observer};

use super::Telemetry;
use crate::checkpoints::SourceCheckpoints;

/// Hears what the poller of one source observes.
#[derive(Debug)]
pub(crate) struct SourceObserver {
    source: Arc<str>,
    telemetry: Arc<Telemetry>,
    checkpoints: Arc<SourceCheckpoints>,
}

impl SourceObserver {
    /// For the source of this name, whose `checkpoints` learn what need not be remembered any more.
    pub(crate) fn new(
        source: Arc<str>,
        telemetry: Arc<Telemetry>,
        checkpoints: Arc<SourceCheckpoints>,
    ) -> Self {
        Self { source, telemetry, checkpoints }
    }
}

impl Observer for SourceObserver {
    fn observe(&self, observation: Observation<'_>) {
        if let Observation::Forgotten { identity } = observation {
            return self.checkpoints.forget(identity);
        }
        let source = &self.source;
        if let Some(traces) = &self.telemetry.traces {
            traces.observe(source, &observation);
        }
        let mut counts = self.telemetry.tally.lock();
        match observation {
            Observation::Request { operation, status, took } => {
                *counts.requests.entry((source.clone(), operation.as_str(), status)).or_default() += 1;
                drop(counts);
                self.telemetry.request_took(source, operation.as_str(), took);
            }
            Observation::TokenRefreshed => *counts.token_refreshes.entry(source.clone()).or_default() += 1,
            Observation::SessionCreated { cause } => {
                *counts.sessions_created.entry((source.clone(), cause.as_str())).or_default() += 1;
            }
            Observation::Received { category, redelivered, count } => {
                let entry = category_entry(&mut counts.categories, source, category);
                let counter = if redelivered { &mut entry.redelivered } else { &mut entry.received };
                *counter += count as u64;
            }
            Observation::Acknowledged { category, count } => {
                category_entry(&mut counts.categories, source, category).acknowledged += count as u64;
            }
            Observation::AcknowledgeNotFound { count } => {
                *counts.acknowledge_not_found.entry(source.clone()).or_default() += count as u64;
            }
            Observation::Forgotten { .. }
            | Observation::Polled { .. }
            | Observation::PollFailed { .. }
            | Observation::SessionResumed
            | Observation::SessionLost { .. }
            | Observation::SessionDeleted
            | Observation::SubscriptionsApplied { .. } => {}
        }
    }
}

fn category_entry<'c>(
    categories: &'c mut std::collections::BTreeMap<(Arc<str>, Arc<str>), super::CategoryCounts>,
    source: &Arc<str>,
    category: &str,
) -> &'c mut super::CategoryCounts {
    categories.entry((source.clone(), category.into())).or_default()
}
