//! A dead letter as it was read back, and which ones somebody asked for.

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use viaduct_poller::{ApiVersion, Entry, parse_entry};
use viaduct_sink::{Kept, Place};

use super::args::FilterArgs;
use crate::config::Pattern;
use crate::routing::dead_letter::header;

/// A dead letter.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) place: Place,
    /// When it became one.
    pub(super) time: Option<Timestamp>,
    /// All headers, in their order.
    pub(super) headers: Vec<(String, String)>,
    /// The event's text.
    pub(super) event: String,
    event_id: Option<String>,
    event_type: Option<String>,
}

/// A line of a file.
#[derive(Deserialize)]
struct Line<'l> {
    headers: BTreeMap<String, String>,
    #[serde(borrow)]
    event: &'l RawValue,
}

impl Letter {
    /// `None`: the record is none, but a mark, say.
    pub(super) fn of(kept: Kept) -> Option<Self> {
        let Kept { place, time_ms, headers, value } = kept;
        let text = match String::from_utf8(value.into()) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        // Files have no headers: there they stand in the line.
        let (headers, event) = match headers.is_empty() {
            false => (headers, text),
            true => {
                let line: Line<'_> = serde_json::from_str(&text).ok()?;
                let event = match serde_json::from_str::<String>(line.event.get()) {
                    // What is no JSON stands in the line as a string.
                    Ok(text) => text,
                    Err(_) => line.event.get().to_owned(),
                };
                (line.headers.into_iter().collect(), event)
            }
        };
        let mut letter = Self { place, time: None, headers, event, event_id: None, event_type: None };
        letter.header(header::REASON)?;
        letter.time = match time_ms {
            Some(ms) => Timestamp::from_millisecond(ms).ok(),
            None => letter.header(header::TIME).and_then(|text| text.parse().ok()),
        };
        match letter.entry(ApiVersion::V3) {
            Entry::Event(event) => {
                letter.event_id = Some(event.id().to_owned());
                letter.event_type = Some(event.event_type().to_owned());
            }
            Entry::Malformed(malformed) => {
                letter.event_id = malformed.id().map(str::to_owned);
                letter.event_type = malformed.event().map(|event| event.event_type().to_owned());
            }
        }
        Some(letter)
    }

