//! The event types of the vendor document, read from `catalogue.tsv`, and the filling in of their payloads.
//!
//! A template is split once, at first use, into constant pieces (plain, and escaped as they stand inside the JSON
//! string `payload`) and slots, so that writing an event is a handful of copies and no JSON value is ever built.

use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::Value;

const TABLE: &str = include_str!("catalogue.tsv");

static CATALOGUE: LazyLock<Vec<EventType>> = LazyLock::new(|| read(TABLE));

/// The event types that the simulator knows, in the order of the vendor document's "Event List".
pub fn event_types() -> impl Iterator<Item = &'static str> {
    catalogue().iter().map(|event_type| event_type.name)
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
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "user" => Self::User,
            "ehub" => Self::Ehub,
            "interaction" => Self::Interaction,
            "consult" => Self::Consult,
            "other" => Self::Other,
            "phone" => Self::Phone,
            "session" => Self::Session,
            "request" => Self::Request,
            "record" => Self::Record,
            "step" => Self::Step,
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
            Self::Step => write!(out, "{}", values.step),
        };
    }
}

fn read(table: &'static str) -> Vec<EventType> {
    let mut types: Vec<EventType> = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut columns = line.splitn(3, '\t');
        let (Some(name), Some(_schema), Some(payload)) = (columns.next(), columns.next(), columns.next())
        else {
            panic!("catalogue.tsv: not three columns: {line}");
        };
        let template = template(payload);
        match types.iter_mut().find(|known| known.name == name) {
            Some(known) => known.variants.push(template),
            None => {
                let category = name.split('.').next().unwrap_or(name);
                types.push(EventType {
                    name,
                    kind: format!("via#{category}Event"),
                    variants: vec![template],
                });
            }
        }
    }
    types
}

fn template(payload: &str) -> Template {
    let mut pieces = Vec::new();
    let mut rest = payload;
    while let Some((constant, after)) = rest.split_once("{{") {
        let Some((slot, after)) = after.split_once("}}") else {
            panic!("catalogue.tsv: a slot is not closed: {payload}")
        };
        let Some(slot) = Slot::of(slot) else { panic!("catalogue.tsv: unknown slot {slot}") };
        push_constant(&mut pieces, constant);
        pieces.push(Piece::Slot(slot));
        rest = after;
    }
    push_constant(&mut pieces, rest);
    let mut template =
        Template { pieces, carries: Carries { user: false, interaction: false, session: false } };
    template.carries = carries(&template);
    template
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
        Err(error) => panic!("catalogue.tsv: not JSON when filled in: {error}: {plain}"),
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
