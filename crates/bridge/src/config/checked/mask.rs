//! Masks after every check.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::pattern::Pattern;
use crate::config::secret::SecretRef;

/// `[mask]`: what of an event nobody behind the bridge may see.
#[derive(Debug, Clone)]
pub(crate) struct Mask {
    /// `mask.fields`
    pub(crate) rules: Vec<MaskRule>,
    /// Whether the vendor's own `isMasked` hides the `value` beside it.
    pub(crate) honour_is_masked: bool,
    /// `mask.hash_key`; there where a rule hashes.
    pub(crate) hash_key: Option<SecretRef>,
}

/// One of `mask.fields`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaskRule {
    /// The paths it is about, a path being member names joined by dots.
    pub(crate) path: Pattern,
    /// What becomes of their values.
    pub(crate) action: MaskAction,
}

/// What becomes of a masked value. The order is from the mildest to the strictest, which wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MaskAction {
    /// Its last four characters stay.
    Last4,
    /// Equal values stay equal.
    Hash,
    /// Nothing of it stays.
    Redact,
    /// The field itself goes.
    Drop,
}

impl MaskAction {
    /// The configuration's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Last4 => "last4",
            Self::Hash => "hash",
            Self::Redact => "redact",
            Self::Drop => "drop",
        }
    }
}
