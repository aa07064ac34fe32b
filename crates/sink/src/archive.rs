//! Records read back from a destination: what lists and replays dead letters.
//!
//! Reading disturbs nobody: no consumer group is joined, nothing is committed, no lock is taken that a bridge wants.
//! What was replayed is *marked*: a mark names records by their numbers in their log (a partition, a subject, a file), and
//! stands durably beside them, so that every machine sees it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

/// The header of a mark in a topic or stream; its value is the marked numbers, see [`Numbers`].
pub const MARK: &str = "viaduct-replayed";

/// How many records wait between whoever reads them and whoever asked.
pub const READ_AHEAD: usize = 256;

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What people call it; the same as long as the record stands there.
    pub id: String,
    /// The log in which it has a number: `<topic>/<partition>`, a subject, `<file>/<identity>`.
    pub log: Arc<str>,
    /// Its number there: offset, stream sequence, line. Later records have larger ones.
    pub number: u64,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Where it stands.
    pub place: Place,
    /// When the destination (or the producer) stamped it, in milliseconds since the Unix epoch; `None`: files.
    pub time_ms: Option<i64>,
    /// Its headers, in their order; files have none.
    pub headers: Vec<(String, String)>,
    /// Its value; empty for a tombstone.
    pub value: Bytes,
}

impl Kept {
    /// The value of the first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// The marked numbers of each log.
pub type Marks = HashMap<Arc<str>, Numbers>;

/// Records of one log that are to be marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The log.
    pub log: Arc<str>,
    /// Which of its numbers.
    pub numbers: Numbers,
}

/// Numbers as ranges; in text `3-17,20`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(BTreeMap<u64, u64>);

impl Numbers {
    /// Adds `first..=last`.
    pub fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last.max(first));
        // Whatever touches the new range becomes part of it.
        while let Some((&start, &end)) = self.0.range(..=last.saturating_add(1)).next_back()
            && end.saturating_add(1) >= first
        {
            self.0.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.0.insert(first, last);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        other.0.iter().for_each(|(first, last)| self.insert(*first, *last));
    }

    /// Whether `number` is one of them.
    pub fn contains(&self, number: u64) -> bool {
        self.0.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// The smallest one.
    pub fn first(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// A text that is no [`Numbers`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a list of numbers such as 3-17,20")]
pub struct NoNumbers;

impl FromStr for Numbers {
    type Err = NoNumbers;

    fn from_str(text: &str) -> Result<Self, NoNumbers> {
        let mut numbers = Self::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) if first <= last => numbers.insert(first, last),
                _ => return Err(NoNumbers),
            }
        }
        Ok(numbers)
    }
}

/// Which topics, subjects or files hold the records.
#[derive(Clone)]
pub enum Names {
    /// One.
    One(Arc<str>),
    /// Those that a template can become.
    Like {
        /// What each of them starts with one of.
        prefixes: Vec<String>,
        /// Whether a name is one of them.
        matches: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    },
}

impl Names {
    /// Whether `name` is one of them.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::One(one) => **one == *name,
            Self::Like { matches, .. } => matches(name),
        }
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => f.debug_tuple("One").field(name).finish(),
            Self::Like { prefixes, .. } => f.debug_tuple("Like").field(prefixes).finish(),
        }
    }
}

/// Why records cannot be read or marked. A sentence for a person, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Nobody answers, or not in time.
    #[error("{0}")]
    Unreachable(String),
    /// The destination says no.
    #[error("{0}")]
    Refused(String),
}

/// Records on their way; its end is the end of what stood there when the reading began.
pub type Reading = mpsc::Receiver<Result<Kept, ArchiveError>>;

/// The marks among what is read, where they are records with the header [`MARK`].
///
/// # Errors
/// The reading broke off.
pub async fn marks_among(mut reading: Reading) -> Result<Marks, ArchiveError> {
    let mut marks = Marks::new();
    while let Some(kept) = reading.recv().await {
        let kept = kept?;
        if let Some(numbers) = kept.header(MARK).and_then(|text| text.parse::<Numbers>().ok()) {
            marks.entry(Arc::clone(&kept.place.log)).or_default().extend(&numbers);
        }
    }
    Ok(marks)
}

/// The records of one destination system, to be read back.
///
/// Nothing is loaded as a whole: a [`Reading`] holds some [`READ_AHEAD`] records (and a broker's client its buffer), and
/// dropping it ends the reading.
#[async_trait]
pub trait Archive: Send + Sync {
    /// What was marked until now.
    async fn marks(&self) -> Result<Marks, ArchiveError>;

    /// Everything that stands there now, oldest first, marks included. Numbers rise within a log. `since_ms` allows to
    /// leave out what is older, where that saves reading it.
    async fn read(&self, since_ms: Option<i64>) -> Result<Reading, ArchiveError>;

    /// Whether `id` has the form of the ids of this archive.
    fn knows(&self, id: &str) -> bool;

    /// The record with this id; `None`: it is not there (any more).
    async fn find(&self, id: &str) -> Result<Option<Kept>, ArchiveError>;

    /// Makes sure that marks can be written, and that nobody else writes some, as far as that can be known.
    async fn prepare(&self) -> Result<(), ArchiveError>;

    /// Marks records; returns once that is durable. Repeating it changes nothing.
    async fn mark(&self, marks: &[Mark]) -> Result<(), ArchiveError>;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_in_text() {
        let numbers: Numbers = "5,1-3,4,9-12,11-20".parse().expect("numbers");
        assert_eq!(numbers.to_string(), "1-5,9-20");
        assert!(numbers.contains(1) && numbers.contains(5) && !numbers.contains(6) && numbers.contains(20));
        for bad in ["", "a", "3-1", "1,", "-1"] {
            assert_eq!(bad.parse::<Numbers>(), Err(NoNumbers), "{bad:?}");
        }
        let mut whole = Numbers::default();
        whole.insert(u64::MAX, u64::MAX);
        whole.insert(0, u64::MAX - 1);
        assert_eq!(whole.to_string(), format!("0-{}", u64::MAX));
    }

    proptest! {
        #[test]
        fn numbers_are_a_set(ranges in prop::collection::vec((0u64..60, 0u64..6), 0..20)) {
            let (mut numbers, mut model) = (Numbers::default(), BTreeSet::new());
            for (first, more) in ranges {
                numbers.insert(first, first + more);
                model.extend(first..=first + more);
            }
            for number in 0..70 {
                prop_assert_eq!(numbers.contains(number), model.contains(&number));
            }
            prop_assert_eq!(numbers.first(), model.first().copied());
            if !model.is_empty() {
                prop_assert_eq!(numbers.to_string().parse::<Numbers>(), Ok(numbers));
            }
        }
    }
}
