//! String literals of JSON, decoded without ever failing.

use std::borrow::Cow;

use memchr::memchr;

use crate::event::{Span, Text};

/// The value of `literal`, a string literal with its quotes that is a slice of `body`.
pub(crate) fn text_of(literal: &str, body: &str) -> Text {
    let inner = inner_of(literal);
    if has_escapes(inner) { Text::Owned(decode_lossily(inner)) } else { Text::Span(Span::of(inner, body)) }
}

/// The value of a string literal with its quotes.
///
/// An escape that is no Unicode scalar value (a lone surrogate such as `\ud800`, which serde_json refuses) becomes
/// U+FFFD: one odd character must not hold back an event.
pub(crate) fn decode(literal: &str) -> Cow<'_, str> {
    let inner = inner_of(literal);
    if !has_escapes(inner) {
        return Cow::Borrowed(inner);
    }
    Cow::Owned(decode_lossily(inner))
}

fn has_escapes(inner: &str) -> bool {
    memchr(b'\\', inner.as_bytes()).is_some()
}

fn inner_of(literal: &str) -> &str {
    literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(literal)
}

fn decode_lossily(inner: &str) -> String {
    // Nothing gets longer by decoding it.
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    // What stands behind an escape that stands for itself is copied together with it.
    let mut from = 0;
    while let Some(at) = memchr(b'\\', &rest.as_bytes()[from..]).map(|at| from + at) {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        from = 0;
        let Some(escape) = rest.chars().next() else { break };
        let decoded = match escape {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let (decoded, after) = decode_unit(&rest[1..]);
                out.push(decoded);
                rest = after;
                continue;
            }
            itself => {
                from = itself.len_utf8();
                continue;
            }
        };
        out.push(decoded);
        rest = &rest[1..];
    }
    out.push_str(rest);
    out
}

/// What stands behind `\u`: one code unit, or two that make a pair.
pub(crate) fn decode_unit(rest: &str) -> (char, &str) {
    let Some((unit, after)) = hex4(rest) else { return (char::REPLACEMENT_CHARACTER, rest) };
    if (0xD800..0xDC00).contains(&unit)
        && let Some((low, after_pair)) = after.strip_prefix("\\u").and_then(hex4)
        && (0xDC00..0xE000).contains(&low)
    {
        let scalar = 0x10000 + ((u32::from(unit) - 0xD800) << 10) + (u32::from(low) - 0xDC00);
        return (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), after_pair);
    }
    (char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER), after)
}

fn hex4(text: &str) -> Option<(u16, &str)> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    Some((u16::from_str_radix(digits, 16).ok()?, &text[4..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lone_surrogate_becomes_the_replacement_character() {
        assert_eq!(decode(r#""a\ud800b""#), "a\u{fffd}b");
        assert_eq!(decode(r#""\udc00""#), "\u{fffd}");
        assert_eq!(decode(r#""\ud800\n\ud83d\ude00""#), "\u{fffd}\n😀");
        assert_eq!(decode(r#""\ud800\ud800\udc00""#), "\u{fffd}\u{10000}");
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json_where_that_can_decode(text in any::<String>()) {
            let literal = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(decode(&literal), text.as_str());
            prop_assert_eq!(decode_lossily(inner_of(&literal)), text);
        }

        #[test]
        fn never_fails(inner in r#"[a\\u0-9dD8{}"é]{0,24}"#) {
            let _ = decode_lossily(&inner);
        }
    }
}
