//! What happened to every event: one compact row each, so that a million of them cost some 70 MB and a lookup by id is
//! an index calculation.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;

use crate::generator::Made;

mod telling;

/// Number of an event in the journal, in the order in which events were made.
pub(crate) type RowNumber = u32;

/// Event ids look like those of the document, `1519073278252-0`: milliseconds, then a counter within them. Compared as
/// text they are not in order (`…-10` stands before `…-9`), as with the vendor.
const FIRST_ID_MS: u64 = 1_519_073_278_252;
const IDS_PER_MS: u64 = 16;

/// The id of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Id {
    /// The n-th id that the simulator made.
    Made(u32),
    /// An id that was given from outside; index into `foreign`.
    Foreign(u32),
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// In the organisation's queue.
    Queued,
    /// Given to a session, not acknowledged.
    Pending,
    Acknowledged,
    /// Given to a session that does not acknowledge.
    Consumed,
    Lost,
    /// Goes on under another id.
    Replaced,
    /// Given out often enough, and impossible to acknowledge.
    Forgotten,
}

impl State {
    const COUNT: usize = 7;

    fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Pending => "pending",
            Self::Acknowledged => "acknowledged",
            Self::Consumed => "consumed",
            Self::Lost => "lost",
            Self::Replaced => "replaced",
            Self::Forgotten => "forgotten",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Row {
    payload_hash: u64,
    interaction: u64,
    session: u64,
    id: Id,
    user: u32,
    /// Times are milliseconds since the start, plus 1; orders count from 1; 0 is never.
    acknowledged_ms: u32,
    acknowledged_order: u32,
    first_delivery_order: u32,
    first_delivery_ms: u32,
    /// Of a replaced event: the row that goes on.
    link: RowNumber,
    event_type: u16,
    deliveries: u16,
    state: State,
    malformed: bool,
    twin: bool,
    continues: bool,
}

/// Events of one type, counted.
#[derive(Debug)]
struct TypeCounts {
    name: String,
    emitted: u64,
    delivered: u64,
    acknowledged: u64,
}

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    seed: u64,
    start: Instant,
    rows: Vec<Row>,
    /// First row of the n-th made id.
    by_id: Vec<RowNumber>,
    /// Further rows of an id that several events have.
    twins: HashMap<Id, Vec<RowNumber>>,
    foreign: Vec<String>,
    foreign_index: HashMap<String, u32>,
    foreign_rows: Vec<RowNumber>,
    types: Vec<TypeCounts>,
    type_index: HashMap<String, u16>,
    /// Of a row that goes on under a new id: the row it continues.
    came_from: HashMap<RowNumber, RowNumber>,
    entries: Option<Vec<Bytes>>,
    /// The rows in the order in which they were given out, repeatedly.
    deliveries: Option<Vec<RowNumber>>,
    /// Events in each state.
    states: [u64; State::COUNT],
    delivered: u64,
    redelivered: u64,
    malformed: u64,
    deliveries_ordered: u32,
    acknowledgements_ordered: u32,
}

impl Journal {
    pub(crate) fn new(seed: u64, keep_entries: bool, keep_deliveries: bool, start: Instant) -> Self {
        Self {
            seed,
            start,
            rows: Vec::new(),
            by_id: Vec::new(),
            twins: HashMap::new(),
            foreign: Vec::new(),
            foreign_index: HashMap::new(),
            foreign_rows: Vec::new(),
            types: Vec::new(),
            type_index: HashMap::new(),
            came_from: HashMap::new(),
            entries: keep_entries.then(Vec::new),
            deliveries: keep_deliveries.then(Vec::new),
            states: [0; State::COUNT],
            delivered: 0,
            redelivered: 0,
            malformed: 0,
            deliveries_ordered: 0,
            acknowledgements_ordered: 0,
        }
    }

    /// The id that the next event gets.
    pub(crate) fn next_id(&self) -> String {
        made_id(self.by_id.len() as u32)
    }

    /// The id of a row, if it was made here.
    pub(crate) fn made_id_of(&self, row: RowNumber) -> Option<String> {
        match self.rows[row as usize].id {
            Id::Made(number) => Some(made_id(number)),
            Id::Foreign(_) | Id::None => None,
        }
    }

