//! The checkpoint: the record in which a sink remembers, atomically with the data, what of a source it already holds.
//!
//! It is JSON, so that people can read it with their broker's own tools:
//!
//! ```json
//! {"version":1,"owner":"5b0c…","revision":412,"session":{"session_id":"…"},
//!  "records":["acme.1.00f3a1b2c3d4e5f6",["acme.2.99…","acme.2.99…#too_large.via.x"]],
//!  "pages":[{"page":3,"events":1024,"gone":"AAD/…"}]}
//! ```
//!
//! An event stands there by its name, which is its record's, too; where it has other records (dead letters), they follow
//! it in a list. The checkpoint is written with every batch, so it stays small: when much is remembered, the older part
//! stands in **pages** beside it, which are written once. The checkpoint says which of a page's events are gone since (a
//! bit for each, the first one lowest, base64).
//!
//! ```json
//! {"version":1,"page":3,"records":["acme.0.8f…", …]}
//! ```

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::de::Error as _;
use serde::ser::SerializeSeq as _;
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

/// An event of which a sink holds records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Remembered {
    /// The event's name ([`crate::Record::event`]).
    pub event: Arc<str>,
    /// The names of its records ([`crate::Record::message_id`]).
    pub records: Vec<Arc<str>>,
}

/// What stands in a checkpoint and its pages.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Who wrote it.
    pub owner: Owner,
    /// How often its owner has written it.
    pub revision: u64,
    /// The vendor's session, as its owner described it (JSON); enough to go on with it on another machine.
    pub session: Option<Box<RawValue>>,
    /// Events that are published and not yet known to be acknowledged, oldest first; those in pages are older.
    pub records: Vec<Remembered>,
    /// The pages, oldest first.
    pub pages: Vec<Page>,
}

/// A page of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its number, by which it is found beside the checkpoint.
    pub number: u32,
    /// Its events; `None` for those that are gone.
    pub events: Vec<Option<Remembered>>,
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
    /// A page that it names is missing, or is not that page.
    #[error("its page {0} is missing or is another one")]
    Page(u32),
}

#[derive(Serialize)]
pub(crate) struct Written<'a> {
    pub(crate) version: u32,
    pub(crate) owner: &'a Owner,
    pub(crate) revision: u64,
    pub(crate) session: &'a Option<Box<RawValue>>,
    pub(crate) records: &'a [&'a Remembered],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pages: Vec<PageEntry>,
}

#[derive(Serialize)]
pub(crate) struct WrittenPage<'a> {
    pub(crate) version: u32,
    pub(crate) page: u32,
    pub(crate) records: &'a [&'a Remembered],
}

/// What the checkpoint says of a page.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PageEntry {
    page: u32,
    events: usize,
    gone: String,
}

impl PageEntry {
    /// For page `number`, with a `true` for each event that is gone.
    pub(crate) fn new(number: u32, gone: impl Iterator<Item = bool>) -> Self {
        let mut bits: Vec<u8> = Vec::new();
        let mut events = 0;
        for (index, gone) in gone.enumerate() {
            if index % 8 == 0 {
                bits.push(0);
            }
            bits[index / 8] |= u8::from(gone) << (index % 8);
            events += 1;
        }
        Self { page: number, events, gone: BASE64.encode(bits) }
    }

    fn page(&self, records: Vec<Remembered>) -> Option<Page> {
        let bits = BASE64.decode(&self.gone).ok()?;
        if records.len() != self.events || bits.len() != self.events.div_ceil(8) {
            return None;
        }
        let kept = |(index, event)| (bits[index / 8] >> (index % 8) & 1 == 0).then_some(event);
        Some(Page { number: self.page, events: records.into_iter().enumerate().map(kept).collect() })
    }
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
    records: Vec<Remembered>,
    #[serde(default)]
    pages: Vec<PageEntry>,
}

#[derive(Deserialize)]
struct ReadPage {
    page: u32,
    records: Vec<Remembered>,
}

#[derive(Deserialize)]
struct ReadPages {
    #[serde(default)]
    pages: Vec<PageEntry>,
}

/// The text of something that serialises without fail.
pub(crate) fn text(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("strings and numbers are always JSON").into()
}

fn read<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Unreadable> {
    let malformed = |error: serde_json::Error| {
        // serde's words could quote the text.
        Unreadable::Malformed(format!("JSON {:?} error at column {}", error.classify(), error.column()))
    };
    let Version { version } = serde_json::from_slice(text).map_err(malformed)?;
    if version != u64::from(VERSION) {
        return Err(Unreadable::Version(version));
    }
    serde_json::from_slice(text).map_err(malformed)
}

impl Checkpoint {
    /// Which pages belong to the checkpoint with this text: they have to be read, too.
    ///
    /// # Errors
    /// It is not a checkpoint of this version.
    pub fn pages(text: &[u8]) -> Result<Vec<u32>, Unreadable> {
        let ReadPages { pages } = read(text)?;
        Ok(pages.into_iter().map(|entry| entry.page).collect())
    }

