//! Compares events with the vendor's document: `validate` of a source.
//!
//! Differences are counted by event type and field, both names of the document, so that their number is bounded whatever
//! the vendor sends. The first of each kind stands in the log. No value of an event goes to either.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::Value;
use tracing::warn;
use viaduct_catalogue::{Drift, Problem, find};
use viaduct_poller::{Event, Payload};

use crate::config::Validate;
use crate::telemetry::Telemetry;

/// How many different unknown keys of one source are logged by name.
const KNOWN_KEYS: usize = 100;
/// How many differences a dead letter's message names.
const NAMED: usize = 5;
/// The label of event types that the document does not know.
const OTHER: &str = "other";

/// Looks at the events of one source.
#[derive(Debug)]
pub(crate) struct Validator {
    source: Arc<str>,
    refuses: bool,
    telemetry: Arc<Telemetry>,
    said: HashSet<(&'static str, &'static str, &'static str)>,
    said_keys: HashSet<String>,
}

impl Validator {
    /// For a source; `None` where nobody is to look.
    pub(crate) fn new(source: Arc<str>, validate: Validate, telemetry: Arc<Telemetry>) -> Option<Self> {
        let refuses = match validate {
            Validate::Off => return None,
            Validate::Report => false,
            Validate::DeadLetter => true,
        };
        Some(Self { source, refuses, telemetry, said: HashSet::new(), said_keys: HashSet::new() })
    }

    /// Counts where `event` is not as documented. `Some`: it is to become a dead letter, for this reason.
    ///
    /// An event type or a member that the document does not know is never a reason: the vendor may add them.
    pub(crate) fn look(&mut self, event: &Event) -> Option<String> {
        let Some(documented) = find(event.event_type()) else {
            self.note(OTHER, "$", "unknown_type", None);
            return None;
        };
        let payload = match event.payload() {
            Payload::Text(text) | Payload::Json(text) => serde_json::from_str(text).ok(),
            Payload::Missing | Payload::Null => None,
        };
        // What is no JSON is no object either.
        let payload: Value = payload.unwrap_or_default();
        let drift = documented.drift(&payload);
        for Drift { field, problem, unknown_key } in &drift {
            self.note(&documented.event_type, field, problem.word(), *unknown_key);
        }
        let mismatches: Vec<&Drift<'_>> = drift.iter().filter(|drift| drift.problem.is_mismatch()).collect();
        (self.refuses && !mismatches.is_empty()).then(|| {
            let named: Vec<_> = mismatches.iter().take(NAMED).map(|drift| in_words(drift)).collect();
            format!("the payload is not as the vendor documents {}: {}", event.event_type(), named.join(", "))
        })
    }

    fn note(
        &mut self,
        event_type: &'static str,
        field: &'static str,
        problem: &'static str,
        key: Option<&str>,
    ) {
        self.telemetry.schema_drift(&self.source, event_type, field, problem);
        let is_first = self.said.insert((event_type, field, problem));
        // Keys are the vendor's words, but a key that looks like data is not repeated.
        let key = key.filter(|key| is_word(key) && self.said_keys.len() < KNOWN_KEYS);
        let new_key = key.is_some_and(|key| self.said_keys.insert(format!("{event_type} {field} {key}")));
        if is_first || new_key {
            warn!(source = %self.source, event_type, field, problem, key,
                  "an event is not as the vendor's document has it; further ones are only counted");
        }
    }
}

fn in_words(drift: &Drift<'_>) -> String {
    match (drift.field, drift.problem) {
        ("$", _) => "it is no JSON object".to_owned(),
        (field, Problem::UnknownValue) => format!("{field} has a value that is not in its list"),
        (field, _) => format!("{field} has another type"),
    }
}

fn is_word(key: &str) -> bool {
    key.len() <= 64
        && key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use viaduct_poller::{ApiVersion, Entry, parse_entry};

    use super::*;

    fn event(event_type: &str, payload: &Value) -> Event {
        let entry = serde_json::json!({
            "kind": "via#x", "eventId": "1-0", "correlationId": "c", "eventType": event_type,
            "publishedTime": "2018-01-30T14:04:20.539Z", "schemaVersion": "1", "payload": payload,
        });
        match parse_entry(entry.to_string(), ApiVersion::V3, Instant::now()) {
            Entry::Event(event) => event,
            Entry::Malformed(malformed) => panic!("{}", malformed.detail()),
        }
    }

    fn look(validate: Validate, events: &[Event]) -> (Vec<Option<String>>, Vec<String>) {
        let telemetry = Telemetry::new("viaduct");
        let mut validator = Validator::new("main".into(), validate, telemetry.clone()).expect("it looks");
        let verdicts = events.iter().map(|event| validator.look(event)).collect();
        let counts = telemetry.tally.snapshot().schema_drift;
        let counts = counts.iter().map(|((_, event_type, field, problem), count)| {
            format!("{event_type} {field} {problem} {count}")
        });
        (verdicts, counts.collect())
    }

    #[test]
    fn off_is_nobody() {
        assert!(Validator::new("main".into(), Validate::Off, Telemetry::new("viaduct")).is_none());
    }

    #[test]
    fn what_is_documented_is_no_drift() {
        let examples: Vec<Event> = viaduct_catalogue::events()
            .iter()
            .flat_map(|known| {
                known.examples.iter().map(|text| event(&known.event_type, &text.as_str().into()))
            })
            .collect();
        let (verdicts, counts) = look(Validate::DeadLetter, &examples);
        assert!(verdicts.iter().all(Option::is_none));
        assert!(counts.is_empty(), "{counts:?}");
    }

    #[test]
    fn drift_is_counted_by_type_and_field_and_only_a_mismatch_is_refused() {
        let idle = "engagementCenter.Idle";
        let events = [
            event(idle, &r#"{"userId":7}"#.into()),
            event(idle, &r#"{"userId":8,"+49 30 1234":1,"added":2}"#.into()),
            event(idle, &r#"{"added":2}"#.into()),
            event(idle, &"not JSON".into()),
            event(idle, &Value::Null),
            event("engagementCenter.Dialing", &r#"{"payload":{"mediaType":"Smoke"}}"#.into()),
            event("chat.Unheard", &"{}".into()),
        ];
        let (verdicts, counts) = look(Validate::DeadLetter, &events);
        let idle_is = "the payload is not as the vendor documents engagementCenter.Idle";
        assert_eq!(
            verdicts,
            [
                Some(format!("{idle_is}: userId has another type")),
                Some(format!("{idle_is}: userId has another type")),
                None,
                Some(format!("{idle_is}: it is no JSON object")),
                Some(format!("{idle_is}: it is no JSON object")),
                Some(
                    "the payload is not as the vendor documents engagementCenter.Dialing: payload.mediaType has a \
                     value that is not in its list"
                        .to_owned()
                ),
                None,
            ]
        );
        assert_eq!(
            counts,
            [
                "engagementCenter.Dialing payload.mediaType unknown_value 1",
                "engagementCenter.Idle $ unknown_field 3",
                "engagementCenter.Idle $ wrong_type 2",
                "engagementCenter.Idle userId wrong_type 2",
                "other $ unknown_type 1",
            ]
        );
        let (verdicts, same_counts) = look(Validate::Report, &events);
        assert!(verdicts.iter().all(Option::is_none));
        assert_eq!(same_counts, counts);
    }

    #[test]
    fn a_key_that_may_be_data_is_not_repeated() {
        assert!(is_word("wrapReason_2"));
        for key in ["+49301234", "4711", "ellen.frost@example.com", "Ellen Frost", ""] {
            assert!(!is_word(key), "{key}");
        }
    }
}
