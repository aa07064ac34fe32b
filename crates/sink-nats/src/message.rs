//! What goes over the wire: the headers of a record.
//!
//! A NATS header line ends at CR LF and cannot hold either. Values of the CloudEvents attributes are percent-encoded as
//! the CloudEvents NATS protocol binding says (by the rule of its HTTP binding, 3.1.3.2): everything but printable
//! ASCII, and the characters space, `"` and `%`. All other values stand as they are, save for control characters,
//! which are percent-encoded too, because a value must never end its line. A record's key has no place of its own on
//! NATS; it stands in `ce-subject`. The record's timestamp has none at all: the server stamps messages itself.

use std::borrow::Cow;
use std::fmt::Write as _;

use async_nats::{HeaderMap, HeaderName as NatsHeaderName, HeaderValue, header};
use viaduct_sink::{Header, HeaderName, Record};

/// The headers of a record that is published by itself; `None` where one of its names cannot be a NATS header's.
pub(crate) fn headers(record: &Record, stream: &str) -> Option<HeaderMap> {
    let mut headers = headers_in_batch(record, stream)?;
    headers.insert(header::NATS_MESSAGE_ID, encoded(&record.message_id, char::is_control).as_ref());
    Some(headers)
}

/// The same without `Nats-Msg-Id`: in an atomic batch one id that is stored already rejects the whole batch, for ever.
pub(crate) fn headers_in_batch(record: &Record, stream: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for field in fields(record) {
        let (name, value) = field?;
        headers.append(name, HeaderValue::from(value.as_ref()));
    }
    headers.insert(header::NATS_EXPECTED_STREAM, stream);
    Some(headers)
}

/// How many bytes [`headers_in_batch`] are on the wire, without making them.
pub(crate) fn length_in_batch(record: &Record, stream: &str) -> Option<usize> {
    let mut length = EMPTY + line_length(&header::NATS_EXPECTED_STREAM, stream);
    for field in fields(record) {
        let (name, value) = field?;
        length += line_length(&name, &value);
    }
    Some(length)
}

/// The record's own headers as NATS has them; `None` for one whose name cannot be a NATS header's.
fn fields(record: &Record) -> impl Iterator<Item = Option<(NatsHeaderName, Cow<'_, str>)>> {
    record.headers.iter().map(|Header { name, value }| {
        // The first two kinds occur once, and their names are known to be good.
        Some(match name {
            HeaderName::CloudEvent(attribute) => {
                let special = |c| !matches!(c, '!'..='~') || c == '"' || c == '%';
                (NatsHeaderName::from_static(attribute.nats()), encoded(value, special))
            }
            HeaderName::ContentType => {
                (NatsHeaderName::from_static("content-type"), encoded(value, char::is_control))
            }
            HeaderName::Literal(name) => {
                (NatsHeaderName::try_from(&**name).ok()?, encoded(value, char::is_control))
            }
        })
    })
}

/// What headers without a line take on the wire.
const EMPTY: usize = "NATS/1.0\r\n".len() + "\r\n".len();

/// How many bytes a line of headers is on the wire.
pub(crate) fn line_length(name: &NatsHeaderName, value: &str) -> usize {
    AsRef::<str>::as_ref(name).len() + ": ".len() + value.len() + "\r\n".len()
}

/// How many bytes headers are on the wire.
pub(crate) fn wire_length(headers: &HeaderMap) -> usize {
    let lines = headers
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| line_length(name, value.as_str())));
    EMPTY + lines.sum::<usize>()
}

fn encoded(value: &str, special: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !value.contains(&special) {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len() + 16);
    for c in value.chars() {
        if !special(c) {
            out.push(c);
            continue;
        }
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            write!(out, "%{byte:02X}").expect("a string takes everything");
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use viaduct_sink::Attribute;

    use super::*;

    fn record(headers: Vec<(HeaderName, &str)>) -> Record {
        Record {
            destination: "via.x".into(),
            key: None,
            headers: headers.into_iter().map(|(name, value)| Header { name, value: value.into() }).collect(),
            value: Bytes::from_static(b"{}"),
            timestamp_ms: None,
            message_id: "acme.1.00".into(),
            event: "acme.1.00".into(),
        }
    }

    #[test]
    fn values_never_break_their_line() {
        let subject = HeaderName::CloudEvent(Attribute::Subject);
        let literal = HeaderName::Literal("viaduct-reason".into());
        let headers = headers(&record(vec![(subject, "50% ü\r\nX: 1"), (literal, "a b\nc ü")]), "VIA")
            .expect("good names");
        assert_eq!(headers.get("ce-subject").map(HeaderValue::as_str), Some("50%25%20%C3%BC%0D%0AX:%201"));
        assert_eq!(headers.get("viaduct-reason").map(HeaderValue::as_str), Some("a b%0Ac ü"));
        assert_eq!(headers.get("Nats-Msg-Id").map(HeaderValue::as_str), Some("acme.1.00"));
        assert_eq!(headers.get("Nats-Expected-Stream").map(HeaderValue::as_str), Some("VIA"));
    }

    #[test]
    fn the_length_is_known_beforehand() {
        let literal = |name: &str| HeaderName::Literal(name.into());
        let fields = vec![
            (HeaderName::CloudEvent(Attribute::Subject), "50% ü\r\nX: 1"),
            (HeaderName::ContentType, "application/json"),
            (literal("viaduct-reason"), "a b\nc ü"),
            (literal("viaduct-reason"), "twice"),
        ];
        let record = record(fields);
        let headers = headers_in_batch(&record, "VIA").expect("good names");
        assert_eq!(length_in_batch(&record, "VIA"), Some(wire_length(&headers)));
    }

    #[test]
    fn a_name_that_nats_cannot_have_is_seen() {
        let record = record(vec![(HeaderName::Literal("a:b".into()), "x")]);
        assert!(headers(&record, "VIA").is_none());
        assert!(length_in_batch(&record, "VIA").is_none());
    }
}
