//! Events as the vendor sent them: a shared response body and spans into it.
//!
//! An [`Event`] keeps the whole response it came in alive; nothing of it is copied except strings that carry escapes.
//! Cloning one costs a reference count.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use xxhash_rust::xxh3::Xxh3;

use crate::settings::ApiVersion;

/// A piece of the response body. Bodies are limited to 256 MiB, so 32 bits are enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    /// The span of `part`, which must be a slice of `body`.
    pub(crate) fn of(part: &str, body: &str) -> Self {
        let start = part.as_ptr() as usize - body.as_ptr() as usize;
        debug_assert!(body.get(start..start + part.len()).is_some());
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A string value: a span where the body has it without escapes, else the decoded copy.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    Span(Span),
    Owned(String),
}

impl Text {
    fn get<'a>(&'a self, body: &'a str) -> &'a str {
        match self {
            Self::Span(span) => &body[span.range()],
            Self::Owned(text) => text,
        }
    }
}

/// The payload field as it was found.
#[derive(Debug, Clone)]
pub(crate) enum PayloadText {
    Missing,
    Null,
    Text(Text),
    Json,
}

/// The payload field of an event. The vendor sends a string of JSON; everything else is accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// There is none.
    Missing,
    /// It is `null`.
    Null,
    /// It is a string; this is the decoded string.
    Text(&'a str),
    /// It is other JSON; this is its text, untouched.
    Json(&'a str),
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("Missing"),
            Self::Null => f.write_str("Null"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Json(text) => write!(f, "Json({} bytes)", text.len()),
        }
    }
}

/// What a parsed entry consists of; made by [`crate::parse`].
pub(crate) struct Fields {
    pub(crate) body: Arc<String>,
    pub(crate) entry: Span,
    pub(crate) id: Arc<str>,
    pub(crate) event_type: Text,
    pub(crate) kind: Option<Text>,
    pub(crate) correlation_id: Option<Text>,
    pub(crate) published_time: Option<Text>,
    pub(crate) schema_version: Option<Text>,
    pub(crate) payload: PayloadText,
    pub(crate) payload_span: Option<Span>,
    pub(crate) api: ApiVersion,
    pub(crate) received_at: Instant,
}

struct Inner {
    fields: Fields,
    /// Length of the category within the type; `None` where the type has no category.
    category_len: Option<u32>,
    hash: ContentHash,
    /// What the vendor's text hashed to, where this one was rewritten.
    vendors_hash: ContentHash,
}

/// One event. `Debug` shows its type and id, never its payload.
#[derive(Clone)]
pub struct Event(Arc<Inner>);

impl Event {
    pub(crate) fn new(fields: Fields) -> Self {
        let event_type = fields.event_type.get(&fields.body);
        let category_len = event_type.find('.').filter(|&dot| dot > 0).map(|dot| dot as u32);
        let published = fields.published_time.as_ref().map(|text| text.get(&fields.body));
        let hash = ContentHash::of(event_type, published, payload_of(&fields));
        Self(Arc::new(Inner { category_len, hash, vendors_hash: hash, fields }))
    }