    /// Reads what was stored; `page` gives the texts of its pages.
    ///
    /// # Errors
    /// It is not a checkpoint of this version, or a page is missing. Nothing of it may be used then, nor may it be
    /// overwritten unasked.
    pub fn decode(text: &[u8], mut page: impl FnMut(u32) -> Option<Bytes>) -> Result<Self, Unreadable> {
        let Read { owner, revision, session, records, pages: entries } = read(text)?;
        let mut pages = Vec::with_capacity(entries.len());
        for entry in entries {
            let number = entry.page;
            let text = page(number).ok_or(Unreadable::Page(number))?;
            let ReadPage { page, records } = read(&text)?;
            let page = Some(records).filter(|_| page == number).and_then(|records| entry.page(records));
            pages.push(page.ok_or(Unreadable::Page(number))?);
        }
        Ok(Self { owner, revision, session, records, pages })
    }

    /// Every event that is remembered, oldest first.
    pub fn events(&self) -> impl Iterator<Item = &Remembered> {
        self.pages.iter().flat_map(|page| page.events.iter().flatten()).chain(&self.records)
    }
}

impl Serialize for Remembered {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [record] = self.records.as_slice()
            && *record == self.event
        {
            return self.event.serialize(serializer);
        }
        let mut list = serializer.serialize_seq(Some(self.records.len() + 1))?;
        list.serialize_element(&self.event)?;
        for record in &self.records {
            list.serialize_element(record)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Remembered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Event(Arc<str>),
            Records(Vec<Arc<str>>),
        }
        let (event, records) = match Either::deserialize(deserializer)? {
            Either::Event(event) => (event.clone(), vec![event]),
            Either::Records(mut names) if names.len() > 1 => (names.remove(0), names),
            Either::Records(_) => return Err(D::Error::custom("an event without records")),
        };
        if event.is_empty() {
            return Err(D::Error::custom("an event without a name"));
        }
        Ok(Self { event, records })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(event: &str, records: &[&str]) -> Remembered {
        Remembered { event: event.into(), records: records.iter().map(|record| Arc::from(*record)).collect() }
    }

    #[test]
    fn a_checkpoint_survives_being_written() {
        let session = Some(RawValue::from_string(r#"{"session_id":"s","n":1.0}"#.to_owned()).unwrap());
        let owner = Owner::random();
        let (plain, letter) =
            (remembered("acme.1.aa", &["acme.1.aa"]), remembered("acme.\"2\".bb", &["x", "y"]));
        let page = WrittenPage { version: VERSION, page: 3, records: &[&plain, &letter, &plain] };
        let page = text(&page);
        let written = text(&Written {
            version: VERSION,
            owner: &owner,
            revision: 7,
            session: &session,
            records: &[&letter, &plain],
            pages: vec![PageEntry::new(3, [true, false, true].into_iter())],
        });
        assert!(written.starts_with(br#"{"version":1,"owner":""#), "{written:?}");
        assert_eq!(Checkpoint::pages(&written).unwrap(), [3]);
        let read = Checkpoint::decode(&written, |number| (number == 3).then(|| page.clone())).unwrap();
        assert_eq!((&read.owner, read.revision), (&owner, 7));
        assert_eq!(read.session.as_ref().map(|session| session.get()), Some(r#"{"session_id":"s","n":1.0}"#));
        assert_eq!(read.records, [letter.clone(), plain.clone()]);
        assert_eq!(read.pages, [Page { number: 3, events: vec![None, Some(letter.clone()), None] }]);
        assert_eq!(read.events().collect::<Vec<_>>(), [&letter, &letter, &plain]);

        assert_eq!(Checkpoint::decode(&written, |_| None).unwrap_err(), Unreadable::Page(3));
        let other = text(&WrittenPage { version: VERSION, page: 3, records: &[&plain] });
        assert_eq!(Checkpoint::decode(&written, |_| Some(other.clone())).unwrap_err(), Unreadable::Page(3));
    }

    #[test]
    fn what_cannot_be_trusted_is_not_read() {
        let decode = |text: &str| Checkpoint::decode(text.as_bytes(), |_| None).unwrap_err();
        let later = r#"{"version":2,"owner":5}"#;
        assert_eq!(decode(later), Unreadable::Version(2), "a later version may have other fields");
        for text in [
            "",
            "null",
            "{}",
            r#"{"version":1,"owner":"o","revision":1,"session":null}"#,
            r#"{"version":1,"owner":"o","revision":1,"session":null,"records":[""]}"#,
            r#"{"version":1,"owner":"o","revision":1,"session":null,"records":[["a"]]}"#,
            r#"{"version":1,"owner":"o","revision":-1,"session":null,"records":[]}"#,
            r#"{"version":1,"owner":"secret-owner","revision":1,"session":null,"records":[1]}"#,
        ] {
            let error = decode(text);
            assert!(matches!(error, Unreadable::Malformed(_)), "{text}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
