//! Which events a sink remembers, and where in the checkpoint they stand. Pure.
//!
//! ```text
//!  pages (written once, oldest first)                    young (written with every batch)
//!  [1: a b – d …] [2: e f g – …]          ◀── turned ──  h i j k l m …        ◀── hold
//! ```
//!
//! Young events are few: when they become many, the oldest of them are turned into a page. An event that is forgotten
//! leaves a gap in its page, and a page without events is removed.
//!
//! What was read is turned at once, unless it is next to nothing. A process that was killed leaves the names of events that
//! the vendor has acknowledged and will never mention again: with every batch from then on they would be written once more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::checkpoint::{Checkpoint, Page, PageEntry, Remembered};

/// How many there may be of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Young events; above it a page is turned.
    pub(crate) young: usize,
    /// Events of a page.
    pub(crate) page: usize,
    /// All events; above it the oldest are forgotten.
    pub(crate) all: usize,
}

/// Pages that are written, or removed, with one checkpoint.
const MOST_AT_A_TIME: usize = 4;
/// What was read becomes a page where it fills this share of one.
const WORTH_A_PAGE: usize = 16;

#[derive(Debug, Clone, Copy)]
enum Place {
    Young(u64),
    Page(u32, usize),
}

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Memory {
    limits: Limits,
    /// By age.
    young: BTreeMap<u64, Remembered>,
    /// By age; a handful.
    pages: Vec<Page>,
    places: HashMap<Arc<str>, Place>,
    next_stamp: u64,
    /// Young events with smaller stamps were read.
    read_before: u64,
    /// Pages that are stored and hold nothing any more.
    empty: BTreeSet<u32>,
}

/// Young events that are to become a page.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) page: u32,
    stamps: Vec<u64>,
}

