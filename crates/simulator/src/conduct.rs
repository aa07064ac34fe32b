//! Watches what the client does, and notes what it must not do.
//!
//! A client can only be blamed for what it knew. An answer is known to a request that comes later on the same connection,
//! because HTTP/1.1 is strictly sequential there, and to any request that comes [`GRACE`] later. What crosses an answer on
//! another connection is not misbehaviour.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::fault::Operation;
use crate::report::{Misbehaviour, MisbehaviourKind};

/// How long an answer may take to reach all parts of a client.
pub(crate) const GRACE: Duration = Duration::from_millis(100);
/// How much earlier than told a client may come: clocks and timers are not exact.
const EARLY: Duration = Duration::from_millis(20);
const CASES: usize = 1_000;

/// Something that the client was told, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    at: Instant,
    connection: u64,
}

impl Told {
    pub(crate) fn new(at: Instant, connection: u64) -> Self {
        Self { at, connection }
    }

    /// Whether a request that came now, on this connection, was made in the knowledge of it.
    pub(crate) fn is_known_to(&self, connection: u64, now: Instant) -> bool {
        connection == self.connection || now.duration_since(self.at) >= GRACE
    }
}

/// The record of misbehaviour.
#[derive(Debug)]
pub(crate) struct Conduct {
    start: Instant,
    counts: BTreeMap<MisbehaviourKind, u64>,
    cases: BTreeMap<u64, Misbehaviour>,
    next_case: u64,
    /// By client: the time before which it must not call.
    silences: HashMap<String, (Instant, Told)>,
}

impl Conduct {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            counts: BTreeMap::new(),
            cases: BTreeMap::new(),
            next_case: 0,
            silences: HashMap::new(),
        }
    }

    /// Notes a case; the number takes it back.
    pub(crate) fn note(
        &mut self,
        kind: MisbehaviourKind,
        operation: Operation,
        detail: String,
        now: Instant,
    ) -> u64 {
        self.next_case += 1;
        *self.counts.entry(kind).or_default() += 1;
        if self.cases.len() < CASES {
            let ms = now.duration_since(self.start).as_millis() as u64;
            tracing::debug!(kind = kind.name(), %operation, detail, "the client misbehaved");
            self.cases
                .insert(self.next_case, Misbehaviour { kind, ms, operation: operation.to_string(), detail });
        }
        self.next_case
    }

    /// Takes back a case that turned out to be none.
    pub(crate) fn take_back(&mut self, kind: MisbehaviourKind, case: u64) {
        self.cases.remove(&case);
        if let Some(count) = self.counts.get_mut(&kind) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&kind);
            }
        }
    }

    /// The client was told not to call before `until`.
    pub(crate) fn silence(&mut self, client: &str, until: Instant, told: Told) {
        let silence = self.silences.entry(client.to_owned()).or_insert((until, told));
        if until >= silence.0 {
            *silence = (until, told);
        }
    }

    /// Notes a call of a client that should be silent.
    pub(crate) fn called(&mut self, client: &str, operation: Operation, connection: u64, now: Instant) {
        let Some((until, told)) = self.silences.get(client).copied() else { return };
        if now >= until {
            self.silences.remove(client);
        } else if now + EARLY < until && told.is_known_to(connection, now) {
            let early = until.duration_since(now).as_millis();
            let detail =
                format!("client {client:?} called {early} ms before the time that Retry-After told it");
            self.note(MisbehaviourKind::RetryBeforeRetryAfter, operation, detail, now);
        }
    }

    /// Forgets who should be silent: a client that was started anew cannot know.
    pub(crate) fn forget_silences(&mut self) {
        self.silences.clear();
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect()
    }

    pub(crate) fn cases(&self) -> Vec<Misbehaviour> {
        self.cases.values().cloned().collect()
    }
}
