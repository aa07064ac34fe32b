//! What becomes of requests to the brokers.

use super::super::broker::{Answer, Request, Rules};
use super::super::instance::BROKERS;
use super::words::answer_words;
use super::{Flight, World};

impl World {
    /// A request arrives, as far as `limit` records where it can end in between.
    fn arrive(&mut self, at: usize, limit: usize) {
        let Self { flights, brokers, .. } = self;
        let flight = &mut flights[at];
        let broker = &mut brokers[flight.broker];
        let before = broker.log.len();
        let owner = broker.owner;
        let answer = broker.apply(&flight.request, flight.by, limit);
        let (by, to, number) = (flight.by, flight.broker, flight.number);
        let claims = matches!(flight.request, Request::Commit { claim: true, .. });
        let committed = matches!(answer, Answer::Committed(_));
        let line = format!("{} has request {number} of #{by}: {}", BROKERS[to], answer_words(&answer));
        flight.answer = Some(answer);
        if flight.orphan {
            flights.remove(at);
        }
        self.tell(line);
        if committed && !claims && owner != Some(by) {
            self.violate(format!("I3: #{by} publishes to {} after another one has taken over", BROKERS[to]));
        }
        self.check_stored(to, before);
    }

    /// Counts and order of what was stored last.
    fn check_stored(&mut self, to: usize, from: usize) {
        let mut wrong = None;
        let broker = &self.brokers[to];
        for stored in &broker.log[from..] {
            let (record, by) = (&stored.record, stored.by);
            let count = broker.counts[&record.message_id];
            let once = broker.rules != Rules::Plain || (to != 2 && !self.disturbed);
            if count > 1 && once {
                wrong = Some(format!("I3: {} holds {} {count} times", BROKERS[to], record.message_id));
            }
            if record.message_id != record.event {
                continue;
            }
            let order = self.instances.iter().find(|one| one.number == by);
            let Some(&order) = order.and_then(|one| one.order.get(&record.event)) else { continue };
            let place = (to, record.destination.clone(), record.key.clone(), by);
            let last = self.last.entry(place).or_insert(order);
            if order < *last && count == 1 {
                wrong = Some(format!(
                    "I4: {} came to {} behind a later one of its key",
                    record.event, BROKERS[to]
                ));
            }
            *last = order.max(*last);
        }
        if let Some(wrong) = wrong {
            self.violate(wrong);
        }
    }

    /// The next thing becomes of a request: it arrives, or its answer does.
    pub(super) fn advance(&mut self, at: usize, limit: usize) {
        let Some(flight) = self.flights.get(at) else { return };
        if flight.answer.is_none() {
            if !self.brokers[flight.broker].away {
                self.arrive(at, limit);
            }
            return;
        }
        let Some(instance) = self.instances.iter_mut().find(|one| one.number == flight.by) else { return };
        if instance.frozen {
            return;
        }
        let Flight { number, by, broker, answer, .. } = self.flights.remove(at);
        let Some(answer) = answer else { return };
        let meaning = instance.clients[broker].answered(answer);
        self.tell(format!("#{by} hears of request {number}: {meaning}"));
    }

    /// The answer to a request is lost, and perhaps the request.
    pub(super) fn lose(&mut self, at: usize) {
        let Some(flight) = self.flights.get_mut(at) else { return };
        let Some(instance) = self.instances.iter_mut().find(|one| one.number == flight.by) else { return };
        if instance.frozen || flight.orphan {
            return;
        }
        instance.clients[flight.broker].unanswered();
        let line = format!("#{} hears nothing of request {}", flight.by, flight.number);
        flight.orphan = true;
        let late = matches!(flight.request, Request::Commit { .. } | Request::Fence);
        if flight.answer.is_some() || !late {
            self.flights.remove(at);
        }
        self.disturbed = true;
        self.tell(line);
    }
}
