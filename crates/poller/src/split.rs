//! Taking the `events` array of a body apart that is not valid JSON as a whole.
//!
//! The aim: what is broken is isolated in the smallest piece that can be told apart, and everything else flows. Where
//! an entry starts and ends is decided by, in this order: a valid JSON value; brackets and quotes that balance before
//! the next entry; the next place where a valid entry with an id begins.

use serde_json::value::RawValue;

use crate::json_text::decode;
use crate::parse::{Completeness, Unreadable};

/// One element of the array.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Valid(&'a str),
    Broken { raw: &'a str, detail: &'static str },
}

/// Most places at which a resynchronisation is tried, so that a hostile body costs bounded time.
const MAX_RESYNC_ATTEMPTS: usize = 4096;

/// Splits the array. `id_key` names the field that marks an entry.
pub(crate) fn split<'a>(
    body: &'a str,
    id_key: &str,
    completeness: Completeness,
) -> Result<Vec<Piece<'a>>, Unreadable> {
    let mut at = start_of_events(body).ok_or(Unreadable::NotJson)?;
    let cut = completeness == Completeness::Cut;
    let mut pieces = Vec::new();
    let mut attempts = MAX_RESYNC_ATTEMPTS;
    loop {
        at = skip(body, at, |byte| byte.is_ascii_whitespace() || byte == b',');
        match body.as_bytes().get(at) {
            Some(b']') if array_ends(body, at) => return Ok(pieces),
            None if cut => return Ok(pieces),
            None => return Err(Unreadable::Cut),
            Some(_) => {}
        }
        if let Some(end) = valid_value(body, at) {
            pieces.push(Piece::Valid(&body[at..end]));
            at = end;
            continue;
        }
        let end = balanced_entry(body, at, id_key)
            .or_else(|| next_entry(body, at, id_key, &mut attempts))
            .or_else(|| if cut { None } else { last_bracket(body, at) });
        let (end, detail) = match end {
            Some(end) => (end, "the entry is not valid JSON"),
            None if cut => (body.len(), "the response was cut off within this entry"),
            None => return Err(Unreadable::Cut),
        };
        pieces.push(Piece::Broken { raw: body[at..end].trim_end(), detail });
        at = end;
    }
}

/// The string value of the first field `id_key` in a broken entry.
pub(crate) fn id_in(raw: &str, id_key: &str) -> Option<String> {
    let (_, colon) = find_key(raw, id_key, 0)?;
    let value = skip(raw, colon + 1, |byte| byte.is_ascii_whitespace());
    let end = string_end(raw, value)?;
    let literal = &raw[value..end];
    // A missing quote makes an "id" of everything up to the next one; such an id is none.
    let plausible =
        literal.len() <= 512 && !literal.bytes().any(|byte| byte < b' ' || b"{}[]".contains(&byte));
    plausible.then(|| decode(literal).into_owned())
}

/// Just behind the `[` of `"events": [`.
fn start_of_events(body: &str) -> Option<usize> {
    let mut from = 0;
    while let Some((end, colon)) = find_key(body, "events", from) {
        let bracket = skip(body, colon + 1, |byte| byte.is_ascii_whitespace());
        if body.as_bytes().get(bracket) == Some(&b'[') {
            return Some(bracket + 1);
        }
        from = end;
    }
    None
}

/// The next `"key" :` at or after `from`: the end of the key and the place of the colon.
fn find_key(text: &str, key: &str, from: usize) -> Option<(usize, usize)> {
    let mut from = from;
    while let Some(found) = text.get(from..)?.find(key) {
        let start = from + found;
        let end = start + key.len();
        let bytes = text.as_bytes();
        // Inside a string of JSON the quotes are escaped, so `"key"` with bare quotes is a real key.
        let bare = start > 0
            && bytes[start - 1] == b'"'
            && (start < 2 || bytes[start - 2] != b'\\')
            && bytes.get(end) == Some(&b'"');
        if bare {
            let colon = skip(text, end + 1, |byte| byte.is_ascii_whitespace());
            if bytes.get(colon) == Some(&b':') {
                return Some((end + 1, colon));
            }
        }
        from = end;
    }
    None
}

fn skip(text: &str, from: usize, what: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut at = from.min(bytes.len());
    while at < bytes.len() && what(bytes[at]) {
        at += 1;
    }
    at
}

/// Whether the `]` at `at` is the array's end and not damage: the object ends or goes on behind it.
fn array_ends(body: &str, at: usize) -> bool {
    let next = skip(body, at + 1, |byte| byte.is_ascii_whitespace());
    matches!(body.as_bytes().get(next), None | Some(b'}' | b','))
}

/// The end of the valid JSON value at `at`, if one stands there and the array goes on or ends behind it.
fn valid_value(body: &str, at: usize) -> Option<usize> {
    let mut values = serde_json::Deserializer::from_str(&body[at..]).into_iter::<&RawValue>();
    values.next()?.ok()?;
    let end = at + values.byte_offset();
    let next = skip(body, end, |byte| byte.is_ascii_whitespace());
    matches!(body.as_bytes().get(next), None | Some(b',' | b']' | b'{')).then_some(end)
}

/// The end of a string literal that starts at `at`.
fn string_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The end of a broken entry whose brackets and quotes balance, if that is plausible: behind it another entry starts or
/// the array ends, and it did not swallow a second id.
fn balanced_entry(body: &str, at: usize, id_key: &str) -> Option<usize> {
    let bytes = body.as_bytes();
    let mut depth = 0usize;
    let mut here = at;
    let end = loop {
        match bytes.get(here)? {
            b'"' => {
                here = string_end(body, here)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b']' if depth == 0 => break here,
            b',' if depth == 0 => break here,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    break here + 1;
                }
            }
            _ => {}
        }
        here += 1;
    };
    let next = skip(body, end, |byte| byte.is_ascii_whitespace());
    let goes_on = match bytes.get(next)? {
        b']' => true,
        b',' => bytes.get(skip(body, next + 1, |byte| byte.is_ascii_whitespace())) == Some(&b'{'),
        _ => false,
    };
    let entry = &body[at..end];
    let ids =
        std::iter::successors(find_key(entry, id_key, 0), |(end, _)| find_key(entry, id_key, *end)).count();
    (goes_on && ids <= 1 && end > at).then_some(end)
}

/// Where the next valid entry with an id begins: the broken one ends before its comma.
fn next_entry(body: &str, at: usize, id_key: &str, attempts: &mut usize) -> Option<usize> {
    let mut from = at + 1;
    while let Some(found) = body.get(from..)?.find('{') {
        let start = from + found;
        let before = body[at..start].trim_end();
        if before.ends_with([',', '}']) {
            *attempts = attempts.checked_sub(1)?;
            if let Some(end) = valid_value(body, start)
                && find_key(&body[start..end], id_key, 0).is_some()
            {
                return Some(at + before.trim_end_matches(',').len());
            }
        }
        from = start + 1;
    }
    None
}

/// The last `]`, taken as the end of the array.
fn last_bracket(body: &str, at: usize) -> Option<usize> {
    body[at..].rfind(']').filter(|&len| len > 0).map(|len| at + len)
}