    /// Notes an event that has the next id (or none).
    pub(crate) fn made(&mut self, made: &Made) -> RowNumber {
        let id = if made.has_id { Id::Made(self.by_id.len() as u32) } else { Id::None };
        // An id is used up either way: ids do not depend on what the entry became.
        self.by_id.push(self.rows.len() as RowNumber);
        self.push(made, id)
    }

    /// Notes an event that has the same id as an earlier one.
    pub(crate) fn made_twin(&mut self, made: &Made, of: RowNumber) -> RowNumber {
        let id = self.rows[of as usize].id;
        let row = self.push(made, id);
        self.rows[row as usize].twin = true;
        self.twins.entry(id).or_default().push(row);
        row
    }

    /// Notes an event that was given from outside, with whatever id.
    pub(crate) fn given(&mut self, made: &Made, id: Option<&str>) -> RowNumber {
        let Some(text) = id else { return self.push(made, Id::None) };
        let next = self.rows.len() as RowNumber;
        let (id, known) = match self.parse(text) {
            Some(id) => (id, true),
            None => {
                let index = self.foreign.len() as u32;
                self.foreign.push(text.to_owned());
                self.foreign_index.insert(text.to_owned(), index);
                self.foreign_rows.push(next);
                (Id::Foreign(index), false)
            }
        };
        let row = self.push(made, id);
        if known {
            self.twins.entry(id).or_default().push(row);
        }
        row
    }

    fn push(&mut self, made: &Made, id: Id) -> RowNumber {
        let row = self.rows.len() as RowNumber;
        let event_type = self.type_number(&made.event_type);
        self.rows.push(Row {
            payload_hash: made.payload_hash,
            interaction: made.interaction.unwrap_or(0),
            session: made.session.unwrap_or(0),
            id,
            user: made.user.unwrap_or(u32::MAX),
            acknowledged_ms: 0,
            acknowledged_order: 0,
            first_delivery_order: 0,
            first_delivery_ms: 0,
            link: 0,
            event_type,
            deliveries: 0,
            state: State::Queued,
            malformed: made.malformed,
            twin: false,
            continues: false,
        });
        if let Some(entries) = &mut self.entries {
            entries.push(made.text.clone());
        }
        self.states[State::Queued as usize] += 1;
        self.types[usize::from(event_type)].emitted += 1;
        self.malformed += u64::from(made.malformed);
        row
    }

    fn type_number(&mut self, name: &str) -> u16 {
        if let Some(number) = self.type_index.get(name) {
            return *number;
        }
        let number = self.types.len() as u16;
        self.types.push(TypeCounts { name: name.to_owned(), emitted: 0, delivered: 0, acknowledged: 0 });
        self.type_index.insert(name.to_owned(), number);
        number
    }

    /// Notes that an event was given to a session; `keeps`: it waits there for its acknowledgement.
    pub(crate) fn delivered(&mut self, number: RowNumber, keeps: bool, now: Instant) {
        let ms = self.ms(now);
        let row = &mut self.rows[number as usize];
        if row.deliveries > 0 || row.continues {
            self.redelivered += 1;
        } else {
            self.delivered += 1;
            self.types[usize::from(row.event_type)].delivered += 1;
        }
        if row.deliveries == 0 {
            self.deliveries_ordered += 1;
            (row.first_delivery_order, row.first_delivery_ms) = (self.deliveries_ordered, ms);
        }
        row.deliveries = row.deliveries.saturating_add(1);
        if let Some(deliveries) = &mut self.deliveries {
            deliveries.push(number);
        }
        self.set(number, if keeps { State::Pending } else { State::Consumed });
    }

    /// Every delivery so far, in order; empty unless it is kept.
    pub(crate) fn all_deliveries(&self) -> Vec<RowNumber> {
        self.deliveries.clone().unwrap_or_default()
    }

