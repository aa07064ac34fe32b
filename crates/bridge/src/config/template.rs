//! Templates of topics, subjects and file names: literal text with `{field}` in it.

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
    /// The value of an event's field, `_` where the event lacks it.
    Field(String),
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
    #[error("has no field name between `{{` and `}}` (letters, digits and `_`, a letter first)")]
    NoField,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// When it is empty, or its braces do not enclose names of fields.
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
            let (field, after) = inner.split_once('}').ok_or(TemplateError::Unclosed)?;
            if !is_field(field) {
                return Err(TemplateError::NoField);
            }
            segments.push(Segment::Field(field.to_owned()));
            rest = after;
        }
        if segments.is_empty() { Err(TemplateError::Empty) } else { Ok(Self { segments }) }
    }

    /// The pieces, in order.
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The text before the first field: what every destination made of this template starts with.
    pub(crate) fn literal_prefix(&self) -> &str {
        match self.segments.first() {
            Some(Segment::Literal(text)) => text,
            _ => "",
        }
    }
}

/// Whether a text can name a field of an event: a letter, then letters, digits and `_`.
pub(super) fn is_field(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The template's text, which parses to the same template again.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => f.write_str(text)?,
                Segment::Field(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}
