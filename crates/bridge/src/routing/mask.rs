//! Masks: an event's text rewritten before anything else sees it.
//!
//! ```text
//! entry ─▶ every member, with its path ─▶ edits ─▶ the text with the edits ─▶ entry, read anew
//!            ▲          │ a string of JSON
//!            └──────────┘ is gone into
//! ```
//!
//! The pipeline masks an entry when the poller hands it over, so records, keys, dead letters and whoever watches get
//! the masked one. Its identity stays that of what the vendor sent ([`Entry::rewritten`]).
//!
//! - A path is the names of members joined by dots, from the envelope, from its `payload`, or from the payload inside
//!   that; elements of arrays have the path of their array. A path that starts with `payload.` is from the envelope.
//! - Text is edited in place: what is not masked stays byte for byte, inside strings of JSON too.
//! - What cannot be read cannot be masked, so it is hidden as a whole: a payload that is no JSON, an entry that is none.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use ring::hmac;
use secrecy::ExposeSecret;
use viaduct_poller::{ApiVersion, Entry};
use xxhash_rust::xxh3::xxh3_64;

use super::json::{self, Edit, Member};
use crate::config::{Config, Mask, MaskAction, Pattern, SecretError};
use crate::exit::{Exit, Failure};

/// What stands for a value of which nothing is left.
const HIDDEN: &str = "***";

/// Deeper values are hidden as a whole.
const DEEPEST: usize = 64;

/// `[mask]`, ready to be applied.
pub(crate) struct Masks {
    rules: Vec<Rule>,
    honour_is_masked: bool,
    key: Option<hmac::Key>,
    fingerprint: Arc<str>,
}

#[derive(Debug)]
struct Rule {
    path: Pattern,
    /// Whether the path is one from the envelope.
    anchored: bool,
    action: MaskAction,
}

impl Masks {
    /// The masks of a configuration; `None` where it has none.
    ///
    /// # Errors
    /// 78: the key of the hashes cannot be read.
    pub(crate) fn of(config: &Config) -> Result<Option<Arc<Self>>, Failure> {
        let masks = config.mask.as_ref().map(Self::new).transpose().map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("`hash_key` in [mask] cannot be read: {error}"),
                "make it readable for this user",
            )
        })?;
        Ok(masks.map(Arc::new))
    }

    /// Reads the key of the hashes, once: with another key equal values would not stay equal.
    ///
    /// # Errors
    /// The secret cannot be read.
    fn new(mask: &Mask) -> Result<Self, SecretError> {
        let key = mask.hash_key.as_ref().map(|key| key.read()).transpose()?;
        let rules = mask.rules.iter().map(|rule| Rule {
            path: rule.path.clone(),
            anchored: rule.path.as_str().starts_with("payload."),
            action: rule.action,
        });
        Ok(Self {
            rules: rules.collect(),
            honour_is_masked: mask.honour_is_masked,
            key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret().as_bytes())),
            fingerprint: fingerprint(mask),
        })
    }

    /// The same for equal masks, whatever their key is: it tells whether an event was masked by these already.
    pub(crate) fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    /// The entry with its fields masked; the same one where there is nothing to mask.
    pub(crate) fn apply(&self, entry: Entry) -> Entry {
        let (api, is_event) = match &entry {
            Entry::Event(event) => (Some(event.api()), true),
            Entry::Malformed(_) => (None, false),
        };
        let masked = if is_event || json::is_json(entry.raw()) {
            self.masked(entry.raw(), api)
        } else {
            Some(format!("\"{HIDDEN} no JSON, so its fields cannot be masked\""))
        };
        match masked {
            Some(raw) => entry.rewritten(raw),
            None => entry,
        }
    }

    /// The text of an entry, which is JSON, masked; `None` where nothing changes.
    fn masked(&self, raw: &str, api: Option<ApiVersion>) -> Option<String> {
        let mut walk = Walk { masks: self, api, path: String::new(), roots: vec![0] };
        let mut edits = Vec::new();
        let start = json::skip_space(raw, 0);
        walk.value(raw, start..raw.trim_end().len(), Level::Envelope, 0, &mut edits);
        (!edits.is_empty()).then(|| json::edited(raw, &edits))
    }

    /// The strictest of the rules for a path; `roots` are the places in it at which a path may start.
    fn action(&self, path: &str, roots: &[usize]) -> Option<MaskAction> {
        let hits = self.rules.iter().filter(|rule| {
            let roots = if rule.anchored { &roots[..1] } else { roots };
            roots.iter().any(|root| path.get(*root..).is_some_and(|path| rule.path.matches(path)))
        });
        hits.map(|rule| rule.action).max()
    }

    /// What stands for a scalar, an object or an array; `None`: it stays.
    fn mask(&self, value: &str, action: MaskAction) -> Option<String> {
        let said = if value.starts_with('"') { json::decode(value) } else { Cow::Borrowed(value) };
        let nothing = value == "null" || said.is_empty();
        let mut out = String::with_capacity(36);
        match action {
            _ if nothing => return None,
            // "No interaction" has to stay recognisable: it must not become a key.
            MaskAction::Hash if said == "0" => return None,
            MaskAction::Hash => match &self.key {
                Some(key) => {
                    let tag = hmac::sign(key, said.as_bytes());
                    out.push('"');
                    for byte in &tag.as_ref()[..16] {
                        out.push_str(&format!("{byte:02x}"));
                    }
                    out.push('"');
                }
                None => json::push_literal(&mut out, HIDDEN),
            },
            MaskAction::Last4 if !value.starts_with(['{', '[']) => {
                json::push_literal(&mut out, &format!("{HIDDEN}{}", last_four(&said)));
            }
            MaskAction::Last4 | MaskAction::Redact | MaskAction::Drop => {
                json::push_literal(&mut out, HIDDEN);
            }
        }
        Some(out)
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks").field("rules", &self.rules).finish_non_exhaustive()
    }
}

