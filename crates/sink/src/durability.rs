//! Destinations that are less durable than the guarantee assumes.
//!
//! "Confirmed" is as durable as the destination is. Three copies, of which two have a record before it is confirmed, are
//! what the guarantee assumes; everything below is a [`Weakness`]. Sinks find them, the bridge tells about them, and refuses
//! them where `require_durable` is set.

use std::fmt;

use tracing::warn;

/// A setting with which a destination is less durable than the guarantee assumes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weakness {
    /// What has it, as in `topic via.chat` or `stream VIA`.
    pub destination: String,
    /// The setting, in the destination's own words.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// What can get lost, as a clause for a person.
    pub consequence: &'static str,
}

impl Weakness {
    /// Logs it.
    pub fn tell(&self) {
        let Self { destination, setting, value, consequence } = self;
        warn!(destination, setting, value, consequence, "less durable than the guarantee assumes");
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destination, setting, value, consequence } = self;
        write!(f, "{destination} has {setting} {value}: {consequence}")
    }
}
