//! What topics, subjects and files can be called, and how a value becomes part of such a name.
//!
//! A character that the destination does not allow becomes `_`. So that two values never become one name by that, a
//! value that had to be changed gets `-` and 8 hex digits of its hash behind it: `a b` is `a_b-8044f8a6`, `a_b` stays
//! `a_b`. `{field:plain}` leaves the hash away: there the configuration says that they may become one.
//!
//! Changed are, beside forbidden characters: a `.` in any field but `name` and `eventType` (it would look like a level
//! of the name), an empty part between dots, a value that is just `_` (which says that the event lacks the field), and
//! at the very start of a name `.`, `_` and `$` (hidden files, Kafka's internal topics, the NATS server's subjects).

use std::borrow::Cow;
use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_64;

/// What stands for a field that an event lacks.
pub(super) const MISSING: &str = "_";

/// Which names a destination system can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// Kafka topics: `[A-Za-z0-9._-]` (Kafka `Topic.LEGAL_CHARS`).
    Kafka,
    /// NATS subjects: tokens between dots without white space, `*`, `>` and control characters (ADR-6).
    Nats,
    /// File names, kept to what every file system takes: `[A-Za-z0-9._-]`, no dot in front.
    File,
}

/// Where in a name a value goes, and what it may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Nothing stands before it.
    pub(super) first: bool,
    /// It may have dots: levels of its own.
    pub(super) levels: bool,
    /// Two different values must stay different.
    pub(super) distinct: bool,
}

impl Naming {
    fn allows(self, character: char) -> bool {
        match self {
            Self::Kafka | Self::File => {
                character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
            }
            Self::Nats => {
                !character.is_whitespace() && !character.is_control() && !matches!(character, '*' | '>')
            }
        }
    }

    /// A value as a part of a name.
    pub(super) fn fit(self, value: &str, place: Place) -> Cow<'_, str> {
        let reserved = |c: char| matches!(c, '.' | '_' | '$');
        let reserved_start = place.first && value.starts_with(reserved);
        let fits = !reserved_start
            && !value.is_empty()
            && value != MISSING
            && value.chars().all(|c| self.allows(c) && (place.levels || c != '.'))
            && (!place.levels || value.split('.').all(|part| !part.is_empty()));
        if fits {
            return Cow::Borrowed(value);
        }
        let mut name = String::with_capacity(value.len() + 9);
        for (index, character) in value.chars().enumerate() {
            let first = index == 0 && place.first;
            match character {
                c if first && reserved(c) => name.push('-'),
                // The part before it was empty.
                '.' if place.levels && (name.is_empty() || name.ends_with('.')) => name.push_str("_."),
                '.' if place.levels => name.push('.'),
                c if self.allows(c) && c != '.' => name.push(c),
                _ => name.push('_'),
            }
        }
        if name.is_empty() || name.ends_with('.') {
            name.push('_');
        }
        if place.distinct {
            // Writing to a String cannot fail.
            let _ = write!(name, "-{:08x}", xxh3_64(value.as_bytes()) >> 32);
        }
        Cow::Owned(name)
    }

    /// Text that the configuration gives: what is not allowed becomes `_`.
    pub(super) fn literal(self, text: &str) -> String {
        text.chars().map(|c| if self.allows(c) { c } else { '_' }).collect()
    }

    /// Mends what a whole name must not be.
    pub(super) fn complete(self, name: &mut String) {
        match self {
            Self::Nats if name.is_empty() || name.split('.').any(str::is_empty) => {
                let tokens: Vec<&str> =
                    name.split('.').map(|token| if token.is_empty() { "_" } else { token }).collect();
                *name = tokens.join(".");
            }
            Self::File if name.starts_with('.') => name.replace_range(0..1, "_"),
            Self::Kafka if matches!(name.as_str(), "." | "..") => *name = "_".repeat(name.len()),
            _ if name.is_empty() => name.push('_'),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const INSIDE: Place = Place { first: false, levels: false, distinct: true };
    const NAME: Place = Place { levels: true, ..INSIDE };
    const START: Place = Place { first: true, ..INSIDE };

    #[test]
    fn what_fits_stays_and_what_does_not_is_told_apart() {
        let kafka = |value| Naming::Kafka.fit(value, INSIDE).into_owned();
        assert_eq!(kafka("Idle-2_x"), "Idle-2_x");
        assert_eq!(kafka("a b"), "a_b-8044f8a6");
        assert_ne!(kafka("a b"), kafka("a*b"));
        assert_eq!(kafka("a.b")[..4], *"a_b-");
        assert_eq!(kafka("_")[..2], *"_-");
        assert_eq!(Naming::Nats.fit("é", INSIDE), "é");
        assert_eq!(Naming::Kafka.fit("a.b", NAME), "a.b");
        assert_eq!(Naming::Nats.fit("a..b.", NAME)[..7], *"a._.b._");
        assert_eq!(Naming::Kafka.fit("a b", Place { distinct: false, ..INSIDE }), "a_b");
    }

    #[test]
    fn no_value_reaches_what_is_not_for_events() {
        for value in ["__consumer_offsets", "_viaduct", "$JS", ".hidden"] {
            for naming in [Naming::Kafka, Naming::Nats, Naming::File] {
                let name = naming.fit(value, START);
                assert!(name.starts_with('-'), "{name}");
            }
        }
        assert_eq!(Naming::Kafka.fit("_x", INSIDE), "_x");
    }

    #[test]
    fn no_whole_name_is_empty_or_special() {
        let complete = |naming: Naming, name: &str| {
            let mut name = name.to_owned();
            naming.complete(&mut name);
            name
        };
        assert_eq!(complete(Naming::Nats, "a..b."), "a._.b._");
        assert_eq!(complete(Naming::Nats, ""), "_");
        assert_eq!(complete(Naming::Kafka, ".."), "__");
        assert_eq!(complete(Naming::Kafka, ""), "_");
        assert_eq!(complete(Naming::File, ".hidden"), "_hidden");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        /// Names of what looks alike: allowed, different, and without levels of their own.
        #[test]
        fn different_values_have_different_names(values in prop::collection::hash_set("[ab _.*$é]{0,4}", 2..24), first: bool) {
            for naming in [Naming::Kafka, Naming::Nats, Naming::File] {
                let mut seen = HashMap::new();
                for value in &values {
                    let name = naming.fit(value, Place { first, ..INSIDE }).into_owned();
                    prop_assert!(name.chars().all(|c| naming.allows(c) && c != '.'), "{name}");
                    prop_assert!(!name.is_empty() && name != MISSING);
                    if let Some(other) = seen.insert(name.clone(), value) {
                        prop_assert!(false, "{other:?} and {value:?} are both {name}");
                    }
                }
            }
        }
    }
}