fn fingerprint(mask: &Mask) -> Arc<str> {
    let mut text = format!("{}", mask.honour_is_masked);
    for rule in &mask.rules {
        text.push_str(&format!("\n{} {}", rule.path, rule.action.word()));
    }
    format!("{:016x}", xxh3_64(text.as_bytes())).into()
}

/// The last four characters of a text that hides at least three others.
fn last_four(text: &str) -> &str {
    let from_end = |count: usize| text.char_indices().rev().nth(count - 1).map(|(at, _)| at);
    match (from_end(7), from_end(4)) {
        (Some(_), Some(at)) => &text[at..],
        _ => "",
    }
}

/// Whose members an object has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Envelope,
    Payload,
    Deeper,
}

impl Level {
    /// Of the value of a member.
    fn below(self, name: &str) -> Self {
        if self == Self::Envelope && name == "payload" { Self::Payload } else { Self::Deeper }
    }
}

/// A walk through an entry's text.
struct Walk<'m> {
    masks: &'m Masks,
    api: Option<ApiVersion>,
    path: String,
    /// Where in `path` a rule's path may start: at the envelope, its payload, the payload inside that.
    roots: Vec<usize>,
}

impl Walk<'_> {
    /// Masks what is in the value at `place` of `text`.
    fn value(&mut self, text: &str, place: Range<usize>, level: Level, depth: usize, edits: &mut Vec<Edit>) {
        let value = &text[place.clone()];
        match value.as_bytes().first() {
            Some(b'{' | b'[') if depth == DEEPEST => hide(place, edits),
            Some(b'{') => self.object(text, place.start, level, depth, edits),
            Some(b'[') => {
                for element in json::elements(text, place.start) {
                    self.value(text, element, level, depth + 1, edits);
                }
            }
            Some(b'"') => self.string(value, place, level, depth, edits),
            _ => {}
        }
    }

    fn object(&mut self, text: &str, at: usize, level: Level, depth: usize, edits: &mut Vec<Edit>) {
        let members: Vec<Member> = json::members(text, at).collect();
        let is_masked = self.masks.honour_is_masked && members.iter().any(|member| says_masked(text, member));
        let mut dropped = vec![false; members.len()];
        for (index, member) in members.iter().enumerate() {
            let name = json::decode(&text[member.name.clone()]);
            let value = &text[member.value.clone()];
            if level == Level::Envelope && self.is_identity(&name) && !value.starts_with(['{', '[']) {
                continue;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(&name);
            let known_roots = self.roots.len();
            let action = self.masks.action(&self.path, &self.roots);
            let action = action.or((is_masked && name == "value").then_some(MaskAction::Redact));
            match action {
                Some(MaskAction::Drop) => dropped[index] = true,
                Some(action) => self.mask(text, member.value.clone(), action, edits),
                None => {
                    if name == "payload" && level != Level::Deeper {
                        self.roots.push(self.path.len() + 1);
                    }
                    self.value(text, member.value.clone(), level.below(&name), depth + 1, edits);
                }
            }
            self.roots.truncate(known_roots);
            self.path.truncate(length);
        }
        if dropped.contains(&true) {
            drop_members(&members, &dropped, edits);
        }
    }

    /// Whether a field of the envelope is one by which the event is known.
    fn is_identity(&self, name: &str) -> bool {
        match name {
            "eventId" | "eventType" | "publishedTime" => true,
            "id" | "type" => self.api != Some(ApiVersion::V3),
            _ => false,
        }
    }

    /// Masks a value; of an array each element.
    fn mask(&self, text: &str, place: Range<usize>, action: MaskAction, edits: &mut Vec<Edit>) {
        let value = &text[place.clone()];
        if value.starts_with('[') {
            for element in json::elements(text, place.start) {
                self.mask(text, element, action, edits);
            }
        } else if let Some(text) = self.masks.mask(value, action) {
            edits.push(Edit { place, text });
        }
    }

    /// A string may hold JSON, as the payload does: then its members are masked inside it.
    fn string(
        &mut self,
        literal: &str,
        place: Range<usize>,
        level: Level,
        depth: usize,
        edits: &mut Vec<Edit>,
    ) {
        let said = json::decode(literal);
        let content = said.trim_matches([' ', '\t', '\n', '\r']);
        let is_json = content.starts_with(['{', '[', '"']) && json::is_json(content);
        if !is_json {
            // Numbers, `true` and the like have no fields. Other text might have some that nobody can find.
            if level != Level::Deeper && !content.is_empty() && !json::is_json(content) {
                hide(place, edits);
            }
            return;
        }
        if depth == DEEPEST {
            return hide(place, edits);
        }
        let start = json::skip_space(&said, 0);
        let mut inside = Vec::new();
        self.value(&said, start..start + content.len(), level, depth + 1, &mut inside);
        let ends: Vec<usize> = inside.iter().flat_map(|edit| [edit.place.start, edit.place.end]).collect();
        let ends = json::places_in_literal(json::inner(literal), &ends);
        for (edit, ends) in inside.iter().zip(ends.chunks_exact(2)) {
            let from = place.start + 1;
            let mut text = String::with_capacity(edit.text.len() + 8);
            json::push_escaped(&mut text, &edit.text);
            edits.push(Edit { place: from + ends[0]..from + ends[1], text });
        }
    }
}

