//! JSON text looked at without being parsed into values: where its members and strings are, and what they say.
//!
//! All functions expect valid JSON (somebody has parsed it already). Of anything else they see less or nothing; they
//! never panic.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::IgnoredAny;

/// Whether `text` is JSON, whatever JSON it is. Escapes that are no character (`\ud800`) are grammatical, and fine.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// A member of an object, by its place in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The name, with its quotes.
    pub(super) name: Range<usize>,
    /// The value.
    pub(super) value: Range<usize>,
}

/// The members of the object at `at`, in order.
pub(super) fn members(text: &str, at: usize) -> impl Iterator<Item = Member> + '_ {
    let mut at = skip_space(text, at + 1);
    std::iter::from_fn(move || {
        let name = at..string_end(text, at)?;
        let colon = skip_space(text, name.end);
        let value = value_at(text, skip_space(text, colon + 1))?;
        at = after_comma(text, value.end);
        Some(Member { name, value })
    })
}

/// The elements of the array at `at`, in order.
pub(super) fn elements(text: &str, at: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = skip_space(text, at + 1);
    std::iter::from_fn(move || {
        let value = value_at(text, at)?;
        at = after_comma(text, value.end);
        Some(value)
    })
}

/// Where the first character that is no white space stands at or behind `at`.
pub(super) fn skip_space(text: &str, at: usize) -> usize {
    let rest = text.as_bytes().get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

fn after_comma(text: &str, at: usize) -> usize {
    let at = skip_space(text, at);
    if text.as_bytes().get(at) == Some(&b',') { skip_space(text, at + 1) } else { text.len() }
}

/// The value that starts at `at`.
fn value_at(text: &str, at: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let end = match bytes.get(at)? {
        b'"' => string_end(text, at)?,
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut here = at;
            loop {
                match bytes.get(here)? {
                    b'"' => {
                        here = string_end(text, here)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                here += 1;
                if depth == 0 {
                    break here;
                }
            }
        }
        b'}' | b']' | b',' | b':' => return None,
        _ => {
            let rest = &bytes[at..];
            let length = rest.iter().position(|byte| b",]} \t\r\n".contains(byte)).unwrap_or(rest.len());
            at + length
        }
    };
    Some(at..end)
}

/// Just behind the string literal that starts at `at`.
fn string_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// What a string literal (with its quotes) says. An escape that is no Unicode character becomes U+FFFD, as in the
/// poller: one odd character must not hold back an event.
pub(super) fn decode(literal: &str) -> Cow<'_, str> {
    let inner = inner(literal);
    if inner.contains('\\') {
        Cow::Owned(Units(inner).map(|(_, character)| character).collect())
    } else {
        Cow::Borrowed(inner)
    }
}

/// What stands between the quotes of a literal.
pub(super) fn inner(literal: &str) -> &str {
    literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(literal)
}

/// Whether the name literal (with its quotes) says `name`.
pub(super) fn is_name(literal: &str, name: &str) -> bool {
    let plain = inner(literal);
    // An escape is longer than what it says.
    plain == name || (plain.len() > name.len() && plain.contains('\\') && decode(literal) == name)
}

/// Translates places in what a literal says (ascending) to places in the text between its quotes.
pub(super) fn places_in_literal(inner: &str, decoded: &[usize]) -> Vec<usize> {
    let mut wanted = decoded.iter().peekable();
    let mut places = Vec::with_capacity(decoded.len());
    let (mut raw, mut said) = (0, 0);
    for (length, character) in Units(inner) {
        while wanted.next_if(|place| **place <= said).is_some() {
            places.push(raw);
        }
        raw += length;
        said += character.len_utf8();
    }
    places.extend(wanted.map(|_| raw));
    places
}

/// The characters of a literal, each with the length of the text that says it.
struct Units<'t>(&'t str);

impl Iterator for Units<'_> {
    type Item = (usize, char);

    fn next(&mut self) -> Option<(usize, char)> {
        let first = self.0.chars().next()?;
        let (length, character) = match first {
            '\\' => escape(self.0),
            other => (other.len_utf8(), other),
        };
        self.0 = self.0.get(length..).unwrap_or_default();
        Some((length, character))
    }
}

/// The escape at the start of `text`: its length, and what it says.
fn escape(text: &str) -> (usize, char) {
    let Some(kind) = text[1..].chars().next() else { return (1, char::REPLACEMENT_CHARACTER) };
    match kind {
        'b' => (2, '\u{8}'),
        'f' => (2, '\u{c}'),
        'n' => (2, '\n'),
        'r' => (2, '\r'),
        't' => (2, '\t'),
        'u' => unicode(text),
        other => (1 + other.len_utf8(), other),
    }
}