    /// The event, as the vendor's API that it came through has it: `api`, or else the other one.
    pub(super) fn entry(&self, api: ApiVersion) -> Entry {
        let parse = |api| parse_entry(self.event.clone(), api, Instant::now());
        let other = match api {
            ApiVersion::V2 => ApiVersion::V3,
            ApiVersion::V3 => ApiVersion::V2,
        };
        match parse(api) {
            Entry::Malformed(malformed) => match parse(other) {
                Entry::Event(event) => Entry::Event(event),
                Entry::Malformed(_) => Entry::Malformed(malformed),
            },
            event @ Entry::Event(_) => event,
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Why; a word.
    pub(super) fn reason(&self) -> &str {
        self.header(header::REASON).unwrap_or_default()
    }

    /// The source's name.
    pub(super) fn source(&self) -> &str {
        self.header(header::SOURCE).unwrap_or_default()
    }

    /// Where it was to go; none where it had not got that far.
    pub(super) fn destination(&self) -> Option<&str> {
        self.header(header::DESTINATION)
    }

    /// Why, in words.
    pub(super) fn message(&self) -> &str {
        self.header(header::MESSAGE).unwrap_or_default()
    }

    /// `eventId`; `None`: it has none.
    pub(super) fn event_id(&self) -> Option<&str> {
        self.event_id.as_deref()
    }

    /// `eventType`; `None`: it cannot be read.
    pub(super) fn event_type(&self) -> Option<&str> {
        self.event_type.as_deref()
    }
}

/// Which dead letters somebody asked for.
#[derive(Debug, Default)]
pub(super) struct Filter {
    source: Option<String>,
    reason: Option<String>,
    event_type: Option<Pattern>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filter {
    pub(super) fn of(args: &FilterArgs) -> Self {
        Self {
            source: args.source.clone(),
            reason: args.reason.clone(),
            event_type: args.event_type.as_deref().map(Pattern::of),
            since: args.since,
            until: args.until,
        }
    }

    /// What is older need not be read.
    pub(super) fn since_ms(&self) -> Option<i64> {
        self.since.map(Timestamp::as_millisecond)
    }

    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        is(&self.source, letter.source())
            && is(&self.reason, letter.reason())
            && (self.event_type.as_ref())
                .is_none_or(|pattern| letter.event_type().is_some_and(|has| pattern.matches(has)))
            && self.since.is_none_or(|since| letter.time.is_some_and(|time| time >= since))
            && self.until.is_none_or(|until| letter.time.is_some_and(|time| time < until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(headers: &[(&str, &str)], value: &str) -> Kept {
        Kept {
            place: Place { id: "0:1".to_owned(), log: "t/0".into(), number: 1 },
            time_ms: (!headers.is_empty()).then_some(1_767_605_400_000),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            value: value.to_owned().into(),
        }
    }

    const HEADERS: [(&str, &str); 2] = [("viaduct-reason", "unrouted"), ("viaduct-source", "main")];

    #[test]
    fn only_what_has_a_reason_is_one() {
        assert!(Letter::of(kept(&[("viaduct-replayed", "1")], "{}")).is_none());
        for line in ["", "{}", "7", r#"{"headers":{},"event":{}}"#] {
            assert!(Letter::of(kept(&[], line)).is_none(), "{line}");
        }
        assert!(Letter::of(kept(&HEADERS, "whatever")).is_some());
    }

    #[test]
    fn lines_of_files() {
        let line = |event: &str| {
            let headers =
                r#"{"viaduct-reason":"no_id","viaduct-source":"m","viaduct-time":"2026-01-05T09:30:00.5Z"}"#;
            Letter::of(kept(&[], &format!(r#"{{"headers":{headers},"event":{event}}}"#))).unwrap()
        };
        let letter = line(r#"{"eventType":"a.B","n":1.0}"#);
        assert_eq!(letter.event, r#"{"eventType":"a.B","n":1.0}"#);
        assert_eq!((letter.event_id(), letter.event_type()), (None, Some("a.B")));
        assert_eq!(letter.time.unwrap().to_string(), "2026-01-05T09:30:00.5Z");
        assert_eq!(line(r#""{\"n\":""#).event, "{\"n\":");
    }

    #[test]
    fn events_of_both_apis() {
        let v2 = Letter::of(kept(&HEADERS, r#"{"id":"1-0","type":"a.B"}"#)).unwrap();
        assert_eq!((v2.event_id(), v2.event_type()), (Some("1-0"), Some("a.B")));
        for api in [ApiVersion::V2, ApiVersion::V3] {
            assert!(matches!(v2.entry(api), Entry::Event(event) if event.api() == ApiVersion::V2));
        }
    }

    #[test]
    fn filters() {
        let letter =
            Letter::of(kept(&HEADERS, r#"{"eventId":"1-0","eventType":"outreach.status"}"#)).unwrap();
        let matches = |change: &dyn Fn(&mut FilterArgs)| {
            let mut args = FilterArgs::default();
            change(&mut args);
            Filter::of(&args).matches(&letter)
        };
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        assert!(matches(&|_| {}));
        assert!(matches(&|args| args.source = Some("main".into())));
        assert!(!matches(&|args| args.source = Some("other".into())));
        assert!(matches(&|args| args.reason = Some("unrouted".into())));
        assert!(!matches(&|args| args.reason = Some("refused".into())));
        assert!(matches(&|args| args.event_type = Some("outreach.*".into())));
        assert!(!matches(&|args| args.event_type = Some("*.Idle".into())));
        assert!(matches(&|args| args.since = at("2026-01-05T09:30:00Z")));
        assert!(!matches(&|args| args.since = at("2026-01-05T09:30:01Z")));
        assert!(!matches(&|args| args.until = at("2026-01-05T09:30:00Z")));
        assert!(matches(&|args| args.until = at("2026-01-05T09:30:01Z")));
    }
}
