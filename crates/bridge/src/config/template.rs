//! Templates of topics, subjects, file names, keys and headers: literal text with `{field}` in it.
//!
//! A field is one of `org`, `source`, `category` and `name`, or names a value in the event: `userId`, or by its path
//! `interactionInfo.screenData.ani`. `{field:plain}` lets different values become one name, see
//! [`crate::routing::Naming`].

use std::fmt;

use thiserror::Error;

/// A parsed template; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    segments: Vec<Segment>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Text as it stands; never empty.
    Literal(String),
    /// The value of a field, `_` where the event lacks it.
    Field(FieldName, Distinct),
}

/// Whether two values that are made fit for a name stay two names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Distinct {
    /// They do.
    Yes,
    /// `:plain`: characters are replaced, nothing is added.
    No,
}

/// What a template or a key refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FieldName {
    /// `org_id` of the source.
    Org,
    /// The source's name.
    Source,
    /// What stands before the first `.` of the event's type.
    Category,
    /// What stands behind it.
    Name,
    /// A value in the event.
    Event(FieldPath),
}

/// Where in an event a value stands; never empty.
///
/// A path is looked up in the inner `payload.payload`, then in `payload`, then in the envelope. One that starts with
/// `payload.` starts at the envelope alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldPath {
    steps: Vec<String>,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum TemplateError {
    /// There is no topic without a name.
    #[error("is empty")]
    Empty,
    /// `{` without its `}`.
    #[error("has a `{{` that no `}}` closes")]
    Unclosed,
    /// `}` without its `{`.
    #[error("has a `}}` that no `{{` opens")]
    Unopened,
    /// What stands in the braces is no name of a field.
    #[error(
        "has no field between `{{` and `}}` (letters, digits, `_` and `-`, a letter first; `.` for a field in a field; \
         other names in double quotes)"
    )]
    NoField,
    /// Behind the `:` stands something else than `plain`.
    #[error("has a `:` in braces with something else than `plain` behind it")]
    Modifier,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// When it is empty, or its braces do not enclose fields.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let literal = &rest[..rest.find(['{', '}']).unwrap_or(rest.len())];
            if !literal.is_empty() {
                segments.push(Segment::Literal(literal.to_owned()));
            }
            rest = &rest[literal.len()..];
            if rest.is_empty() {
                break;
            }
            let inner = rest.strip_prefix('{').ok_or(TemplateError::Unopened)?;
            let end = unquoted(inner, '}').ok_or(TemplateError::Unclosed)?;
            let (field, distinct) = match unquoted(&inner[..end], ':') {
                Some(colon) if &inner[colon + 1..end] == "plain" => (&inner[..colon], Distinct::No),
                Some(_) => return Err(TemplateError::Modifier),
                None => (&inner[..end], Distinct::Yes),
            };
            let field = FieldName::parse(field).ok_or(TemplateError::NoField)?;
            segments.push(Segment::Field(field, distinct));
            rest = &inner[end + 1..];
        }
        if segments.is_empty() { Err(TemplateError::Empty) } else { Ok(Self { segments }) }
    }

    /// The template that is one field.
    pub(crate) fn field(field: FieldName) -> Self {
        Self { segments: vec![Segment::Field(field, Distinct::Yes)] }
    }

    /// The template that is one text, which must not be empty.
    pub(crate) fn literal(text: &str) -> Self {
        Self { segments: vec![Segment::Literal(text.to_owned())] }
    }

    /// The pieces, in order.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The fields, in order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &FieldName> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Literal(_) => None,
            Segment::Field(field, _) => Some(field),
        })
    }

    /// The text before the first field: what every destination made of this template starts with.
    pub(crate) fn literal_prefix(&self) -> &str {
        match self.segments.first() {
            Some(Segment::Literal(text)) => text,
            _ => "",
        }
    }
}

impl FieldName {
    /// Parses the name of a field, or a path; `None` where it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "org" => Self::Org,
            "source" => Self::Source,
            "category" => Self::Category,
            "name" => Self::Name,
            other => Self::Event(FieldPath::parse(other)?),
        })
    }
}