    /// This event, just made, as a rewritten form of one that the vendor sent.
    fn standing_for(mut self, vendors_hash: ContentHash) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.vendors_hash = vendors_hash;
        }
        self
    }

    fn text<'a>(&'a self, text: &'a Text) -> &'a str {
        text.get(&self.0.fields.body)
    }

    fn optional<'a>(&'a self, text: &'a Option<Text>) -> Option<&'a str> {
        text.as_ref().map(|text| self.text(text))
    }

    /// The entry of `events[]`, byte for byte.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.0.fields.body[self.0.fields.entry.range()]
    }

    /// `eventId` (v2: `id`). Empty only for the event inside a [`Malformed`] entry without an id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.fields.id
    }

    /// [`Event::id`], to be kept.
    #[must_use]
    pub fn shared_id(&self) -> Arc<str> {
        self.0.fields.id.clone()
    }

    /// `eventType` (v2: `type`), e.g. `engagementCenter.Idle`.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.text(&self.0.fields.event_type)
    }

    /// What stands before the first `.` of the type; `unknown` where nothing does.
    #[must_use]
    pub fn category(&self) -> &str {
        self.0.category_len.map_or(UNKNOWN_CATEGORY, |len| &self.event_type()[..len as usize])
    }

    /// What stands after the first `.` of the type; the whole type where there is no category.
    #[must_use]
    pub fn name(&self) -> &str {
        let event_type = self.event_type();
        self.0.category_len.map_or(event_type, |len| &event_type[len as usize + 1..])
    }

    /// `kind`, e.g. `via#engagementCenterEvent`.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.optional(&self.0.fields.kind)
    }

    /// `correlationId` (v3 only).
    #[must_use]
    pub fn correlation_id(&self) -> Option<&str> {
        self.optional(&self.0.fields.correlation_id)
    }

    /// `publishedTime`, as the vendor wrote it.
    #[must_use]
    pub fn published_time(&self) -> Option<&str> {
        self.optional(&self.0.fields.published_time)
    }

    /// `schemaVersion`; the vendor's document has it both as a string and as an integer, this is the text of either.
    #[must_use]
    pub fn schema_version(&self) -> Option<&str> {
        self.optional(&self.0.fields.schema_version)
    }

    /// The payload.
    #[must_use]
    pub fn payload(&self) -> Payload<'_> {
        payload_of(&self.0.fields)
    }

    /// Where the payload's value (with its quotes) stands in [`Event::raw`].
    #[must_use]
    pub fn payload_span(&self) -> Option<Range<usize>> {
        let entry = self.0.fields.entry.start as usize;
        self.0.fields.payload_span.map(|span| span.start as usize - entry..span.end as usize - entry)
    }

    /// What the event is recognised by when it comes again: what the vendor sent, also where this text is another.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity { id: self.0.fields.id.clone(), hash: self.0.vendors_hash }
    }

    /// The hash of what the event says here: of the vendor's text, or of [`Entry::rewritten`]'s.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        self.0.hash
    }

    /// The API it came through, which decides the names of its fields.
    #[must_use]
    pub fn api(&self) -> ApiVersion {
        self.0.fields.api
    }

    /// When its response had arrived.
    #[must_use]
    pub fn received_at(&self) -> Instant {
        self.0.fields.received_at
    }
}

/// The category of an event type without one, and of malformed entries.
pub(crate) const UNKNOWN_CATEGORY: &str = "unknown";

fn payload_of(fields: &Fields) -> Payload<'_> {
    match &fields.payload {
        PayloadText::Missing => Payload::Missing,
        PayloadText::Null => Payload::Null,
        PayloadText::Text(text) => Payload::Text(text.get(&fields.body)),
        PayloadText::Json => Payload::Json(fields.payload_span.map_or("", |span| &fields.body[span.range()])),
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id())
            .field("event_type", &self.event_type())
            .field("hash", &self.0.hash)
            .finish_non_exhaustive()
    }
}

/// xxh3-128 over what an event says: its type, published time and decoded payload.
///
/// Checkpoints and message ids are made of it, so the way it is computed is fixed: for each of the three, one byte
/// (0 missing, 1 null, 2 text, 3 other JSON), the length as 64 bits little-endian, the bytes. Of a malformed entry it
/// is the same over its raw text alone. The same payload as a string and as JSON has two different hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentHash(u128);

impl ContentHash {
    fn of(event_type: &str, published_time: Option<&str>, payload: Payload<'_>) -> Self {
        let mut hasher = Xxh3::new();
        let mut part = |tag: u8, text: &str| {
            hasher.update(&[tag]);
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(2, event_type);
        match published_time {
            None => part(0, ""),
            Some(time) => part(2, time),
        }
        match payload {
            Payload::Missing => part(0, ""),
            Payload::Null => part(1, ""),
            Payload::Text(text) => part(2, text),
            Payload::Json(text) => part(3, text),
        }
        Self(hasher.digest128())
    }

    pub(crate) fn of_raw(raw: &str) -> Self {
        let mut hasher = Xxh3::new();
        hasher.update(&[2]);
        hasher.update(&(raw.len() as u64).to_le_bytes());
        hasher.update(raw.as_bytes());
        Self(hasher.digest128())
    }

    /// From the number of [`ContentHash::as_u128`]: a hash that was written down.
    #[must_use]
    pub fn from_u128(value: u128) -> Self {
        Self(value)
    }

    /// The number, to be written down.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0
    }

    /// The first 16 of its 32 hexadecimal digits.
    #[must_use]
    pub fn prefix16(self) -> String {
        format!("{:016x}", (self.0 >> 64) as u64)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a delivery is recognised by when it comes again: never the bare id, because one id with two contents is two
/// events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    id: Arc<str>,
    hash: ContentHash,
}

impl Identity {
    /// An identity that was written down.
    pub fn new(id: impl Into<Arc<str>>, hash: ContentHash) -> Self {
        Self { id: id.into(), hash }
    }

    /// The vendor's id; empty where the entry had none.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn shared_id(&self) -> &Arc<str> {
        &self.id
    }

