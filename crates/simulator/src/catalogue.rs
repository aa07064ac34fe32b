//! The payloads of the event types, as templates made from the examples of the catalogue.
//!
//! Where an example has an id, a phone number or a text, the template has a slot that is filled in per event
//! ([`Slot::of`]); everything else stands as it stands in the document, mistakes included. A template is split once, at
//! first use, into constant pieces (plain, and escaped as they stand inside the JSON string `payload`) and slots, so that
//! writing an event is a handful of copies and no JSON value is ever built.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value;

static CATALOGUE: LazyLock<Vec<EventType>> = LazyLock::new(read);

/// The event types that the simulator knows, in the order of the vendor document's "Event List".
pub fn event_types() -> impl Iterator<Item = &'static str> {
    viaduct_catalogue::listed().map(|event| event.event_type.as_str())
}

pub(crate) fn catalogue() -> &'static [EventType] {
    &CATALOGUE
}

/// Where in the catalogue a type stands.
pub(crate) fn position(name: &str) -> Option<usize> {
    catalogue().iter().position(|event_type| event_type.name == name)
}

/// One event type with every shape that the document shows for its payload.
#[derive(Debug)]
pub(crate) struct EventType {
    pub(crate) name: &'static str,
    pub(crate) kind: String,
    pub(crate) variants: Vec<Template>,
}

/// A payload with holes.
#[derive(Debug)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
    pub(crate) carries: Carries,
}

/// Which of the fields that may key a record this payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carries {
    pub(crate) user: bool,
    pub(crate) interaction: bool,
    pub(crate) session: bool,
}

#[derive(Debug)]
enum Piece {
    Constant { plain: String, escaped: String },
    Slot(Slot),
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    User,
    Ehub,
    Interaction,
    Consult,
    Other,
    Phone,
    Session,
    Request,
    Record,
    Step,
}

/// What the slots of one event hold. No value needs escaping in JSON.
#[derive(Debug, Clone)]
pub(crate) struct Values<'a> {
    pub(crate) user: &'a str,
    pub(crate) ehub: u64,
    pub(crate) interaction: u64,
    pub(crate) session: &'a str,
    pub(crate) request: &'a str,
    pub(crate) step: u32,
}

impl Template {
    /// Appends the payload to `plain`, and to `escaped` as it stands between the quotes of a JSON string.
    pub(crate) fn fill(&self, values: &Values<'_>, plain: &mut String, escaped: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Constant { plain: as_is, escaped: quoted } => {
                    plain.push_str(as_is);
                    escaped.push_str(quoted);
                }
                Piece::Slot(slot) => {
                    let from = plain.len();
                    slot.write(values, plain);
                    escaped.push_str(&plain[from..]);
                }
            }
        }
    }
}

impl Slot {
    /// What takes the place of the value of this key; `None`: it stays. An id of 0 means "no interaction" and stays.
    fn of(key: &str, value: &str) -> Option<Self> {
        let number = value.trim_matches('"');
        Some(match key.trim() {
            _ if number == "0" => return None,
            "userId" => Self::User,
            "ehubSessionId" | "ehubSessionIdRev" => Self::Ehub,
            "consultEhubSessionId" | "consultedEhubSessionId" | "originalEhubSessionId" => Self::Ehub,
            "interactionId" | "interactionIdRev" | "interactionIdTo" => Self::Interaction,
            "originalInteractionId" | "originalInteractionIdRev" => Self::Interaction,
            "monitoringInteractionId" | "monitoringInteractionIdRev" => Self::Interaction,
            "consultInteractionId" | "consultInteractionIdRev" => Self::Consult,
            "conferenceInteractionId" | "conferenceInteractionIdRev" => Self::Other,
            "newInteractionId" | "newInteractionIdRev" => Self::Other,
            "phoneNumber" => Self::Phone,
            "sessionId" => Self::Session,
            "requestId" => Self::Request,
            "recordNumber" | "automationScriptId" => Self::Record,
            "text" => Self::Step,
            _ => return None,
        })
    }

    fn write(self, values: &Values<'_>, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::User => write!(out, "{}", values.user),
            Self::Ehub => write!(out, "{}", values.ehub),
            Self::Interaction => write!(out, "{}", values.interaction),
            Self::Consult => write!(out, "{}", values.interaction + 1),
            Self::Other => write!(out, "{}", values.interaction + 2),
            Self::Phone => write!(out, "603555{:04}", values.interaction % 10_000),
            Self::Session => write!(out, "{}", values.session),
            Self::Request => write!(out, "{}", values.request),
            Self::Record => write!(out, "{}", values.interaction % 100_000),
            Self::Step => write!(out, "This is text {}", values.step),
        };
    }
}

fn read() -> Vec<EventType> {
    viaduct_catalogue::listed()
        .map(|event| EventType {
            name: &event.event_type,
            kind: format!("via#{}Event", event.category()),
            variants: event
                .examples
                .iter()
                .chain(&event.described)
                .map(|payload| template(payload))
                .collect(),
        })
        .collect()
}