fn unicode(text: &str) -> (usize, char) {
    let Some(unit) = hex4(text, 2) else { return (2, char::REPLACEMENT_CHARACTER) };
    if (0xD800..0xDC00).contains(&unit)
        && text.get(6..8) == Some("\\u")
        && let Some(low) = hex4(text, 8).filter(|low| (0xDC00..0xE000).contains(low))
    {
        let scalar = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        return (12, char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    (6, char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER))
}

fn hex4(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

/// Appends `text` as a string literal, with its quotes.
pub(super) fn push_literal(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Appends `text` as it stands between the quotes of a string literal.
pub(super) fn push_escaped(out: &mut String, text: &str) {
    let special = |c: char| c == '"' || c == '\\' || c < ' ';
    let mut rest = text;
    while let Some(at) = rest.find(special) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.push_str("\\u00");
                out.push(char::from(DIGITS[usize::from(control >> 4)]));
                out.push(char::from(DIGITS[usize::from(control & 15)]));
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// A change of a text: what stands at `place` gives way to `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) place: Range<usize>,
    pub(super) text: String,
}

/// `text` with the edits, which are in order and do not overlap. All else stays byte for byte.
pub(super) fn edited(text: &str, edits: &[Edit]) -> String {
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut out = String::with_capacity(text.len() + added);
    let mut at = 0;
    for edit in edits {
        out.push_str(&text[at..edit.place.start]);
        out.push_str(&edit.text);
        at = edit.place.end;
    }
    out.push_str(&text[at..]);
    out
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn members_and_elements_are_found_where_they_stand() {
        let text = r#" { "a" : 1.0,"b\u0022":[1, "x]" ,{}], "c":{"d":"}"} } "#;
        let found: Vec<_> = members(text, 1).map(|m| (&text[m.name], &text[m.value])).collect();
        assert_eq!(
            found,
            [("\"a\"", "1.0"), (r#""b\u0022""#, r#"[1, "x]" ,{}]"#), ("\"c\"", r#"{"d":"}"}"#)]
        );
        let list = r#"[1, "x]" ,{} ,[ ]]"#;
        let found: Vec<_> = elements(list, 0).map(|place| &list[place]).collect();
        assert_eq!(found, ["1", "\"x]\"", "{}", "[ ]"]);
        assert_eq!(members("{ }", 0).count() + elements("[ ]", 0).count(), 0);
    }

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        assert_eq!(decode(r#""a\ud800b""#), "a\u{fffd}b");
        assert_eq!(decode(r#""\ud800\n\ud83d\ude00""#), "\u{fffd}\n😀");
        assert_eq!(decode(r#""\ud800\ud800\udc00""#), "\u{fffd}\u{10000}");
    }

    /// Any JSON, with odd white space and escapes.
    pub(in crate::routing) fn json() -> impl Strategy<Value = String> {
        let string = r#"([ a-z{}\[\],:é]|\\n|\\"|\\\\|\\u0000|\\ud800|\\ud83d\\ude00){0,6}"#;
        let string = string.prop_map(|inner| format!("\"{inner}\""));
        let leaf = prop_oneof![
            string.clone(),
            prop::sample::select(vec!["null", "true", "0", "-1.50e+3", "12345678901234567890123"])
                .prop_map(str::to_owned),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[{}]", items.join(" , "))),
                prop::collection::vec((string.clone(), inner), 0..4).prop_map(|members| {
                    let members: Vec<_> =
                        members.into_iter().map(|(name, value)| format!("{name} :\n{value}")).collect();
                    format!("{{{} }}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn decoding_and_escaping_agree_with_serde_json(text in any::<String>()) {
            let literal = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(decode(&literal), text.as_str());
            let mut own = String::new();
            push_literal(&mut own, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&own).unwrap(), text);
        }

        #[test]
        fn places_in_a_literal_are_the_places_of_what_it_says(text in any::<String>()) {
            let literal = serde_json::to_string(&text).unwrap();
            let boundaries: Vec<_> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            let places = places_in_literal(inner(&literal), &boundaries);
            for (said, raw) in boundaries.iter().zip(&places) {
                prop_assert_eq!(decode(&inner(&literal)[..*raw]), &text[..*said]);
            }
        }

        #[test]
        fn what_is_found_is_what_serde_json_finds(text in json()) {
            let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(()) };
            match value {
                Value::Object(_) => {
                    let mut found = serde_json::Map::new();
                    for member in members(&text, 0) {
                        let value = serde_json::from_str(&text[member.value]).unwrap();
                        found.insert(decode(&text[member.name]).into_owned(), value);
                    }
                    prop_assert_eq!(Value::Object(found), value);
                }
                Value::Array(_) => {
                    let found = elements(&text, 0).map(|place| serde_json::from_str(&text[place]).unwrap());
                    prop_assert_eq!(Value::Array(found.collect()), value);
                }
                _ => {}
            }
        }

        #[test]
        fn nothing_panics(text in r#"([{}\[\],:"\\]|\\u|d800|a|é| |1){0,24}"#) {
            for at in 0..text.len() {
                let _ = members(&text, at).count() + elements(&text, at).count();
            }
            let _ = decode(&text);
            let _ = places_in_literal(&text, &[0, 3, 9]);
        }
    }
}