impl Memory {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            young: BTreeMap::new(),
            pages: Vec::new(),
            places: HashMap::new(),
            next_stamp: 0,
            read_before: 0,
            empty: BTreeSet::new(),
        }
    }

    /// Takes in what a checkpoint says, in place of what was known.
    pub(crate) fn load(&mut self, read: Checkpoint) {
        self.young.clear();
        self.places.clear();
        self.empty.clear();
        self.pages = read.pages;
        for Page { number, events } in &self.pages {
            for (index, remembered) in events.iter().enumerate() {
                if let Some(remembered) = remembered {
                    self.places.insert(remembered.event.clone(), Place::Page(*number, index));
                }
            }
        }
        self.tidy();
        for remembered in read.records {
            for record in &remembered.records {
                self.hold(&remembered.event, record);
            }
        }
        self.read_before = self.next_stamp;
        self.shrink();
    }

    /// Somebody removed the checkpoint: what stands beside it counts no more.
    pub(crate) fn lose_pages(&mut self) {
        self.pages.clear();
        self.empty.clear();
        self.places.retain(|_, place| matches!(place, Place::Young(_)));
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether the record is remembered. A young event that comes again becomes the youngest.
    pub(crate) fn recognise(&mut self, event: &str, record: &str) -> bool {
        let Some(&place) = self.places.get(event) else { return false };
        let known =
            self.at(place).is_some_and(|remembered| remembered.records.iter().any(|name| **name == *record));
        if known
            && let Place::Young(stamp) = place
            && let Some(remembered) = self.young.remove(&stamp)
        {
            self.put(remembered);
        }
        known
    }

    fn page(&self, number: u32) -> Option<&Page> {
        self.pages.iter().find(|page| page.number == number)
    }

    fn at(&self, place: Place) -> Option<&Remembered> {
        match place {
            Place::Young(stamp) => self.young.get(&stamp),
            Place::Page(page, index) => self.page(page)?.events.get(index)?.as_ref(),
        }
    }

    /// Lets an event go; `None` where it was not remembered.
    pub(crate) fn forget(&mut self, event: &str) -> Option<Remembered> {
        let (_, place) = self.places.remove_entry(event)?;
        match place {
            Place::Young(stamp) => self.young.remove(&stamp),
            Place::Page(page, index) => {
                let page = self.pages.iter_mut().find(|known| known.number == page)?;
                let forgotten = page.events.get_mut(index)?.take();
                if page.events.iter().all(Option::is_none) {
                    self.tidy();
                }
                forgotten
            }
        }
    }

    /// Remembers a record.
    pub(crate) fn hold(&mut self, event: &Arc<str>, record: &Arc<str>) {
        match self.places.get(event) {
            Some(&place) if self.at(place).is_some_and(|known| known.records.contains(record)) => {}
            Some(_) => {
                // A page is written once: what changes becomes young again.
                if let Some(mut remembered) = self.forget(event) {
                    remembered.records.push(record.clone());
                    self.put(remembered);
                }
            }
            None => {
                self.put(Remembered { event: event.clone(), records: vec![record.clone()] });
                self.shrink();
            }
        }
    }

    fn put(&mut self, remembered: Remembered) {
        self.places.insert(remembered.event.clone(), Place::Young(self.next_stamp));
        self.young.insert(self.next_stamp, remembered);
        self.next_stamp += 1;
    }

    /// Forgets the oldest where there are too many.
    fn shrink(&mut self) {
        while self.places.len() > self.limits.all {
            if self.pages.is_empty() {
                let Some((_, remembered)) = self.young.pop_first() else { return };
                self.places.remove(&remembered.event);
            } else {
                let Page { number, events } = self.pages.remove(0);
                for remembered in events.into_iter().flatten() {
                    self.places.remove(&remembered.event);
                }
                self.empty.insert(number);
            }
        }
    }

    fn tidy(&mut self) {
        let empty = &mut self.empty;
        self.pages.retain(|page| {
            let kept = page.events.iter().any(Option::is_some);
            if !kept {
                empty.insert(page.number);
            }
            kept
        });
    }

    /// Young events that were read and are to be turned.
    fn read(&self) -> usize {
        let Limits { page, all, .. } = self.limits;
        let count = self.young.range(..self.read_before).count();
        // Processes that die one after the other must not leave a heap of small pages.
        let worth = count * WORTH_A_PAGE >= page && self.pages.len() * page < 2 * all;
        if worth { count } else { 0 }
    }

    /// The pages that have to be turned: what was read, and more where `more` young events need the room.
    pub(crate) fn turns(&self, more: usize) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::new();
        let mut stamps = self.young.keys().copied();
        let (mut read, mut left) = (self.read(), self.young.len());
        while turns.len() < MOST_AT_A_TIME {
            let full = left >= self.limits.page && left + more > self.limits.young;
            let count = if full || read > self.limits.page { self.limits.page } else { read };
            if count == 0 {
                break;
            }
            let taken = |number| self.page(number).is_some() || turns.iter().any(|turn| turn.page == number);
            let page = (0..).find(|number| !taken(*number)).expect("there are more numbers than pages");
            turns.push(Turn { page, stamps: stamps.by_ref().take(count).collect() });
            (read, left) = (read.saturating_sub(count), left - count);
        }
        turns
    }

    /// The events of a turn.
    pub(crate) fn turned<'a>(&'a self, turn: &'a Turn) -> Vec<&'a Remembered> {
        turn.stamps.iter().filter_map(|stamp| self.young.get(stamp)).collect()
    }

    /// The young events that none of these turns takes away.
    pub(crate) fn young(&self, turns: &[Turn]) -> Vec<&Remembered> {
        let taken: usize = turns.iter().map(|turn| turn.stamps.len()).sum();
        self.young.values().skip(taken).collect()
    }

    /// What the checkpoint says of the pages, once these are turned.
    pub(crate) fn index(&self, turns: &[Turn]) -> Vec<PageEntry> {
        let known = |page: &Page| PageEntry::new(page.number, page.events.iter().map(Option::is_none));
        let new = |turn: &Turn| PageEntry::new(turn.page, turn.stamps.iter().map(|_| false));
        self.pages.iter().map(known).chain(turns.iter().map(new)).collect()
    }

    /// Stored pages that may be removed, once these are turned.
    pub(crate) fn empty(&self, turns: &[Turn]) -> Vec<u32> {
        let unused = |page: &&u32| turns.iter().all(|turn| turn.page != **page);
        self.empty.iter().filter(unused).take(MOST_AT_A_TIME).copied().collect()
    }

    /// These pages were removed.
    pub(crate) fn removed(&mut self, pages: &[u32]) {
        for page in pages {
            self.empty.remove(page);
        }
    }

    /// The page is stored. Events that were forgotten or came again meanwhile leave a gap in it.
    pub(crate) fn turn(&mut self, turn: Turn) {
        let Turn { page: number, stamps } = turn;
        self.empty.remove(&number);
        let events: Vec<Option<Remembered>> = stamps.iter().map(|stamp| self.young.remove(stamp)).collect();
        for (index, remembered) in events.iter().enumerate() {
            if let Some(remembered) = remembered {
                self.places.insert(remembered.event.clone(), Place::Page(number, index));
            }
        }
        self.pages.push(Page { number, events });
        self.tidy();
    }
}
