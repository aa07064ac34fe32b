//! Which records wait because an earlier one of theirs has to be offered again: pure.
//!
//! A lane is what keeps its order: the records of one key, or without a key those of one subject.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use viaduct_sink::{Outcome, Record};

use crate::publish::held;

/// What the records of one round wait for.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    keys: HashSet<Arc<str>>,
    subjects: HashSet<Arc<str>>,
    refused: HashMap<Arc<str>, Outcome>,
}

impl Lanes {
    /// The record has to be offered again: what comes later in its lane waits.
    pub(crate) fn hold(&mut self, record: &Record) {
        match &record.key {
            Some(key) => self.keys.insert(key.clone()),
            None => self.subjects.insert(record.destination.clone()),
        };
    }

    /// Nothing can be published to this subject now.
    pub(crate) fn refuse(&mut self, subject: Arc<str>, why: Outcome) {
        self.refused.insert(subject, why);
    }

    /// What becomes of a record that waits; `None` where it may go.
    pub(crate) fn fate(&mut self, record: &Record) -> Option<Outcome> {
        let waits = match &record.key {
            Some(key) => self.keys.contains(key),
            None => self.subjects.contains(&record.destination),
        };
        if waits {
            return Some(held());
        }
        let why = self.refused.get(&record.destination)?.clone();
        self.hold(record);
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use viaduct_sink::Refusal;

    use super::*;
    use crate::answer::refused;

    fn record(subject: &str, key: Option<&str>) -> Record {
        Record {
            destination: subject.into(),
            key: key.map(Into::into),
            headers: Vec::new(),
            value: Bytes::new(),
            timestamp_ms: None,
            message_id: "".into(),
            event: "".into(),
        }
    }

    #[test]
    fn a_refused_subject_holds_its_keys_back_everywhere() {
        let mut lanes = Lanes::default();
        let why = refused("no_stream", Refusal::Missing, "none".to_owned());
        lanes.refuse("a".into(), why.clone());
        assert_eq!(lanes.fate(&record("b", Some("k"))), None);
        assert_eq!(lanes.fate(&record("a", Some("k"))), Some(why.clone()));
        assert_eq!(lanes.fate(&record("b", Some("k"))), Some(held()), "its key waits on every subject");
        assert_eq!(lanes.fate(&record("b", Some("l"))), None);
        assert_eq!(lanes.fate(&record("a", None)), Some(why));
        assert_eq!(lanes.fate(&record("b", None)), None);
    }
}