fn hide(place: Range<usize>, edits: &mut Vec<Edit>) {
    edits.push(Edit { place, text: format!("\"{HIDDEN}\"") });
}

/// Whether this is an `isMasked` that does not clearly say no.
fn says_masked(text: &str, member: &Member) -> bool {
    json::is_name(&text[member.name.clone()], "isMasked")
        && !matches!(&text[member.value.clone()], "false" | "null" | "0" | "\"false\"" | "\"0\"" | "\"\"")
}

/// Takes members out, each with one of the commas beside it. `edits` has the changes of the members that stay; those of
/// the ones that go are none, so the order by place is made again.
fn drop_members(members: &[Member], dropped: &[bool], edits: &mut Vec<Edit>) {
    let last_kept = dropped.iter().rposition(|dropped| !dropped);
    for (index, member) in members.iter().enumerate().filter(|(index, _)| dropped[*index]) {
        let start = match last_kept {
            // Behind the last one that stays, the comma before goes.
            Some(last) if index > last => members[index - 1].value.end,
            _ => member.name.start,
        };
        let end = match members.get(index + 1) {
            Some(next) if last_kept.is_some_and(|last| index < last) => next.name.start,
            // Nothing stays: the comma behind goes, if there is one.
            Some(next) if last_kept.is_none() => next.name.start,
            _ => member.value.end,
        };
        edits.push(Edit { place: start..end, text: String::new() });
    }
    edits.sort_by_key(|edit| edit.place.start);
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
