//! Dead letters: an event that can never be published as routed, as a record with the reason in its headers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use viaduct_poller::{Entry, MalformedReason};
use viaduct_sink::{Header, HeaderName, Record, RejectReason};

use super::event_name;
use super::mask::Masks;
use super::naming::Naming;
use super::rendering::{Filling, fill};
use crate::config::{FieldName, Template};

/// Why an event became a dead letter: `viaduct-reason`, and the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// No route matches.
    Unrouted,
    /// Not an event of the vendor's document.
    Malformed,
    /// An event without an id cannot be acknowledged.
    NoId,
    /// Its payload is not as the vendor documents it, and the source refuses that.
    Schema,
    /// The sink refused it.
    Rejected(RejectReason),
}

impl Reason {
    /// The word in headers and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unrouted => "unrouted",
            Self::Malformed => "malformed",
            Self::NoId => "no_id",
            Self::Schema => "schema",
            Self::Rejected(reason) => reason.as_str(),
        }
    }

    /// All the words.
    pub(crate) const WORDS: [&str; 7] =
        ["unrouted", "malformed", "no_id", "schema", "too_large", "invalid_destination", "refused"];

    /// What a word means, for people.
    pub(crate) fn meaning(word: &str) -> &'static str {
        match word {
            "unrouted" => "no route matched its event type",
            "malformed" => "it is not an event of the vendor's document",
            "no_id" => "it has no id, so it could not be acknowledged",
            "schema" => "its payload was not as the vendor documents it, and the source refuses that",
            "too_large" => "the destination takes nothing as large",
            "invalid_destination" => "the destination cannot have such a name",
            "refused" => "the destination refused it",
            _ => "this version does not know the reason",
        }
    }

    /// The step of the pipeline that gave up, for `__connect.errors.stage`.
    fn stage(self) -> &'static str {
        match self {
            Self::Unrouted => "ROUTE",
            Self::Malformed | Self::NoId => "PARSE",
            Self::Schema => "VALIDATE",
            Self::Rejected(_) => "PUBLISH",
        }
    }
}

impl From<MalformedReason> for Reason {
    fn from(reason: MalformedReason) -> Self {
        match reason {
            MalformedReason::Malformed => Self::Malformed,
            MalformedReason::NoId => Self::NoId,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Headers of a dead letter, which whoever reads it back looks for.
pub(crate) mod header {
    /// Why: [`super::Reason::as_str`]. What has no such header is no dead letter.
    pub(crate) const REASON: &str = "viaduct-reason";
    /// The source.
    pub(crate) const SOURCE: &str = "viaduct-source";
    /// The vendor's session.
    pub(crate) const SESSION: &str = "viaduct-session";
    /// The destination that did not take it.
    pub(crate) const DESTINATION: &str = "viaduct-destination";
    /// The fingerprint of the masks that were applied.
    pub(crate) const MASKS: &str = "viaduct-masks";
    /// When; in files alone, brokers stamp their records.
    pub(crate) const TIME: &str = "viaduct-time";
    /// The reason in words.
    pub(crate) const MESSAGE: &str = "__connect.errors.exception.message";
    /// The step of the pipeline that gave up.
    pub(crate) const STAGE: &str = "__connect.errors.stage";
}

/// Where dead letters of one source go, and in which form.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetterRoute {
    source: Arc<str>,
    org: Arc<str>,
    to: Template,
    naming: Naming,
}

/// How an event became a dead letter.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'c> {
    /// The vendor's session that it came in.
    pub(crate) session: &'c str,
    /// Why, as a label.
    pub(crate) reason: Reason,
    /// Why, in words.
    pub(crate) detail: &'c str,
    /// The destination that did not take it, where it had got that far.
    pub(crate) intended: Option<&'c str>,
    /// The masks that its text is under.
    pub(crate) masks: Option<&'c Masks>,
    /// Now.
    pub(crate) at: Timestamp,
}

/// The name of the local dead-letter file, without its suffix.
pub(crate) const LOCAL_FILE: &str = "dead-letters";

impl DeadLetterRoute {
    /// Into the local file under `state.dir`.
    pub(crate) fn local(source: &str, org: &str) -> Self {
        let to = Template::parse(LOCAL_FILE).expect("a literal is a template");
        Self { source: source.into(), org: org.into(), to, naming: Naming::File }
    }

