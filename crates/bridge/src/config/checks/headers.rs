//! `headers` of a `[[route]]`.

use super::super::checked::SinkKind;
use super::super::field::{Field, Given, Named};
use super::super::template::Template;
use super::{Checks, Section};

impl Checks<'_> {
    pub(super) fn headers(
        &mut self,
        raw: &Field<Named<String>>,
        section: &Section,
        kind: Option<&SinkKind>,
    ) -> Option<Vec<(String, Template)>> {
        let named = raw.or(Named(Vec::new()))?;
        if let (Some(given), Some(SinkKind::File(_) | SinkKind::Stdout)) = (raw.given(), kind) {
            let message =
                format!("`headers` in {} have no effect: this sink writes values only", section.label);
            self.warn(given.at, message, "remove them");
        }
        let mut headers: Vec<(String, Template)> = Vec::new();
        let mut right = true;
        for (name, field) in &named.0 {
            let Some(Given { value, at }) = field.given() else {
                right = false;
                continue;
            };
            let shown = name.escape_debug();
            let taken = headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
            let problem = if !is_header(name) {
                Some((
                    "is no name of a header".to_owned(),
                    "use letters, digits, `-`, `_` and `.` only".to_owned(),
                ))
            } else if let Some(owner) = owner(name) {
                Some((format!("belongs to {owner}"), "choose another name".to_owned()))
            } else if taken {
                Some(("is there twice, but for its case".to_owned(), "keep one of them".to_owned()))
            } else {
                None
            };
            if let Some((problem, hint)) = problem {
                self.wrong(*at, format!("the header `{shown}` in {} {problem}", section.label), hint);
                right = false;
                continue;
            }
            match Template::parse(value) {
                Ok(_) if value.chars().any(char::is_control) => {
                    let message =
                        format!("the header `{shown}` in {} contains a control character", section.label);
                    self.wrong(*at, message, "remove it");
                    right = false;
                }
                Ok(template) => headers.push((name.clone(), template)),
                Err(error) => {
                    let hint = format!("write it like {name} = \"{{userId}}\"");
                    self.wrong(*at, format!("the header `{shown}` in {} {error}", section.label), hint);
                    right = false;
                }
            }
        }
        right.then_some(headers)
    }
}

/// Whether Kafka, NATS and every reader in between take this name of a header.
fn is_header(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whose headers are called like this, if not the user's.
fn owner(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    let owners = [
        ("ce_", "CloudEvents"),
        ("ce-", "CloudEvents"),
        ("nats-", "NATS"),
        ("viaduct-", "dead letters"),
        ("__connect.", "dead letters"),
    ];
    if name == "content-type" {
        return Some("the format");
    }
    owners.into_iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, owner)| owner)
}
