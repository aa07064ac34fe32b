//! `[mask]`.

use secrecy::ExposeSecret;

use super::super::checked::{Mask, MaskAction, MaskRule, Route, SinkKind, Target};
use super::super::field::{Field, Given, Named};
use super::super::pattern::Pattern;
use super::super::raw;
use super::super::template::FieldName;
use super::sink::NamedSink;
use super::{Checks, Section};

/// A shorter key can be guessed, and with it everything that was hashed.
const KEY_MIN: usize = 16;

/// Envelope fields by which an event is known: they are never masked.
const NEVER: [&str; 3] = ["eventId", "eventType", "publishedTime"];

impl Checks<'_> {
    pub(super) fn mask(&mut self, raw: &Field<raw::Mask>) -> Option<Option<Mask>> {
        let given = match raw {
            Field::Absent => return Some(None),
            Field::Wrong => return None,
            Field::Given(given) => given,
        };
        let section = Section::new("[mask]", given.at);
        let raw = &given.value;
        let rules = self.mask_rules(&raw.fields);
        let honour = raw.honour_is_masked.or(true);
        let hashes =
            rules.as_ref().is_some_and(|rules| rules.iter().any(|rule| rule.action == MaskAction::Hash));
        let hash_key = match &raw.hash_key {
            Field::Absent if hashes => {
                let hint = "add hash_key = { file = \"path\" } with a long random text, the same everywhere";
                self.missing(section.at, "`hash_key` in [mask], which \"hash\" needs,", hint);
                None
            }
            Field::Absent => Some(None),
            Field::Wrong => None,
            Field::Given(key) => {
                let secret = self.given_secret(&key.value.0, key.at, "`hash_key` in [mask]");
                if let Some(secret) = &secret {
                    self.long_enough(secret, key.at);
                }
                secret.map(Some)
            }
        };
        let mask = Mask { rules: rules?, honour_is_masked: honour?, hash_key: hash_key? };
        if mask.rules.is_empty() && !mask.honour_is_masked {
            self.warn(section.at, "[mask] masks nothing", "name fields, or remove it");
            return Some(None);
        }
        Some(Some(mask))
    }

    fn long_enough(&mut self, secret: &super::super::secret::SecretRef, at: super::Origin) {
        let short = self.read(secret).is_ok_and(|key| key.expose_secret().len() < KEY_MIN);
        if short {
            let message = format!("`hash_key` in [mask] is shorter than {KEY_MIN} characters");
            self.wrong(at, message, "take a long random text: whoever guesses it can undo the hashes");
        }
    }

    fn mask_rules(&mut self, fields: &Field<Named<MaskAction>>) -> Option<Vec<MaskRule>> {
        let named = fields.or(Named(Vec::new()))?;
        let mut right = true;
        let mut rules = Vec::new();
        for (path, action) in &named.0 {
            let Some(Given { value: action, at }) = action.given() else {
                right = false;
                continue;
            };
            let name = path.escape_debug();
            let problem = if path.is_empty() {
                Some((
                    "has a field without a name".to_owned(),
                    "write a member's name, or names joined by dots",
                ))
            } else if NEVER.contains(&path.as_str()) {
                let hint = "remove it: an event is known by its id, type and time";
                Some((format!("cannot hide `{name}`"), hint))
            } else {
                None
            };
            if let Some((problem, hint)) = problem {
                self.wrong(*at, format!("`fields` in [mask] {problem}"), hint);
                right = false;
            }
            rules.push(MaskRule { path: Pattern::of(path), action: *action });
        }
        right.then_some(rules)
    }

    /// A key of which nothing is left puts all its events into one partition, or is no key at all.
    pub(super) fn masked_keys(
        &mut self,
        mask: &Mask,
        routes: &[Route],
        raw: &raw::Config,
        sinks: &[NamedSink],
    ) {
        let Some(given) = raw.route.given() else { return };
        for (route, item) in routes.iter().zip(&given.value) {
            let (Target::Sink { sink, key, .. }, Some(item)) = (&route.target, item.given()) else {
                continue;
            };
            // Lines of a file have no key.
            let kind = sinks[sink.get()].1.as_ref().map(|sink| &sink.kind);
            if matches!(kind, Some(SinkKind::File(_) | SinkKind::Stdout)) {
                continue;
            }
            let at = item.value.key.given().map_or(item.at, |key| key.at);
            let fields = key.iter().flat_map(|part| part.template().fields());
            for field in fields {
                let FieldName::Event(path) = field else { continue };
                let path = path.steps().join(".");
                let places = ["", "payload.", "payload.payload."].map(|place| format!("{place}{path}"));
                let hits = |rule: &&MaskRule| places.iter().any(|place| rule.path.matches(place));
                let hit = mask.rules.iter().filter(hits).map(|rule| rule.action).max();
                let becomes = match hit {
                    Some(MaskAction::Redact) => "the same for all events",
                    Some(MaskAction::Drop) => "never there",
                    Some(MaskAction::Last4) => "the same for values that end alike",
                    Some(MaskAction::Hash) | None => continue,
                };
                let message = format!("`key` uses `{path}`, which is masked: it is {becomes}");
                self.warn(at, message, "mask it with \"hash\", or choose another key");
            }
        }
    }
}
