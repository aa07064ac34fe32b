//! Patterns on `eventType`: exact names, and `*` for any run of characters, dots included.

use std::fmt;

use thiserror::Error;

/// A pattern, split at its stars when it is parsed, so that matching only compares slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    shape: Shape,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shape {
    /// No star: the whole name.
    Exact,
    /// What stands before the first star, between two stars (never empty), and after the last.
    Stars { prefix: String, middle: Vec<String>, suffix: String },
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum PatternError {
    /// Nothing can match it.
    #[error("is empty")]
    Empty,
    /// White space or a control character: no event type has one.
    #[error("contains white space or a control character")]
    Space,
}

impl Pattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// When no event type could ever match.
    pub(crate) fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(PatternError::Space);
        }
        Ok(Self::of(text))
    }

    /// The pattern of a text, whatever characters are in it.
    pub(crate) fn of(text: &str) -> Self {
        let shape = match (text.split_once('*'), text.rsplit_once('*')) {
            (Some((prefix, _)), Some((before, suffix))) => {
                // With one star only, `before` is the prefix, and nothing is between.
                let between = before.get(prefix.len() + 1..).unwrap_or_default();
                let middle = between.split('*').filter(|part| !part.is_empty()).map(str::to_owned).collect();
                Shape::Stars { prefix: prefix.to_owned(), middle, suffix: suffix.to_owned() }
            }
            _ => Shape::Exact,
        };
        Self { text: text.to_owned(), shape }
    }

    /// The pattern that matches everything.
    pub(crate) fn everything() -> Self {
        let shape = Shape::Stars { prefix: String::new(), middle: Vec::new(), suffix: String::new() };
        Self { text: "*".to_owned(), shape }
    }

    /// Whether whatever `other` matches is surely matched by this pattern too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        // A star of `other` stands for anything; here only a star can take it.
        self.matches(&other.text)
    }

    /// Whether surely nothing is matched by both patterns.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        let ends = |pattern: &Self| match &pattern.shape {
            Shape::Exact => (pattern.text.clone(), pattern.text.clone(), true),
            Shape::Stars { prefix, suffix, .. } => (prefix.clone(), suffix.clone(), false),
        };
        let ((prefix, suffix, exact), (other_prefix, other_suffix, other_exact)) = (ends(self), ends(other));
        match (exact, other_exact) {
            (true, _) => !other.matches(&self.text),
            (_, true) => !self.matches(&other.text),
            _ => {
                let prefixes = prefix.starts_with(&other_prefix) || other_prefix.starts_with(&prefix);
                let suffixes = suffix.ends_with(&other_suffix) || other_suffix.ends_with(&suffix);
                !(prefixes && suffixes)
            }
        }
    }

    /// The pattern's text.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches this event type.
    pub(crate) fn matches(&self, event_type: &str) -> bool {
        match &self.shape {
            Shape::Exact => self.text == event_type,
            Shape::Stars { prefix, middle, suffix } => {
                let Some(rest) = event_type.strip_prefix(prefix.as_str()) else { return false };
                let Some(mut rest) = rest.strip_suffix(suffix.as_str()) else { return false };
                // The leftmost place for each part leaves the most room for the next ones.
                for part in middle {
                    let Some(at) = rest.find(part.as_str()) else { return false };
                    rest = &rest[at + part.len()..];
                }
                true
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
