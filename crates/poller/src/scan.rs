//! Valid JSON walked through without being made into anything: one pass, from quote to quote.
//!
//! A scanner is sure of what it accepts and gives up early: `None` says nothing about the text. Whoever gets it asks
//! `serde_json`, which also knows what is wrong.

use crate::json_text::decode_unit;

/// Objects and lists in each other; serde_json ends at 128.
const MAX_DEPTH: usize = 64;

/// A place in a text that may be JSON.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Where a string with escapes is decoded; kept, so that it grows once.
    decoded: Vec<u8>,
}

impl<'a> Scanner<'a> {
    /// At the start of `text`.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, decoded: Vec::new() }
    }

    /// The next character that is no white space, not taken.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let b' ' | b'\t' | b'\n' | b'\r' = *bytes.get(self.at)? {
            self.at += 1;
        }
        Some(bytes[self.at])
    }

    /// Takes `wanted`, if that is next.
    pub fn take(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    /// Nothing but white space is left.
    pub fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    /// How far it is, in bytes.
    #[must_use]
    pub fn place(&self) -> usize {
        self.at
    }

    /// Takes an object, member by member: `each` is given the literal of the name, and has to take the value.
    pub fn object(&mut self, mut each: impl FnMut(&'a str, &mut Self) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.take(b':')?;
            each(name, self)?;
            if self.another(b'}')? {
                continue;
            }
            return Some(());
        }
    }

    /// Takes a list, element by element: `each` has to take it.
    pub fn list(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            each(self)?;
            if self.another(b']')? {
                continue;
            }
            return Some(());
        }
    }

    /// Behind a member or an element: a comma, or the `end`.
    fn another(&mut self, end: u8) -> Option<bool> {
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Some(true),
            next => (next == end).then_some(false),
        }
    }

    /// Takes a value, and gives its text.
    pub fn value(&mut self) -> Option<&'a str> {
        self.peek()?;
        let start = self.at;
        self.skip(0)?;
        Some(&self.text[start..self.at])
    }

    fn skip(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.object(|_, scanner| scanner.skip(depth + 1)),
            b'[' => self.list(|scanner| scanner.skip(depth + 1)),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.as_bytes()[self.at..].starts_with(word.as_bytes()).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut length = usize::from(rest[0] == b'-');
        let whole = digits(length);
        if whole == 0 || (whole > 1 && rest[length] == b'0') {
            return None;
        }
        length += whole;
        if rest.get(length) == Some(&b'.') {
            let fraction = digits(length + 1);
            if fraction == 0 {
                return None;
            }
            length += 1 + fraction;
        }
        if let Some(b'e' | b'E') = rest.get(length) {
            length += 1 + usize::from(matches!(rest.get(length + 1), Some(b'+' | b'-')));
            let exponent = rest.get(length..).map_or(0, |_| digits(length));
            if exponent == 0 {
                return None;
            }
            length += exponent;
        }
        self.at += length;
        Some(())
    }

    /// Takes a string, and gives its literal, with the quotes.
    pub fn string(&mut self) -> Option<&'a str> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.at - 1;
        let mut at = self.at;
        loop {
            at = next_special(bytes, at)?;
            at += match bytes[at] {
                b'"' => break,
                b'\\' => match *bytes.get(at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                    _ => return None,
                },
                // A control character.
                _ => return None,
            };
        }
        self.at = at + 1;
        Some(&self.text[start..=at])
    }

    /// Takes a string, gives its literal with the quotes, and what it says where that is something else.
    ///
    /// The same as [`Scanner::string`] and [`crate::json_text::decode`] after it, in one pass: a payload is a string of
    /// JSON, with an escape every few bytes.
    pub(crate) fn string_decoded(&mut self) -> Option<(&'a str, Option<String>)> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.at - 1;
        let (mut at, mut length, mut escapes) = (self.at, 0, false);
        let out = &mut self.decoded;
        loop {
            // Eight bytes and a long piece; or seven, and an escape, which stands for up to four.
            if out.len() < length + 8 + LONG {
                out.resize((2 * out.len()).max(1024), 0);
            }
            if let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
                // All eight are copied, whatever of them counts: that is one store.
                out[length..length + 8].copy_from_slice(eight);
                let special = specials(*eight);
                if special == 0 {
                    (at, length) = (at + 8, length + 8);
                    // Where eight are plain, more may be: names are short, and texts are not.
                    if let Some(long) = bytes[at..].first_chunk::<LONG>().filter(|long| is_plain(long)) {
                        out[length..length + LONG].copy_from_slice(long);
                        (at, length) = (at + LONG, length + LONG);
                    }
                    continue;
                }
                let plain = special.trailing_zeros() as usize / 8;
                (at, length) = (at + plain, length + plain);
            }
            match *bytes.get(at)? {
                b'"' => break,
                b'\\' => {
                    escapes = true;
                    out[length] = match *bytes.get(at + 1)? {
                        itself @ (b'"' | b'\\' | b'/') => itself,
                        b'b' => 0x8,
                        b'f' => 0xc,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => {
                            let (decoded, rest) = decode_unit(&self.text[at + 2..]);
                            length += decoded.encode_utf8(&mut out[length..]).len();
                            at = bytes.len() - rest.len();
                            continue;
                        }
                        _ => return None,
                    };
                    (at, length) = (at + 2, length + 1);
                }
                // A control character.
                ..0x20 => return None,
                // Near the end of the text, where there are no eight bytes any more.
                plain => {
                    out[length] = plain;
                    (at, length) = (at + 1, length + 1);
                }
            }
        }
        self.at = at + 1;
        let literal = &self.text[start..=at];
        if !escapes {
            return Some((literal, None));
        }
        // It is made of pieces of a string and of characters.
        let decoded = std::str::from_utf8(&out[..length]).ok()?;
        Some((literal, Some(decoded.to_owned())))
    }
}