/// Splits a payload where a slot takes the place of a scalar. The payload is valid JSON.
fn template(payload: &str) -> Template {
    let mut pieces = Vec::new();
    let (mut constant, mut rest) = (String::new(), payload);
    let mut key = "";
    while let Some(first) = rest.chars().next() {
        let (token, after) = rest.split_at(token_length(rest));
        rest = after;
        let is_key = first == '"' && rest.trim_start().starts_with(':');
        if is_key {
            key = token.trim_matches('"');
        }
        let is_scalar = !is_key && (first == '"' || first.is_ascii_digit());
        match Slot::of(key, token).filter(|_| is_scalar) {
            Some(slot) => {
                let quote = if first == '"' { "\"" } else { "" };
                constant.push_str(quote);
                push_constant(&mut pieces, &std::mem::take(&mut constant));
                pieces.push(Piece::Slot(slot));
                constant.push_str(quote);
            }
            None => constant.push_str(token),
        }
    }
    push_constant(&mut pieces, &constant);
    let mut template =
        Template { pieces, carries: Carries { user: false, interaction: false, session: false } };
    template.carries = carries(&template);
    template
}

/// How many bytes of JSON text the token at its beginning takes: a string, a number, or one character.
fn token_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes[0] {
        b'"' => {
            let mut escaped = false;
            let end = bytes[1..].iter().position(|byte| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            });
            end.map_or(bytes.len(), |end| end + 2)
        }
        b'0'..=b'9' => bytes.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => text.chars().next().map_or(1, char::len_utf8),
    }
}

fn push_constant(pieces: &mut Vec<Piece>, constant: &str) {
    if !constant.is_empty() {
        pieces.push(Piece::Constant { plain: constant.to_owned(), escaped: escape(constant) });
    }
}

/// `text` as it stands between the quotes of a JSON string.
pub(crate) fn escape(text: &str) -> String {
    let quoted = Value::String(text.to_owned()).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn carries(template: &Template) -> Carries {
    let mut plain = String::new();
    let values = Values { user: "u", ehub: 7, interaction: 9, session: "s", request: "r", step: 1 };
    template.fill(&values, &mut plain, &mut String::new());
    let payload: Value = match serde_json::from_str(&plain) {
        Ok(payload) => payload,
        Err(error) => panic!("an example is not JSON when filled in: {error}: {plain}"),
    };
    let field = |name: &str| payload["payload"].get(name).or_else(|| payload.get(name)).cloned();
    Carries {
        user: field("userId").is_some_and(|value| value == "u"),
        interaction: field("interactionId").is_some_and(|value| value == 9 || value == "9"),
        session: field("sessionId").is_some_and(|value| value == "s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_fills_to_json_in_both_forms() {
        let values = Values {
            user: "5aa0b645c2b3e80",
            ehub: 215,
            interaction: 1030,
            session: "s",
            request: "r",
            step: 3,
        };
        for event_type in catalogue() {
            for variant in &event_type.variants {
                let (mut plain, mut escaped) = (String::new(), String::new());
                variant.fill(&values, &mut plain, &mut escaped);
                assert!(
                    serde_json::from_str::<Value>(&plain).is_ok_and(|value| value.is_object()),
                    "{plain}"
                );
                let inner: String = serde_json::from_str(&format!("\"{escaped}\"")).unwrap();
                assert_eq!(inner, plain);
            }
        }
    }

    #[test]
    fn the_documents_contradictions_are_kept() {
        let text = |name: &str| {
            let values =
                Values { user: "u", ehub: 215, interaction: 1030, session: "s", request: "r", step: 3 };
            let mut all = String::new();
            for variant in &catalogue()[position(name).unwrap()].variants {
                variant.fill(&values, &mut all, &mut String::new());
                all.push('\n');
            }
            all
        };
        assert!(
            text("outreach.automationScriptStatus")
                .contains(r#"{" automationScriptId ":"1030","scriptName ":"#)
        );
        assert!(text("engagementCenter.ScreenPop").contains(r#""interactionData":" ""#));
        assert!(text("engagementCenter.ScreenPop").contains(r#""isMasked":true"#));
        assert!(text("engagementCenter.Idle").contains(r#""interactionIdRev":1030"#));
        assert!(text("engagementCenter.Idle").contains(r#""interactionIdRev":"1030""#));
        assert!(text("engagementCenter.Error").contains(r#""worktypeId":"0","workTypeIdRev":0"#));
        assert!(text("engagementCenter.NewWorkType").contains(r#""id":"15","idRev":15"#));
    }

    #[test]
    fn what_can_key_a_record_is_read_from_the_payload() {
        let of = |name: &str, variant: usize| catalogue()[position(name).unwrap()].variants[variant].carries;
        assert_eq!(
            of("engagementCenter.Active", 0),
            Carries { user: true, interaction: true, session: false }
        );
        assert_eq!(
            of("engagementCenter.Idle", 2),
            Carries { user: true, interaction: false, session: false }
        );
        assert_eq!(of("outreach.status", 0), Carries { user: false, interaction: false, session: true });
        assert!(of("engagementCenter.MultiTaskingStatus", 0).user);
    }
}
