//! What was confirmed is there, and is what was published.

use std::sync::Arc;

use bytes::Bytes;

use super::offer::{Copies, confirm, publish, record, verify};
use super::{Harness, Observed};
use crate::record::{Attribute, Header, HeaderName};
use crate::{Outcome, Record};

/// The moment a record is confirmed, an independent reader finds it.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn confirmed_is_readable(harness: &dyn Harness) {
    let sink = harness.sink();
    let destination = harness.destination(30).await;
    for round in 0..10 {
        let records: Vec<Record> = (0..5)
            .map(|number| record(&destination, "readable", "one", Some("k"), round * 5 + number))
            .collect();
        let outcomes = publish(&*sink, "readable", &records).await;
        let (confirmed, open): (Vec<_>, Vec<_>) = records
            .into_iter()
            .zip(outcomes)
            .partition(|(_, outcome)| matches!(outcome, Outcome::Confirmed(_)));
        let confirmed: Vec<Record> = confirmed.into_iter().map(|(record, _)| record).collect();
        let open: Vec<Record> = open.into_iter().map(|(record, _)| record).collect();
        verify(harness, &confirmed, Copies::OneOrMore).await;
        confirm(&*sink, "readable", &open).await;
    }
}

/// Keys, headers, unicode, empty and large values arrive as they were published.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn content_unchanged(harness: &dyn Harness) {
    let sink = harness.sink();
    let abilities = harness.abilities();
    let destination = harness.destination(31).await;
    let header = |name: HeaderName, value: &str| Header { name, value: Arc::from(value) };
    let plain = |number| record(&destination, "content", "one", Some("k"), number);

    let mut records = vec![
        Record { key: None, ..plain(0) },
        Record { key: Some(Arc::from("Schlüssel 鍵 🔑")), ..plain(1) },
        Record {
            value: Bytes::from_static("{\"text\":\"Grüße, 世界 🌍 \u{7f} \\u0000\"}".as_bytes()),
            ..plain(2)
        },
        Record {
            headers: vec![
                header(HeaderName::CloudEvent(Attribute::SpecVersion), "1.0"),
                header(HeaderName::CloudEvent(Attribute::Id), "4711"),
                header(HeaderName::CloudEvent(Attribute::Subject), "Grüße, 世界 🌍"),
                header(HeaderName::CloudEvent(Attribute::CorrelationId), "a b;c=d"),
                header(HeaderName::ContentType, "application/json"),
                header(HeaderName::Literal(Arc::from("viaduct-source")), "main"),
                header(HeaderName::Literal(Arc::from("empty")), ""),
            ],
            ..plain(3)
        },
        Record { timestamp_ms: None, ..plain(4) },
        Record { value: large_value(abilities.largest_value), ..plain(5) },
    ];
    if abilities.any_bytes {
        records.push(Record { value: Bytes::new(), ..plain(6) });
        records.push(Record { value: Bytes::from_static(b"two\nlines\r\n\0\xff"), ..plain(7) });
    }
    confirm(&*sink, "content", &records).await;

    let found = &verify(harness, &records, Copies::One).await[&destination];
    for record in &records {
        let observed = found.iter().find(|observed| observed.value == record.value).expect("verified above");
        compare(harness, record, observed);
    }
}

fn compare(harness: &dyn Harness, record: &Record, observed: &Observed) {
    let abilities = harness.abilities();
    let name = &record.message_id;
    if abilities.keys {
        assert_eq!(observed.key.as_deref(), record.key.as_deref(), "content: the key of {name} changed");
    }
    let Some(style) = abilities.headers else { return };
    for header in &record.headers {
        let spelled = header.name.spelled(style);
        let values: Vec<&str> = observed
            .headers
            .iter()
            .filter(|(name, _)| name == spelled)
            .map(|(_, value)| value.as_str())
            .collect();
        assert_eq!(values, [&*header.value], "content: header {spelled} of {name} changed");
    }
}

/// A JSON string of exactly `length` bytes that does not compress to nothing.
fn large_value(length: usize) -> Bytes {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut value = vec![b'"'];
    while value.len() + 1 < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.push(b'a' + u8::try_from(state % 26).unwrap_or_default());
    }
    value.push(b'"');
    Bytes::from(value)
}
