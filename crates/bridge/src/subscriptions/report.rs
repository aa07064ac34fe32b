//! What the commands print: a plan that reads like a diff, or JSON.

use std::fmt::Write as _;

use serde::Serialize;
use viaduct_poller::SessionId;

use crate::cli::SubscriptionsVerb;

/// Everything that a command found and did.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) sources: Vec<SourceReport>,
}

/// One source.
#[derive(Debug, Serialize)]
pub(super) struct SourceReport {
    pub(super) source: String,
    pub(super) session: SessionReport,
    /// The planned changes in their order, then what stays.
    pub(super) subscriptions: Vec<Line>,
}

/// The session that was looked at.
#[derive(Debug)]
pub(super) enum Session {
    /// None is saved.
    None,
    /// The saved one is dead.
    Expired(SessionId),
    /// The saved one.
    Live(SessionId),
    /// One of the command's own.
    Trial(SessionId),
}

impl Session {
    /// The id that calls may be made with.
    pub(super) fn usable(&self) -> Option<&SessionId> {
        match self {
            Self::Live(id) | Self::Trial(id) => Some(id),
            Self::None | Self::Expired(_) => None,
        }
    }
}

/// A session as it is shown: its id gives access to events, so only its beginning is.
#[derive(Debug, Serialize)]
pub(super) struct SessionReport {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

impl From<&Session> for SessionReport {
    fn from(session: &Session) -> Self {
        let (state, id) = match session {
            Session::None => ("none", None),
            Session::Expired(id) => ("expired", Some(id)),
            Session::Live(id) => ("live", Some(id)),
            Session::Trial(id) => ("trial", Some(id)),
        };
        Self { state, id: id.map(|id| format!("{}…", id.short())) }
    }
}

/// One subscription.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) action: Action,
    pub(super) description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) declared: Option<Spec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) actual: Option<Spec>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) detail: Option<String>,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// It is declared and missing.
    Create,
    /// It says something else than declared.
    Update,
    /// It is not declared, and the source prunes.
    Delete,
    /// It is as declared.
    Keep,
    /// It is not declared, and left alone.
    Foreign,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Applied,
    Refused,
}

/// What a subscription says, in the words of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Spec {
    pub(super) catalog_type: String,
    pub(super) events: Vec<String>,
    pub(super) resource_type: String,
    pub(super) resource_ids: Vec<String>,
}

impl Spec {
    /// Its keys and values as the configuration writes them.
    fn pairs(&self) -> [(&'static str, String); 4] {
        [
            ("catalog_type", format!("{:?}", self.catalog_type)),
            ("events", format!("{:?}", self.events)),
            ("resource_type", format!("{:?}", self.resource_type)),
            ("resource_ids", format!("{:?}", self.resource_ids)),
        ]
    }
}

impl Report {
    pub(super) fn json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }

    pub(super) fn text(&self, verb: SubscriptionsVerb) -> String {
        let mut text = String::new();
        for source in &self.sources {
            source.write(verb, &mut text);
        }
        text
    }
}

// Writing to a String cannot fail.
impl SourceReport {
    fn write(&self, verb: SubscriptionsVerb, text: &mut String) {
        let session = &self.session;
        let id = session.id.as_deref().unwrap_or_default();
        let _ = match session.state {
            "live" => writeln!(text, "source {}, session {id}", self.source),
            "trial" => writeln!(text, "source {}, session {id} for trial, deleted again", self.source),
            "expired" => writeln!(text, "source {}: the saved session {id} has expired", self.source),
            _ => writeln!(text, "source {}: no saved session", self.source),
        };
        let mut counts = [0_usize; 5];
        for line in &self.subscriptions {
            counts[line.action as usize] += 1;
            match verb {
                SubscriptionsVerb::List => line.write_actual(text),
                SubscriptionsVerb::Plan | SubscriptionsVerb::Apply => line.write_change(text),
            }
        }
        let [create, update, delete, keep, foreign] = counts;
        let _ = match verb {
            SubscriptionsVerb::List => writeln!(
                text,
                "{} in the session, {} declared",
                update + delete + keep + foreign,
                create + update + keep
            ),
            _ => writeln!(
                text,
                "{create} to create, {update} to change, {delete} to delete, {keep} as declared, {foreign} not declared"
            ),
        };
    }
}

impl Line {
    /// What stands in the session.
    fn write_actual(&self, text: &mut String) {
        let Some(actual) = &self.actual else { return };
        let note = match self.action {
            Action::Foreign | Action::Delete => " (not declared)",
            Action::Update => " (differs from what is declared)",
            Action::Keep | Action::Create => "",
        };
        let _ = writeln!(text, "  {:?}{note}", self.description);
        for (key, value) in actual.pairs() {
            let _ = writeln!(text, "    {key} = {value}");
        }
    }

    /// What changes, as a diff.
    fn write_change(&self, text: &mut String) {
        let (mark, note) = match self.action {
            Action::Create => ('+', ""),
            Action::Update => ('~', ""),
            Action::Delete => ('-', ""),
            Action::Keep => (' ', " as declared"),
            Action::Foreign => (' ', " not declared, left as it is"),
        };
        let outcome = match (self.outcome, &self.detail) {
            (Some(Outcome::Applied), _) => ": applied".to_owned(),
            (Some(Outcome::Refused), detail) => {
                format!(": refused: {}", detail.as_deref().unwrap_or_default())
            }
            (None, _) => String::new(),
        };
        let _ = writeln!(text, "{mark} {:?}{note}{outcome}", self.description);
        if let Action::Keep | Action::Foreign = self.action {
            return;
        }
        let pairs =
            |spec: &Option<Spec>| spec.as_ref().map(Spec::pairs).into_iter().flatten().collect::<Vec<_>>();
        let (before, after) = (pairs(&self.actual), pairs(&self.declared));
        for (mark, these, others) in [('-', &before, &after), ('+', &after, &before)] {
            for (key, value) in these.iter().filter(|pair| !others.contains(pair)) {
                let _ = writeln!(text, "{mark}   {key} = {value}");
            }
        }
    }
}
