//! The journal, told: in numbers and event by event.

use super::{Journal, RowNumber, State, category};
use crate::generator;
use crate::report::{EventReport, Moment, Report};

impl Journal {
    /// Fills in what the journal knows in numbers.
    pub(crate) fn summarise(&self, report: &mut Report) {
        let state = |state: State| self.states[state as usize];
        report.emitted = self.rows.len() as u64 - state(State::Replaced);
        report.queued = state(State::Queued);
        report.delivered = self.delivered;
        report.redelivered = self.redelivered;
        report.acknowledged = state(State::Acknowledged);
        report.unacknowledged = state(State::Pending);
        report.consumed = state(State::Consumed);
        report.lost = state(State::Lost);
        report.replaced = state(State::Replaced);
        report.forgotten = state(State::Forgotten);
        report.malformed = self.malformed;
        for counts in &self.types {
            let category = report.categories.entry(category(&counts.name).to_owned()).or_default();
            category.emitted += counts.emitted;
            category.delivered += counts.delivered;
            category.acknowledged += counts.acknowledged;
        }
    }

    /// The rows of a range, told in full.
    pub(crate) fn tell(&self, from: usize, limit: usize) -> Vec<EventReport> {
        (from..self.rows.len()).take(limit).map(|number| self.tell_one(number)).collect()
    }

    fn tell_one(&self, number: usize) -> EventReport {
        let row = &self.rows[number];
        let name = &self.types[usize::from(row.event_type)].name;
        let moment = |order: u32, ms: u32| (order > 0).then(|| Moment { order, ms: u64::from(ms - 1) });
        EventReport {
            number: number as u64,
            event_id: self.id_text(row.id),
            event_type: name.clone(),
            category: category(name).to_owned(),
            user_id: (row.user != u32::MAX).then(|| generator::user_id(self.seed, row.user)),
            interaction_id: (row.interaction != 0).then_some(row.interaction),
            session_id: (row.session != 0).then(|| generator::session_id(self.seed, row.session)),
            payload_hash: format!("{:016x}", row.payload_hash),
            malformed: row.malformed,
            shares_id: row.twin,
            state: row.state.name().to_owned(),
            deliveries: u64::from(row.deliveries),
            first_delivery: moment(row.first_delivery_order, row.first_delivery_ms),
            acknowledged: moment(row.acknowledged_order, row.acknowledged_ms),
            replaced_by: (row.state == State::Replaced).then_some(u64::from(row.link)),
            replaces: row.continues.then(|| self.origin(number as RowNumber)),
            entry: self
                .entries
                .as_ref()
                .map(|entries| String::from_utf8_lossy(&entries[number]).into_owned()),
        }
    }

    /// The row in which an event first stood, through any number of new ids.
    fn origin(&self, mut number: RowNumber) -> u64 {
        while let Some(before) = self.came_from.get(&number) {
            number = *before;
        }
        u64::from(number)
    }
}