    /// Into a sink.
    pub(crate) fn sink(source: &str, org: &str, to: &Template, naming: Naming) -> Self {
        Self { source: source.into(), org: org.into(), to: to.clone(), naming }
    }

    /// The dead letter of `entry`: its text as the vendor sent it, and why it is here.
    ///
    /// Brokers get the text as the value and the rest as headers. A file has no headers, so there the value is an object
    /// `{"headers": {…}, "event": …}`; a text that is no JSON stands in it as a string.
    pub(crate) fn record(&self, entry: &Entry, circumstances: &Circumstances<'_>) -> Record {
        let &Circumstances { session, reason, detail, intended, masks, at } = circumstances;
        let (raw, key, content) = match entry {
            Entry::Event(event) => (event.raw(), Some(event.id()), event.content_hash()),
            Entry::Malformed(malformed) => (malformed.raw(), malformed.id(), malformed.content_hash()),
        };
        let identity = entry.identity();
        let event = event_name(&self.org, identity.id(), identity.hash());
        // Where fields are masked, readers get no hash of what they hide: it could be guessed.
        let shown = event_name(&self.org, identity.id(), content);
        let mut headers: Vec<(&str, &str)> = Vec::with_capacity(10);
        if let Some(intended) = intended {
            headers.push(("__connect.errors.topic", intended));
        }
        headers.push(("__connect.errors.class.name", reason.as_str()));
        headers.push((header::MESSAGE, detail));
        headers.push((header::STAGE, reason.stage()));
        headers.push((header::SOURCE, &self.source));
        headers.push((header::SESSION, session));
        headers.push((header::REASON, reason.as_str()));
        if let Some(intended) = intended {
            headers.push((header::DESTINATION, intended));
        }
        if let Some(masks) = masks {
            headers.push((header::MASKS, masks.fingerprint()));
        }
        let (headers, value) = match self.naming {
            Naming::File => {
                let at = Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at).to_string();
                headers.push((header::TIME, &at));
                (Vec::new(), line(&headers, raw).into_bytes().into())
            }
            Naming::Kafka | Naming::Nats => {
                let headers = headers.into_iter().map(|(name, value)| Header {
                    name: HeaderName::Literal(name.into()),
                    value: value.into(),
                });
                (headers.collect(), Bytes::copy_from_slice(raw.as_bytes()))
            }
        };
        Record {
            destination: self.destination(entry),
            key: key.map(Arc::from),
            headers,
            value,
            timestamp_ms: None,
            message_id: format!("{shown}#{}.{}", reason.as_str(), intended.unwrap_or_default()).into(),
            event,
        }
    }

    fn destination(&self, entry: &Entry) -> Arc<str> {
        let (category, name) = match entry {
            Entry::Event(event) => (event.category(), event.name()),
            Entry::Malformed(_) => ("unknown", ""),
        };
        fill(&self.to, self.naming, |field| match field {
            FieldName::Org => Filling::Value(&self.org),
            FieldName::Source => Filling::Value(&self.source),
            FieldName::Category => Filling::Value(category),
            FieldName::Name => Filling::Value(name),
            FieldName::Event(_) => Filling::Missing,
        })
        .into()
    }
}

fn line(headers: &[(&str, &str)], raw: &str) -> String {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let mut line = String::with_capacity(raw.len() + 512);
    line.push_str("{\"headers\":{");
    for (position, (name, value)) in headers.iter().enumerate() {
        if position > 0 {
            line.push(',');
        }
        line.push_str(&text(name));
        line.push(':');
        line.push_str(&text(value));
    }
    line.push_str("},\"event\":");
    if serde_json::from_str::<IgnoredAny>(raw).is_ok() {
        line.push_str(raw)
    } else {
        line.push_str(&text(raw))
    }
    line.push('}');
    line
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn a_line_is_json_whatever_the_vendor_sent() {
        assert_eq!(line(&[("a", "b\"")], r#"{"n":1.0}"#), r#"{"headers":{"a":"b\""},"event":{"n":1.0}}"#);
        assert_eq!(line(&[], r#"{"n":"#), r#"{"headers":{},"event":"{\"n\":"}"#);
    }
}
