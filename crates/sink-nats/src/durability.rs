//! Where a stream is less durable than the guarantee assumes.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use viaduct_sink::{Outcome, Refusal, Weakness};

use crate::answer;
use crate::stream::{InspectError, StorageType, StreamReport};
use crate::supervisor::Shared;

/// The wait before a stream is looked at again that cannot be seen.
const PAUSE: Duration = Duration::from_millis(500);

impl StreamReport {
    /// Where it is less durable than the guarantee assumes.
    #[must_use]
    pub fn weaknesses(&self) -> Vec<Weakness> {
        let mut weaknesses = Vec::new();
        let mut add = |setting, value: &str, consequence| {
            let destination = format!("stream {}", self.name);
            weaknesses.push(Weakness { destination, setting, value: value.to_owned(), consequence });
        };
        if self.storage == StorageType::Memory {
            add("storage", "memory", "a restart of its servers loses confirmed records");
        }
        if self.replicas == 1 {
            add("replicas", "1", "one lost disk, or a power cut, loses confirmed records");
        }
        weaknesses
    }
}

impl Shared {
    /// As the stream was last seen.
    pub(crate) fn weaknesses(&self) -> Vec<Weakness> {
        self.weaknesses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what the stream lacks, and says it once.
    pub(crate) fn judge(&self, report: &StreamReport) {
        let now = report.weaknesses();
        let mut known = self.weaknesses.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != now {
            for weakness in &now {
                weakness.tell();
            }
            *known = now;
        }
    }

    /// Waits until the stream was seen, or cannot be: because there is none, or because it may not be looked at.
    pub(crate) async fn assess(&self) -> Vec<Weakness> {
        let mut current = self.current.subscribe();
        loop {
            let epoch = match current.wait_for(Option::is_some).await {
                Ok(epoch) => epoch.clone(),
                Err(_) => return Vec::new(),
            };
            let Some(epoch) = epoch else { continue };
            match self.look(&epoch, Instant::now()).await {
                Err(InspectError::Unreachable(_)) => tokio::time::sleep(PAUSE).await,
                Err(InspectError::Refused(reason)) => {
                    if self.checked.settings.require_durable {
                        tracing::warn!(reason, "whether the stream is durable cannot be seen");
                    }
                    return Vec::new();
                }
                Ok(_) | Err(InspectError::Absent(_)) => return self.weaknesses(),
            }
        }
    }

    /// What becomes of a record while the stream is less durable than the settings demand.
    pub(crate) fn too_weak(&self) -> Option<Outcome> {
        if !self.checked.settings.require_durable {
            return None;
        }
        let weakness = self.weaknesses().into_iter().next()?;
        let detail = format!("require_durable = true, but {weakness}");
        Some(answer::refused("not_durable", Refusal::NotDurable, detail))
    }
}
