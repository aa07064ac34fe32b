//! Which record of a batch may be sent next: order, as a pure state machine.
//!
//! Records that must keep their order form a lane: those with the same key, or without a key those with the same
//! subject. The key alone, because one key's records stand on several subjects of the same stream and consumers read
//! the stream.
//!
//! - **Free**: all records are sent in their order without waiting. Right where only a lost connection, which cuts off
//!   a suffix, can keep a record from being stored.
//! - **Gated**: a record is sent once the one before it in its lane is settled, so that two of a lane are never in
//!   flight together. Right where one record may be refused and the next one taken.
//!
//! In both, a record that has to be offered again holds the rest of its lane back.

use std::collections::{BTreeSet, HashMap};

use viaduct_sink::Record;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    InFlight,
    /// Confirmed or rejected: whatever follows may go.
    Settled,
    /// To be offered again by the caller: whatever follows may not go.
    Held,
}

/// The records of one batch, and how far each is.
#[derive(Debug)]
pub(crate) struct Schedule {
    states: Vec<State>,
    follower: Vec<Option<usize>>,
    leader: Vec<Option<usize>>,
    ready: BTreeSet<usize>,
    gated: bool,
    in_flight: usize,
}

/// What orders records among themselves.
#[derive(PartialEq, Eq, Hash)]
enum Lane<'a> {
    Key(&'a str),
    Subject(&'a str),
}

impl Schedule {
    /// All records waiting.
    pub(crate) fn new(records: &[Record]) -> Self {
        let count = records.len();
        let (mut follower, mut leader) = (vec![None; count], vec![None; count]);
        let mut last = HashMap::with_capacity(count);
        for (index, record) in records.iter().enumerate() {
            let lane = record.key.as_deref().map_or(Lane::Subject(&record.destination), Lane::Key);
            if let Some(before) = last.insert(lane, index) {
                follower[before] = Some(index);
                leader[index] = Some(before);
            }
        }
        let states = vec![State::Waiting; count];
        Self { states, follower, leader, ready: (0..count).collect(), gated: false, in_flight: 0 }
    }

    /// Begins anew with everything that is in flight: it is waiting again.
    pub(crate) fn rewind(&mut self, gated: bool) {
        self.gated = gated;
        self.in_flight = 0;
        self.ready.clear();
        for index in 0..self.states.len() {
            if self.states[index] == State::InFlight {
                self.states[index] = State::Waiting;
            }
            let blocked =
                gated && self.leader[index].is_some_and(|before| self.states[before] != State::Settled);
            if self.states[index] == State::Waiting && !blocked {
                self.ready.insert(index);
            }
        }
    }

    /// The record to send next; it is in flight from now on. `None`: nothing can be sent now.
    pub(crate) fn next(&mut self) -> Option<usize> {
        let index = self.ready.pop_first()?;
        self.states[index] = State::InFlight;
        self.in_flight += 1;
        Some(index)
    }

    /// How many are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether this one is in flight.
    pub(crate) fn is_in_flight(&self, index: usize) -> bool {
        self.states.get(index) == Some(&State::InFlight)
    }

    /// Everything in flight.
    pub(crate) fn all_in_flight(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.states.len()).filter(|index| self.states[*index] == State::InFlight)
    }

    /// The record in flight is confirmed or rejected.
    pub(crate) fn settle(&mut self, index: usize) {
        self.land(index, State::Settled);
        let Some(follower) = self.follower[index] else { return };
        if self.gated && self.states[follower] == State::Waiting {
            self.ready.insert(follower);
        }
    }

    /// The record in flight has to be offered again. Gives the records that were not sent yet and are held back with
    /// it, and those that are in flight already behind it.
    pub(crate) fn hold(&mut self, index: usize) -> Behind {
        self.land(index, State::Held);
        let mut behind = Behind::default();
        let mut next = self.follower[index];
        while let Some(follower) = next {
            match self.states[follower] {
                State::Waiting => {
                    self.ready.remove(&follower);
                    self.states[follower] = State::Held;
                    behind.held.push(follower);
                }
                State::InFlight => behind.flying.push(follower),
                State::Settled | State::Held => {}
            }
            next = self.follower[follower];
        }
        behind
    }

    fn land(&mut self, index: usize, state: State) {
        debug_assert_eq!(self.states[index], State::InFlight);
        self.states[index] = state;
        self.in_flight -= 1;
    }
}

/// The rest of a lane.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Not sent, and not to be sent.
    pub(crate) held: Vec<usize>,
    /// Sent already.
    pub(crate) flying: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn schedule(lanes: &[(&str, Option<&str>)]) -> Schedule {
        let records: Vec<Record> = lanes
            .iter()
            .map(|(destination, key)| Record {
                destination: (*destination).into(),
                key: key.map(Into::into),
                headers: Vec::new(),
                value: Bytes::new(),
                timestamp_ms: None,
                message_id: "".into(),
                event: "".into(),
            })
            .collect();
        Schedule::new(&records)
    }

    fn drain(schedule: &mut Schedule) -> Vec<usize> {
        std::iter::from_fn(|| schedule.next()).collect()
    }

    #[test]
    fn free_sends_everything_in_order_and_again_from_the_first_unconfirmed() {
        let mut schedule = schedule(&[("a", Some("k")), ("b", Some("k")), ("a", None), ("a", None)]);
        schedule.rewind(false);
        assert_eq!(drain(&mut schedule), [0, 1, 2, 3]);
        schedule.settle(0);
        schedule.settle(2);
        schedule.rewind(false);
        assert_eq!(schedule.in_flight(), 0);
        assert_eq!(drain(&mut schedule), [1, 3]);
    }

    #[test]
    fn gated_never_has_two_of_a_lane_in_flight() {
        let mut schedule =
            schedule(&[("a", Some("k")), ("b", Some("k")), ("a", None), ("b", None), ("a", None)]);
        schedule.rewind(true);
        assert_eq!(drain(&mut schedule), [0, 2, 3]);
        schedule.settle(2);
        assert_eq!(drain(&mut schedule), [4]);
        schedule.settle(0);
        assert_eq!(drain(&mut schedule), [1]);
        schedule.rewind(true);
        assert_eq!(drain(&mut schedule), [1, 3, 4]);
    }

    #[test]
    fn what_is_offered_again_holds_its_lane_back() {
        let mut gated = schedule(&[("a", Some("k")), ("b", Some("k")), ("a", Some("l")), ("a", Some("k"))]);
        gated.rewind(true);
        assert_eq!(drain(&mut gated), [0, 2]);
        assert_eq!(gated.hold(0), Behind { held: vec![1, 3], flying: vec![] });
        gated.settle(2);
        assert_eq!(drain(&mut gated), [] as [usize; 0]);
        gated.rewind(true);
        assert_eq!(drain(&mut gated), [] as [usize; 0], "what is held stays held over a new connection");

        let mut free = schedule(&[("a", Some("k")), ("b", Some("k")), ("a", Some("k"))]);
        free.rewind(false);
        assert_eq!((free.next(), free.next()), (Some(0), Some(1)));
        assert_eq!(free.hold(0), Behind { held: vec![2], flying: vec![1] });
    }
}
