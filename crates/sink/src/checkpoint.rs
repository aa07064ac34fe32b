//! The checkpoint: the record in which a sink remembers, atomically with the data, what of a source it already holds.
//!
//! It is JSON, so that people can read it with their broker's own tools:
//!
//! ```json
//! {"version":1,"owner":"5b0c…","revision":412,"session":{"session_id":"…"},
//!  "records":["acme.1.00f3a1b2c3d4e5f6",["acme.2.99…#dead-letter.too_large","acme.2.99…"]]}
//! ```
//!
//! A record stands there under its own name; where that is not the name of its event (a dead letter), both stand there.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

/// A running process, named at random: what tells an instance from another one of the same configuration.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(Arc<str>);

impl Owner {
    /// A name that no other process has.
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()).into())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({self})")
    }
}

/// A record that a sink holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The record's own name ([`crate::Record::message_id`]).
    pub record: Arc<str>,
    /// The name of its event ([`crate::Record::event`]).
    pub event: Arc<str>,
}

/// What stands in a checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Who wrote it.
    pub owner: Owner,
    /// How often its owner has written it.
    pub revision: u64,
    /// The vendor's session, as its owner described it (JSON); enough to go on with it on another machine.
    pub session: Option<Box<RawValue>>,
    /// Records that are published and not yet known to be acknowledged, oldest first.
    pub records: Vec<Held>,
}

/// A checkpoint that cannot be trusted. The text names neither a session nor a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a version that knows more.
    #[error("it has version {0}, this program reads version {VERSION}")]
    Version(u64),
    /// Not a checkpoint at all.
    #[error("it is not a checkpoint: {0}")]
    Malformed(String),
}

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    owner: &'a Owner,
    revision: u64,
    session: &'a Option<Box<RawValue>>,
    records: &'a [Held],
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Read {
    owner: Owner,
    revision: u64,
    session: Option<Box<RawValue>>,
    records: Vec<Held>,
}

impl Checkpoint {
    /// The text that is stored.
    pub fn encode(&self) -> Bytes {
        let Self { owner, revision, session, records } = self;
        let written = Written { version: VERSION, owner, revision: *revision, session, records };
        serde_json::to_vec(&written).expect("strings and numbers are always JSON").into()
    }

    /// Reads what was stored.
    ///
    /// # Errors
    /// It is not a checkpoint of this version. Nothing of it may be used then, nor may it be overwritten unasked.
    pub fn decode(text: &[u8]) -> Result<Self, Unreadable> {
        let malformed = |error: serde_json::Error| {
            // serde's words could quote the text.
            Unreadable::Malformed(format!("JSON {:?} error at column {}", error.classify(), error.column()))
        };
        let Version { version } = serde_json::from_slice(text).map_err(malformed)?;
        if version != u64::from(VERSION) {
            return Err(Unreadable::Version(version));
        }
        let Read { owner, revision, session, records } = serde_json::from_slice(text).map_err(malformed)?;
        Ok(Self { owner, revision, session, records })
    }
}

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.record == self.event {
            self.record.serialize(serializer)
        } else {
            (&self.record, &self.event).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Event(Arc<str>),
            Letter(Arc<str>, Arc<str>),
        }
        let held = match Either::deserialize(deserializer)? {
            Either::Event(event) => Self { record: event.clone(), event },
            Either::Letter(record, event) => Self { record, event },
        };
        if held.record.is_empty() { Err(D::Error::custom("a record without a name")) } else { Ok(held) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(record: &str, event: &str) -> Held {
        Held { record: record.into(), event: event.into() }
    }

    #[test]
    fn a_checkpoint_survives_being_written() {
        let checkpoint = Checkpoint {
            owner: Owner::random(),
            revision: 7,
            session: Some(RawValue::from_string(r#"{"session_id":"s","n":1.0}"#.to_owned()).unwrap()),
            records: vec![held("acme.1.aa", "acme.1.aa"), held("acme.\"2\".bb#x", "acme.\"2\".bb")],
        };
        let text = checkpoint.encode();
        assert!(text.starts_with(br#"{"version":1,"owner":""#), "{text:?}");
        let read = Checkpoint::decode(&text).unwrap();
        assert_eq!((&read.owner, read.revision), (&checkpoint.owner, 7));
        assert_eq!(read.session.as_ref().map(|session| session.get()), Some(r#"{"session_id":"s","n":1.0}"#));
        assert_eq!(read.records, checkpoint.records);
        assert_eq!(read.encode(), text);
    }

    #[test]
    fn what_cannot_be_trusted_is_not_read() {
        assert_eq!(
            Checkpoint::decode(br#"{"version":2,"owner":5}"#).unwrap_err(),
            Unreadable::Version(2),
            "a later version may have other fields"
        );
        for text in [
            "",
            "null",
            "{}",
            r#"{"version":1,"owner":"o","revision":1,"session":null}"#,
            r#"{"version":1,"owner":"o","revision":1,"session":null,"records":[""]}"#,
            r#"{"version":1,"owner":"o","revision":-1,"session":null,"records":[]}"#,
            r#"{"version":1,"owner":"secret-owner","revision":1,"session":null,"records":[1]}"#,
        ] {
            let error = Checkpoint::decode(text.as_bytes()).unwrap_err();
            assert!(matches!(error, Unreadable::Malformed(_)), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
