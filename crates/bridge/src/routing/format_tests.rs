use std::time::Instant;

use proptest::prelude::*;
use serde_json::value::RawValue;
use viaduct_poller::{Entry, parse_entry};

use super::super::fields::FieldNames;
use super::*;

fn event(raw: &str, api: ApiVersion) -> Event {
    match parse_entry(raw.to_owned(), api, Instant::now()) {
        Entry::Event(event) => event,
        Entry::Malformed(malformed) => panic!("{malformed:?}"),
    }
}

/// The value in each format: raw, unwrapped, payload.
fn values(raw_text: &str, api: ApiVersion) -> [String; 3] {
    let event = event(raw_text, api);
    let fields = Fields::of(&event, &FieldNames::default());
    [raw(&event), unwrapped(&event, &fields), payload(&event, &fields)]
        .map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// An event with this text behind `"payload":`.
fn with_payload(payload: &str) -> String {
    format!(r#"{{"eventId":"1-0", "eventType":"a.B","payload" : {payload},"x":[1.50,"\/"]}}"#)
}

#[test]
fn payloads_of_every_kind_have_a_defined_value() {
    // The text behind `"payload":`, and what `unwrapped` and `payload` make of it.
    let cases = [
        (
            r#""{\"a\":1.0,\"a\":2,\"big\":12345678901234567890}""#,
            r#"{"a":1.0,"a":2,"big":12345678901234567890}"#,
        ),
        (r#""123""#, "123"),
        (r#""null""#, "null"),
        (r#""\"text\"""#, r#""text""#),
        (r#"" [1,\n2] ""#, " [1,\n2] "),
        // Already JSON.
        (r#"{"a":1.0, "a":2}"#, r#"{"a":1.0, "a":2}"#),
        ("[1e999]", "[1e999]"),
        ("17", "17"),
        ("true", "true"),
        // Nothing.
        ("null", "null"),
        (r#""""#, r#""""#),
        (r#"" ""#, r#"" ""#),
        // No JSON: the string that the vendor sent, escapes included.
        (r#""plain \u00e9 \/ text""#, r#""plain \u00e9 \/ text""#),
        (r#""{\"a\":""#, r#""{\"a\":""#),
        (r#""{} {}""#, r#""{} {}""#),
        // A NUL in a string of the payload is fine as an escape of that, and no JSON as a bare character.
        (r#""{\"a\":\"\\u0000\"}""#, r#"{"a":"\u0000"}"#),
        (r#""{\"a\":\"\u0000\"}""#, r#""{\"a\":\"\u0000\"}""#),
        // A lone surrogate stays an escape where it is one of the payload's own.
        (r#""{\"a\":\"\\ud800\",\"\\udc00\":1}""#, r#"{"a":"\ud800","\udc00":1}"#),
        (r#""{\"a\":\"\ud800\"}""#, "{\"a\":\"\u{fffd}\"}"),
        (r#"{"a":"\ud800"}"#, r#"{"a":"\ud800"}"#),
        // Surrogate pairs and unicode become what they say with the outer string, and stay inside the inner one.
        (r#""{\"a\":\"\ud83d\ude00 \\ud83d\\ude00 é\"}""#, "{\"a\":\"😀 \\ud83d\\ude00 é\"}"),
    ];
    for (given, value) in cases {
        let raw = with_payload(given);
        let expected = [raw.clone(), with_payload(value), value.to_owned()];
        assert_eq!(values(&raw, ApiVersion::V3), expected, "{given}");
    }
    let without = r#"{"eventId":"1-0","eventType":"a.B","schemaVersion":1}"#;
    assert_eq!(values(without, ApiVersion::V3), [without, without, "null"]);
}

#[test]
fn of_two_payloads_the_last_one_counts_and_both_stay() {
    let raw = r#"{"eventId":"1","eventType":"a.B","payload":"{\"a\":1}","payload":"{\"b\":2}"}"#;
    let unwrapped = r#"{"eventId":"1","eventType":"a.B","payload":"{\"a\":1}","payload":{"b":2}}"#;
    assert_eq!(values(raw, ApiVersion::V3), [raw, unwrapped, r#"{"b":2}"#]);
}

#[test]
fn a_megabyte_stays_a_megabyte() {
    let fill = r#"\"Grüße\\n\","#.repeat(100_000);
    let raw = with_payload(&format!(r#""[{fill}1]""#));
    let [same, unwrapped, payload] = values(&raw, ApiVersion::V3);
    assert_eq!(same, raw);
    let json = format!("[{}1]", "\"Grüße\\n\",".repeat(100_000));
    assert_eq!(payload, json);
    assert_eq!(unwrapped, with_payload(&json));
    assert!(payload.len() > 1_000_000);
}

#[test]
fn v2_names_become_v3_names_in_all_but_raw() {
    let raw = r#" {"kind":"k", "id":"1","type":"chat.SendText","n":1.0,"\ud800":[],"big":12345678901234567890,"payload":"{\"id\":\"x\",\"type\":1}"}"#;
    let unwrapped = r#"{"kind":"k", "eventId":"1","eventType":"chat.SendText","n":1.0,"\ud800":[],"big":12345678901234567890,"payload":{"id":"x","type":1}}"#;
    assert_eq!(values(raw, ApiVersion::V2), [raw.trim(), unwrapped, r#"{"id":"x","type":1}"#]);
    let no_json = r#"{"\u0069d":"1","type":"a.B","payload":"id"}"#;
    assert_eq!(values(no_json, ApiVersion::V2)[1], r#"{"eventId":"1","eventType":"a.B","payload":"id"}"#);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Whatever JSON a payload is, and in whichever dress it comes: values are JSON, and nothing but the dress changes.
    #[test]
    fn values_are_json_and_the_rest_is_untouched(payload in super::super::json::tests::json(), wrapped: bool, v2: bool) {
        // A string of JSON is the vendor's dress already.
        let is_dress = serde_json::from_str::<String>(&payload).is_ok_and(|text| json::is_json(&text));
        let dressed = if wrapped || is_dress { serde_json::to_string(&payload).unwrap() } else { payload.clone() };
        let (raw, api) = match v2 {
            true => (with_payload(&dressed).replace("eventId", "id").replace("eventType", "type"), ApiVersion::V2),
            false => (with_payload(&dressed), ApiVersion::V3),
        };
        let [same, unwrapped, alone] = values(&raw, api);
        prop_assert_eq!(&same, &raw);
        prop_assert_eq!(&unwrapped, &with_payload(&payload));
        prop_assert_eq!(&alone, &payload);
        for value in [same, unwrapped, alone] {
            prop_assert!(serde_json::from_str::<&RawValue>(&value).is_ok(), "{}", value);
        }
    }

    /// Payloads that are no JSON, or nearly some: still JSON as a whole.
    #[test]
    fn a_payload_that_is_text_stays_that_text(text in r#"[{}\[\]",:a0 \\\nNé]{0,16}"#) {
        let literal = serde_json::to_string(&text).unwrap();
        let raw = with_payload(&literal);
        let expected = if json::is_json(&text) { text } else { literal };
        prop_assert_eq!(values(&raw, ApiVersion::V3), [raw, with_payload(&expected), expected]);
    }
}
