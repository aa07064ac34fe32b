//! Steering a running simulation from the same process. `/_simulator/…` offers the same over HTTP.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;

use crate::clock;
use crate::fault::FaultPlan;
use crate::generator::Made;
use crate::report::{EventReport, Report};
use crate::settings::Rate;
use crate::simulation::Simulation;

/// A handle on a running simulation. Cheap to clone.
///
/// The same over HTTP, without a token, under `/_simulator/`:
///
/// | request | does |
/// | --- | --- |
/// | GET `report` | the journal in numbers; `?events=true` also event by event (`&from=N&limit=N`, 100,000 by default) |
/// | POST `hold-acknowledgements`, `release-acknowledgements` | holds acknowledge requests back, lets them go |
/// | GET `held-acknowledgements` | the event ids of each request that is held |
/// | POST `expire-sessions`, `revoke-tokens` | ends every session, makes every token invalid |
/// | POST `emit?count=N` | lets N events arise at once |
/// | POST `emit-raw` | queues the body as one entry of `events[]` |
/// | POST `pause`, `resume`, `rate?value=R` | stops, restarts, changes what arises |
/// | GET, POST `faults` | the fault plan; the body replaces it, an empty one ends it |
/// | POST `forget-retry-after` | for a client that was started anew |
#[derive(Debug, Clone)]
pub struct Control {
    simulation: Arc<Simulation>,
}

/// Text that cannot be an entry of `events[]`.
#[derive(Debug, thiserror::Error)]
#[error("an entry of events[] has to be JSON")]
pub struct NotJson(#[source] serde_json::Error);

impl Control {
    pub(crate) fn new(simulation: Arc<Simulation>) -> Self {
        Self { simulation }
    }

    /// From now on, or no longer, acknowledge requests are received but neither applied nor answered. Letting go answers
    /// those that are held. A request whose client goes away meanwhile has no effect; so has one that is held when the
    /// simulator stops, which is answered with 503.
    pub fn hold_acknowledgements(&self, hold: bool) {
        self.simulation.hold.send_modify(|state| {
            if state.on && !hold {
                state.releases += 1;
            }
            state.on = hold;
        });
    }

    /// Answers the acknowledge requests that are held now; those that come later are held as before.
    pub fn answer_held_acknowledgements(&self) {
        self.simulation.hold.send_modify(|state| state.releases += 1);
    }

    /// GETs of events that wait for an answer, in all live sessions. One of a client that was killed counts until its
    /// connection is seen to be gone.
    pub fn polls_under_way(&self) -> usize {
        self.simulation.core().sessions.polls_under_way()
    }

    /// The event ids of each acknowledge request that is held, in order of arrival.
    pub fn held_acknowledgements(&self) -> Vec<Vec<String>> {
        self.simulation.core().held.values().cloned().collect()
    }

    /// Ends every session as if its inactivity delay were over; polls under way are told at once.
    pub fn expire_all_sessions(&self) {
        let mut core = self.simulation.core();
        let inboxes = core.sessions.expire_all();
        core.take_back(inboxes);
        drop(core);
        self.simulation.wake.notify_waiters();
    }

    /// Makes every access token invalid.
    pub fn revoke_tokens(&self) {
        self.simulation.core().tokens.revoke_all(Instant::now());
    }

    /// Replaces the fault plan; calls count from 1 again.
    pub fn set_faults(&self, plan: FaultPlan) {
        self.simulation.core().set_faults(plan);
    }

    /// The fault plan in force.
    pub fn faults(&self) -> FaultPlan {
        self.simulation.core().plan.clone()
    }

    /// Stops events from arising; those that have arisen are still given out.
    pub fn pause(&self) {
        self.change_emission(|emission, now, now_ms| emission.set_paused(true, now, now_ms));
    }

    /// Lets events arise again.
    pub fn resume(&self) {
        self.change_emission(|emission, now, now_ms| emission.set_paused(false, now, now_ms));
    }

    /// Changes how fast events arise, from now on.
    pub fn set_rate(&self, rate: Rate) {
        self.change_emission(|emission, now, now_ms| emission.set_rate(rate, now, now_ms));
    }

    /// Lets so many events arise at once, beside rate, pause and total.
    pub fn emit(&self, count: u64) {
        self.change_emission(|emission, _, now_ms| emission.emit(count, now_ms));
    }

    fn change_emission(&self, change: impl FnOnce(&mut crate::emission::Emission, Instant, u64)) {
        change(&mut self.simulation.core().organisation.emission, Instant::now(), clock::now_ms());
        self.simulation.wake.notify_waiters();
    }

    /// Queues one entry of `events[]` as it stands, before events that are not made yet. It is written in the v3 shape;
    /// sessions of v2 get it with `id` and `type`. It need not be an event at all, but it has to be JSON.
    ///
    /// # Errors
    /// The text is not JSON.
    pub fn emit_raw(&self, entry: &str) -> Result<(), NotJson> {
        let value: Value = serde_json::from_str(entry).map_err(NotJson)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let payload: Option<Value> = text("payload").and_then(|payload| serde_json::from_str(payload).ok());
        let interaction = payload.as_ref().and_then(|payload| {
            let field = payload.get("payload").and_then(|inner| inner.get("interactionId"));
            field.or_else(|| payload.get("interactionId"))?.as_u64()
        });
        let id = text("eventId");
        let made = Made {
            text: Bytes::copy_from_slice(entry.trim().as_bytes()),
            event_type: text("eventType").unwrap_or_default().to_owned(),
            user: None,
            interaction,
            session: None,
            payload_hash: xxhash_rust::xxh3::xxh3_64(text("payload").unwrap_or_default().as_bytes()),
            malformed: id.is_none() || text("eventType").is_none() || text("payload").is_none(),
            has_id: id.is_some(),
        };
        self.simulation.core().organisation.give(&made, id);
        self.simulation.wake.notify_waiters();
        Ok(())
    }

    /// Forgets every Retry-After: for a client that was started anew and cannot know what its predecessor was told.
    pub fn forget_retry_after(&self) {
        self.simulation.core().conduct.forget_silences();
    }

    /// What has happened so far, in numbers.
    pub fn report(&self) -> Report {
        self.simulation.report()
    }

    /// The numbers of the events in the order in which they were given out, repetitions included. Empty unless
    /// [`crate::Settings::keep_deliveries`] is set.
    pub fn deliveries(&self) -> Vec<u32> {
        self.simulation.core().organisation.journal.all_deliveries()
    }

    /// What has happened to each event, in order of making: at most `limit` of them, from number `from`.
    pub fn events(&self, from: usize, limit: usize) -> Vec<EventReport> {
        self.simulation.core().organisation.journal.tell(from, limit)
    }
}