impl FieldPath {
    fn parse(text: &str) -> Option<Self> {
        let mut steps = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            let dot = unquoted(text, '.');
            let step = &text[..dot.unwrap_or(text.len())];
            rest = dot.map(|dot| &text[dot + 1..]);
            let quoted = step.strip_prefix('"').and_then(|step| step.strip_suffix('"'));
            let plain = |step: &str| {
                let first = if steps.is_empty() {
                    step.starts_with(|c: char| c.is_ascii_alphabetic())
                } else {
                    !step.is_empty()
                };
                first && step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            };
            match quoted {
                Some(quoted) if !quoted.is_empty() && !quoted.contains('"') => steps.push(quoted.to_owned()),
                None if plain(step) => steps.push(step.to_owned()),
                _ => return None,
            }
        }
        Some(Self { steps })
    }

    /// The names on the way, outermost first.
    pub(crate) fn steps(&self) -> &[String] {
        &self.steps
    }
}

/// Where `wanted` first stands outside of double quotes.
fn unquoted(text: &str, wanted: char) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, character)| {
        quoted ^= character == '"';
        (!quoted && character == wanted).then_some(at)
    })
}

/// As it was written: it parses to the same path again.
impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            if index > 0 {
                f.write_str(".")?;
            }
            let plain = step.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
                && (index > 0 || step.starts_with(|c: char| c.is_ascii_alphabetic()));
            if plain { f.write_str(step)? } else { write!(f, "\"{step}\"")? }
        }
        Ok(())
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("org"),
            Self::Source => f.write_str("source"),
            Self::Category => f.write_str("category"),
            Self::Name => f.write_str("name"),
            Self::Event(path) => path.fmt(f),
        }
    }
}

/// The template's text, which parses to the same template again.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => f.write_str(text)?,
                Segment::Field(name, Distinct::Yes) => write!(f, "{{{name}}}")?,
                Segment::Field(name, Distinct::No) => write!(f, "{{{name}:plain}}")?,
            }
        }
        Ok(())
    }
}

/// One candidate for a record's key: a field, a template, or a constant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPart(Template);

impl KeyPart {
    /// Parses `userId`, `{org}-{userId}`, or `"constant"` (with the quotes).
    ///
    /// # Errors
    /// When it is none of these.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains(['{', '}']) {
            return Template::parse(text).map(Self);
        }
        let constant = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        match constant {
            Some(constant) if !constant.is_empty() && !constant.contains('"') => {
                Ok(Self(Template::literal(constant)))
            }
            _ => {
                FieldName::parse(text).map(|field| Self(Template::field(field))).ok_or(TemplateError::NoField)
            }
        }
    }

    /// The key as a template; an event that lacks one of its fields does not have this key.
    pub(crate) fn template(&self) -> &Template {
        &self.0
    }
}

/// As it was written.
impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.segments() {
            [Segment::Field(name, Distinct::Yes)] => name.fmt(f),
            [Segment::Literal(text)] => write!(f, "\"{text}\""),
            _ => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_written_as_it_is_read() {
        for text in [
            "via.{category}",
            "{org}-{userId:plain}.x",
            "{interactionInfo.screenData.ani}",
            "{list.0.value}",
            r#"{" automationScriptId "}"#,
            r#"{a."b.}c":plain}"#,
        ] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
        for text in ["userId", "payload.userId", "{org}:{userId}", "\"all\"", "\"two words\""] {
            assert_eq!(KeyPart::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_template_is_told() {
        let error = |text: &str| Template::parse(text).unwrap_err();
        assert_eq!(error(""), TemplateError::Empty);
        assert_eq!(error("a{b"), TemplateError::Unclosed);
        assert_eq!(error("a}b"), TemplateError::Unopened);
        for text in ["{}", "{ userId }", "{1}", "{a.}", "{.a}", "{a..b}", "{\"\"}", "{a\"b\"}"] {
            assert_eq!(error(text), TemplateError::NoField, "{text}");
        }
        assert_eq!(error("{userId:}"), TemplateError::Modifier);
        for text in ["", "\"\"", "a b", ".", "a."] {
            assert_eq!(KeyPart::parse(text), Err(TemplateError::NoField), "{text}");
        }
    }
}