    /// The hash of the content.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

/// One entry of a response.
#[derive(Debug, Clone)]
pub enum Entry {
    /// An event.
    Event(Event),
    /// Something that cannot be published as an event; it belongs into the dead letters.
    Malformed(Malformed),
}

impl Entry {
    /// The entry, byte for byte.
    #[must_use]
    pub fn raw(&self) -> &str {
        match self {
            Self::Event(event) => event.raw(),
            Self::Malformed(malformed) => malformed.raw(),
        }
    }

    /// What it is recognised by; the id is empty where the entry has none.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match self {
            Self::Event(event) => event.identity(),
            Self::Malformed(malformed) => malformed.identity(),
        }
    }

    /// The same entry with another text, in which fields are masked, say. It is recognised as the entry that the vendor
    /// sent ([`Entry::identity`]); everything else is read from the new text.
    ///
    /// An entry that is malformed stays so, for the same reason, whatever its new text is.
    #[must_use]
    pub fn rewritten(&self, raw: String) -> Self {
        match self {
            Self::Event(event) => {
                let (api, received_at) = (event.api(), event.received_at());
                match crate::parse::parse_entry(raw, api, received_at) {
                    Self::Event(new) => Self::Event(new.standing_for(event.0.vendors_hash)),
                    Self::Malformed(new) => Self::Malformed(new.standing_for(event.0.vendors_hash)),
                }
            }
            Self::Malformed(malformed) => {
                let old = &malformed.0;
                let span = Span { start: 0, end: raw.len() as u32 };
                let new = Malformed::new(Arc::new(raw), span, old.id.clone(), old.detail.clone());
                Self::Malformed(new.reasoned(old.reason).standing_for(old.vendors_hash))
            }
        }
    }

    /// The event's category; `unknown` for a malformed entry.
    #[must_use]
    pub fn category(&self) -> &str {
        match self {
            Self::Event(event) => event.category(),
            Self::Malformed(_) => UNKNOWN_CATEGORY,
        }
    }
}

/// Why an entry is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MalformedReason {
    /// It is not valid JSON, not an object, or its id or type is not a string.
    Malformed,
    /// It has no id, so it can never be acknowledged. It is handed out once per content.
    NoId,
}

/// An entry that is no event. `Debug` shows the reason, never the text.
#[derive(Clone)]
pub struct Malformed(Arc<MalformedInner>);

struct MalformedInner {
    body: Arc<String>,
    entry: Span,
    id: Option<Box<str>>,
    reason: MalformedReason,
    detail: Box<str>,
    event: Option<Event>,
    hash: ContentHash,
    /// What the vendor's text hashed to, where this one was rewritten.
    vendors_hash: ContentHash,
}

impl Malformed {
    pub(crate) fn new(
        body: Arc<String>,
        entry: Span,
        id: Option<Box<str>>,
        detail: impl Into<Box<str>>,
    ) -> Self {
        let hash = ContentHash::of_raw(&body[entry.range()]);
        let reason = MalformedReason::Malformed;
        let detail = detail.into();
        let inner = MalformedInner { body, entry, id, reason, detail, event: None, hash, vendors_hash: hash };
        Self(Arc::new(inner))
    }

    /// This entry, just made, for that reason.
    fn reasoned(mut self, reason: MalformedReason) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.reason = reason;
        }
        self
    }

    /// This entry, just made, as a rewritten form of one that the vendor sent.
    fn standing_for(mut self, vendors_hash: ContentHash) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.vendors_hash = vendors_hash;
        }
        self
    }

    pub(crate) fn without_id(event: Event, detail: impl Into<Box<str>>) -> Self {
        let fields = &event.0.fields;
        Self(Arc::new(MalformedInner {
            body: fields.body.clone(),
            entry: fields.entry,
            id: None,
            reason: MalformedReason::NoId,
            detail: detail.into(),
            hash: event.content_hash(),
            vendors_hash: event.0.vendors_hash,
            event: Some(event),
        }))
    }

    /// The entry, byte for byte.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.0.body[self.0.entry.range()]
    }

    /// Its id, where one could be found; with it the entry can be acknowledged.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.0.id.as_deref()
    }

    /// Why it is no event.
    #[must_use]
    pub fn reason(&self) -> MalformedReason {
        self.0.reason
    }

    /// What is wrong with it, a sentence without its content.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The event, where only its id is missing.
    #[must_use]
    pub fn event(&self) -> Option<&Event> {
        self.0.event.as_ref()
    }

    /// The hash of its content here: of the vendor's text, or of [`Entry::rewritten`]'s.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        self.0.hash
    }

    /// What it is recognised by when it comes again; the id is empty where it has none.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::new(self.id().unwrap_or_default(), self.0.vendors_hash)
    }
}

impl fmt::Debug for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Malformed")
            .field("id", &self.0.id)
            .field("reason", &self.0.reason)
            .field("detail", &self.0.detail)
            .finish_non_exhaustive()
    }
}