/// Where the next quote, backslash or control character stands. Eight bytes at a time: strings of JSON are short, and a
/// wider search takes longer to begin than most of them take to end.
fn next_special(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let special = specials(*eight);
        if special != 0 {
            return Some(at + special.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?;
    rest.iter().position(|&byte| matches!(byte, b'"' | b'\\' | ..0x20)).map(|offset| at + offset)
}

/// As many bytes as are looked at together in a long text.
const LONG: usize = 16;

/// Without a branch, so that it becomes a few vector instructions.
fn is_plain(long: &[u8; LONG]) -> bool {
    let special = |&byte: &u8| u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
    long.iter().map(special).fold(0, |any, special| any | special) == 0
}

/// The highest bit of the first byte that is a quote, a backslash or a control character; above it bits may be set without
/// reason.
fn specials(eight: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ONES << 7;
    let eight = u64::from_le_bytes(eight);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(eight ^ (ONES * u64::from(b'"')));
    let backslash = zero(eight ^ (ONES * u64::from(b'\\')));
    let control = eight.wrapping_sub(ONES * 0x20) & !eight;
    (quote | backslash | control) & HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;
    use serde_json::value::RawValue;

    use super::*;

    /// The value of a text that is nothing else.
    fn whole(text: &str) -> Option<&str> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value()?;
        scanner.end()?;
        Some(value)
    }

    fn is_json(text: &str) -> bool {
        serde_json::from_str::<IgnoredAny>(text).is_ok()
    }

    #[test]
    fn it_takes_what_is_json_and_nothing_else() {
        let good = [
            "null",
            " true ",
            "false",
            "0",
            "-0",
            "12.50",
            "1e5",
            "-1.5E-10",
            "\"\"",
            r#""a\"b\\\u00e9\ud800""#,
            "[]",
            "{}",
            "[1,[2,{\"a\":[]}]]",
            "{\"a\":{\"b\":\"c\"},\n \"a\":null}",
            "\"é\u{7f}\"",
        ];
        for text in good {
            assert!(is_json(text), "{text}");
            assert_eq!(whole(text), Some(text.trim()), "{text}");
        }
        let bad = [
            "",
            "nul",
            "tru e",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "[1,]",
            "[1 2]",
            "{a:1}",
            "{\"a\"}",
            "{\"a\":1,}",
            "[",
            "{\"a\":",
            "1 2",
            "\"\\",
            "\"\\u00\"",
            "\u{a0}1",
        ];
        for text in bad {
            assert!(!is_json(text), "{text}");
            assert_eq!(whole(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_too_deep_is_left_to_others() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(whole(&nested(MAX_DEPTH)).is_some());
        assert!(whole(&nested(MAX_DEPTH + 2)).is_none());
    }

    #[test]
    fn an_escape_may_stand_wherever_the_buffer_ends() {
        for escape in ["\\\"", "\\n", "\\u00e9", "\\u20ac", "\\ud83d\\ude00", "\\ud800"] {
            for before in (1000..1040).chain(2030..2060) {
                let text = format!("\"{}{escape}{escape}z\"", "a".repeat(before));
                let (literal, decoded) = Scanner::new(&text).string_decoded().expect("it is a string");
                assert_eq!(literal, text);
                assert_eq!(
                    decoded.as_deref(),
                    Some(&*crate::json_text::decode(&text)),
                    "{escape} behind {before}"
                );
            }
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_accepts_what_serde_json_writes(value in json(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            prop_assert_eq!(whole(&text), Some(text.as_str()));
        }

        #[test]
        fn what_a_string_says_is_what_its_literal_decodes_to(text in any::<String>(), inner in r#"([a-z é"]|[a-zé]{7,40}|\\\\[nbt"/\\\\]|\\\\u(d83d|de00|0041|12)|\x01){0,12}"#, behind in "[ a,\"]{0,9}") {
            for literal in [serde_json::to_string(&text).unwrap(), format!("\"{inner}\"")] {
                let text = format!(" {literal}{behind}");
                let (mut one, mut other) = (Scanner::new(&text), Scanner::new(&text));
                let taken = one.string_decoded();
                prop_assert_eq!(taken.as_ref().map(|(literal, _)| *literal), other.string());
                if let Some((literal, decoded)) = taken {
                    prop_assert_eq!(one.place(), other.place());
                    let expected = crate::json_text::decode(literal);
                    prop_assert_eq!(decoded.is_some(), literal.contains('\\'));
                    prop_assert_eq!(decoded.as_deref().unwrap_or(&literal[1..literal.len() - 1]), &*expected);
                }
            }
        }

        #[test]
        fn what_it_accepts_is_json(value in json(), at in any::<prop::sample::Index>(), piece in "[\\x00-\\x7fé]{0,3}", cut in 0usize..3) {
            let mut text: Vec<char> = value.to_string().chars().collect();
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.splice(at..end, piece.chars());
            let text: String = text.into_iter().collect();
            if let Some(value) = whole(&text) {
                let raw: &RawValue = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(value, raw.get());
            }
        }

        #[test]
        fn what_it_accepts_of_soup_is_json(text in r#"[{}\[\]",:\\0-9eE+\-.untrfals /\x01é]{0,24}"#) {
            prop_assert_eq!(whole(&text).is_some(), is_json(&text));
        }
    }
}