    pub(crate) fn acknowledged(&mut self, number: RowNumber, now: Instant) {
        let ms = self.ms(now);
        self.acknowledgements_ordered += 1;
        let row = &mut self.rows[number as usize];
        (row.acknowledged_order, row.acknowledged_ms) = (self.acknowledgements_ordered, ms);
        self.types[usize::from(row.event_type)].acknowledged += 1;
        self.set(number, State::Acknowledged);
    }

    /// Notes any other change of state.
    pub(crate) fn set(&mut self, number: RowNumber, state: State) {
        let row = &mut self.rows[number as usize];
        self.states[row.state as usize] -= 1;
        row.state = state;
        self.states[row.state as usize] += 1;
    }

    /// Gives an event a new id: the old row ends, a new one goes on.
    pub(crate) fn replaced(&mut self, old: RowNumber, text: &Bytes) -> RowNumber {
        let new = self.rows.len() as RowNumber;
        let id =
            if self.rows[old as usize].id == Id::None { Id::None } else { Id::Made(self.by_id.len() as u32) };
        self.by_id.push(new);
        let before = &self.rows[old as usize];
        let row = Row {
            id,
            link: 0,
            continues: true,
            twin: false,
            state: State::Queued,
            acknowledged_ms: 0,
            acknowledged_order: 0,
            first_delivery_order: 0,
            first_delivery_ms: 0,
            deliveries: 0,
            ..*before
        };
        self.rows.push(row);
        self.states[State::Queued as usize] += 1;
        if let Some(entries) = &mut self.entries {
            entries.push(text.clone());
        }
        self.rows[old as usize].link = new;
        self.came_from.insert(new, old);
        self.set(old, State::Replaced);
        new
    }

    /// The rows that an id names, the first in the first place; none if no event has it.
    pub(crate) fn rows_of(&self, id: &str) -> (Option<RowNumber>, &[RowNumber]) {
        let Some(id) = self.parse(id) else { return (None, &[]) };
        let first = match id {
            Id::Made(number) => self.by_id[number as usize],
            Id::Foreign(index) => self.foreign_rows[index as usize],
            Id::None => return (None, &[]),
        };
        // A number can be spent on an entry that shows no id.
        let first = (self.rows[first as usize].id == id).then_some(first);
        (first, self.twins.get(&id).map_or(&[], Vec::as_slice))
    }

    pub(crate) fn deliveries(&self, number: RowNumber) -> u16 {
        self.rows[number as usize].deliveries
    }

    pub(crate) fn state(&self, number: RowNumber) -> State {
        self.rows[number as usize].state
    }

    pub(crate) fn has_id(&self, number: RowNumber) -> bool {
        self.rows[number as usize].id != Id::None
    }

    /// Whether the event has the id of the one made before it.
    pub(crate) fn is_twin(&self, number: RowNumber) -> bool {
        self.rows[number as usize].twin
    }

    fn parse(&self, text: &str) -> Option<Id> {
        let made = || {
            let (ms, within) = text.split_once('-')?;
            let (ms, within) = (ms.parse::<u64>().ok()?, within.parse::<u64>().ok()?);
            let number = ms.checked_sub(FIRST_ID_MS)?.checked_mul(IDS_PER_MS)?.checked_add(within)?;
            let number = u32::try_from(number).ok().filter(|number| (*number as usize) < self.by_id.len())?;
            (within < IDS_PER_MS && made_id(number) == text).then_some(Id::Made(number))
        };
        made().or_else(|| self.foreign_index.get(text).map(|index| Id::Foreign(*index)))
    }

    fn ms(&self, now: Instant) -> u32 {
        now.duration_since(self.start).as_millis() as u32 + 1
    }

    fn id_text(&self, id: Id) -> Option<String> {
        match id {
            Id::Made(number) => Some(made_id(number)),
            Id::Foreign(index) => self.foreign.get(index as usize).cloned(),
            Id::None => None,
        }
    }
}

fn made_id(number: u32) -> String {
    let number = u64::from(number);
    format!("{}-{}", FIRST_ID_MS + number / IDS_PER_MS, number % IDS_PER_MS)
}

/// What stands before the first dot; `unknown` where there is none.
fn category(event_type: &str) -> &str {
    event_type.split_once('.').map_or("unknown", |(category, _)| category)
}
