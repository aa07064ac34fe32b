use std::time::Instant;

use proptest::prelude::*;
use serde_json::Value;
use viaduct_poller::parse_entry;

use super::*;
use crate::config::{MaskRule, SecretRef};

const KEY: &str = "hunter2-hunter2-hunter2";

fn masks(fields: &[(&str, MaskAction)], honour_is_masked: bool) -> Masks {
    let rules = fields.iter().map(|(path, action)| MaskRule { path: Pattern::of(path), action: *action });
    let mask = Mask { rules: rules.collect(), honour_is_masked, hash_key: Some(SecretRef::literal(KEY)) };
    Masks::new(&mask).unwrap()
}

fn masked(fields: &[(&str, MaskAction)], raw: &str) -> String {
    masks(fields, true).masked(raw, Some(ApiVersion::V3)).unwrap_or_else(|| raw.to_owned())
}

/// An envelope around a payload that is JSON, and one around the same as a string of JSON.
fn both(payload: &str) -> [String; 2] {
    [payload.to_owned(), serde_json::to_string(payload).unwrap()]
        .map(|payload| format!(r#"{{"eventId":"1-0","eventType":"a.B", "payload":{payload} ,"tail":1.0}}"#))
}

/// Masks a payload in both dresses; what comes of it is the same.
fn payload(fields: &[(&str, MaskAction)], payload: &str) -> String {
    let [plain, wrapped] = both(payload).map(|raw| {
        let masked = masked(fields, &raw);
        assert!(json::is_json(&masked), "{masked}");
        masked
    });
    let inner = |raw: &str| {
        let start = raw.find("\"payload\":").unwrap() + 10;
        raw[start..raw.rfind(" ,\"tail\":1.0}").unwrap()].to_owned()
    };
    let unwrapped: String = serde_json::from_str(&inner(&wrapped)).unwrap();
    assert_eq!(inner(&plain), unwrapped);
    unwrapped
}

use MaskAction::{Drop, Hash, Last4, Redact};

#[test]
fn each_action_makes_of_a_value_what_it_says() {
    let of = |action, value: &str| {
        let payload = payload(&[("v", action)], &format!(r#"{{"v":{value},"w":1.0}}"#));
        payload.strip_suffix(",\"w\":1.0}").unwrap()["{\"v\":".len()..].to_owned()
    };
    for value in ["\"text\"", "17", "true", "{\"a\":1}", "0", "\" \"", "[]"] {
        assert_eq!(of(Redact, value), if value == "[]" { "[]" } else { "\"***\"" }, "{value}");
    }
    assert_eq!(of(Redact, "null"), "null");
    assert_eq!(of(Redact, "\"\""), "\"\"");
    assert_eq!(of(Redact, r#"["a",["b",null],{"c":1}]"#), r#"["***",["***",null],"***"]"#);
    assert_eq!(of(Last4, "\"6035551212\""), "\"***1212\"");
    assert_eq!(of(Last4, "6035551212"), "\"***1212\"");
    assert_eq!(of(Last4, "\"5551212\""), "\"***1212\"");
    assert_eq!(of(Last4, "\"551212\""), "\"***\"");
    assert_eq!(of(Last4, r#""Grüße\n\"é\ud83d\ude00""#), r#""***\n\"é😀""#);
    assert_eq!(of(Last4, r#"{"a":"6035551212"}"#), "\"***\"");
    assert_eq!(payload(&[("v", Drop)], r#"{"v":1,"w":1.0}"#), r#"{"w":1.0}"#);
}

#[test]
fn hashes_are_keyed_equal_for_equals_and_fixed_for_ever() {
    let text =
        r#"{"a":1030,"b":"1030","c":"10\u00330","d":"1031","e":0,"f":"0","g":null,"h":"","i":{"x":1}}"#;
    let names: Vec<_> = "abcdefghi".chars().map(String::from).collect();
    let rules: Vec<_> = names.iter().map(|name| (name.as_str(), Hash)).collect();
    let value: Value = serde_json::from_str(&payload(&rules, text)).unwrap();
    // HMAC-SHA-256 of "1030" under the key, its first half.
    assert_eq!(value["a"], "7855bdbb6e34c387a0406cde6617b984");
    assert_eq!((&value["a"], &value["a"]), (&value["b"], &value["c"]));
    assert_ne!(value["a"], value["d"]);
    assert_eq!(value["i"].as_str().map(str::len), Some(32));
    // "No interaction" stays recognisable, so that it never becomes a key.
    assert_eq!(
        (&value["e"], &value["f"], &value["g"], &value["h"]),
        (&0.into(), &"0".into(), &Value::Null, &"".into())
    );
}

#[test]
fn a_path_is_looked_up_from_envelope_payload_and_inner_payload() {
    let text = r#"{"id":1,"payload":{"id":2,"a":{"id":3}}}"#;
    assert_eq!(payload(&[("id", Redact)], text), r#"{"id":"***","payload":{"id":"***","a":{"id":3}}}"#);
    assert_eq!(payload(&[("payload.id", Redact)], text), r#"{"id":"***","payload":{"id":2,"a":{"id":3}}}"#);
    assert_eq!(
        payload(&[("payload.payload.id", Redact)], text),
        r#"{"id":1,"payload":{"id":"***","a":{"id":3}}}"#
    );
    assert_eq!(payload(&[("a.id", Redact)], text), r#"{"id":1,"payload":{"id":2,"a":{"id":"***"}}}"#);
    assert_eq!(payload(&[("*.a.id", Redact)], text), r#"{"id":1,"payload":{"id":2,"a":{"id":"***"}}}"#);
    assert_eq!(payload(&[("*.id", Redact)], text), r#"{"id":"***","payload":{"id":"***","a":{"id":"***"}}}"#);
    assert_eq!(payload(&[("a", Redact)], text), r#"{"id":1,"payload":{"id":2,"a":"***"}}"#);
    assert_eq!(payload(&[("nothing", Redact), ("Id", Redact)], text), text);
    let envelope = r#"{"eventId":"1","correlationId":"c","eventType":"a.B","id":"i"}"#;
    assert_eq!(
        masked(&[("*", Redact)], envelope),
        r#"{"eventId":"1","correlationId":"***","eventType":"a.B","id":"***"}"#
    );
}

#[test]
fn elements_of_arrays_and_members_that_occur_twice_are_all_masked() {
    let text = r#"{"list":[{"v":1},[{"v":2}],3],"v":"a","v":"b","\u0076":"c"}"#;
    assert_eq!(
        payload(&[("list.v", Redact), ("v", Last4)], text),
        r#"{"list":[{"v":"***"},[{"v":"***"}],3],"v":"***","v":"***","\u0076":"***"}"#
    );
}

#[test]
fn the_strictest_rule_wins() {
    let text = r#"{"v":"6035551212"}"#;
    assert_eq!(payload(&[("v", Redact), ("v*", Last4)], text), r#"{"v":"***"}"#);
    assert_eq!(payload(&[("*v", Last4), ("v", Drop)], text), "{}");
}

#[test]
fn dropped_members_leave_whole_json_behind() {
    let drop = |text: &str| payload(&[("x", Drop), ("y", Drop)], text);
    assert_eq!(drop(r#"{ "x" : 1 , "a":2 }"#), r#"{ "a":2 }"#);
    assert_eq!(drop(r#"{"a":2 , "x":1 }"#), r#"{"a":2 }"#);
    assert_eq!(drop(r#"{"a":1,"x":[2,{"x":3}],"y":4,"b":5}"#), r#"{"a":1,"b":5}"#);
    assert_eq!(drop(r#"{"a":1,"x":2,"y":3}"#), r#"{"a":1}"#);
    assert_eq!(drop(r#"{"x":2,"y":3}"#), "{}");
    assert_eq!(drop(r#"{"x":2,"a":{"y":1,"b":[]},"y":3}"#), r#"{"a":{"y":1,"b":[]}}"#);
    assert_eq!(
        payload(&[("*x", Drop), ("*y", Redact)], r#"{"a":{"y":1,"x":2},"x":3,"y":4}"#),
        r#"{"a":{"y":"***"},"y":"***"}"#
    );
}

#[test]
fn what_the_vendor_calls_masked_is_masked_where_that_is_honoured() {
    let data = |masked: &str| {
        format!(r#"{{"interactionData":[{{"key":"Account","value":"4711","isMasked":{masked}}}]}}"#)
    };
    let hidden = |masked: &str| data(masked).replace("4711", "***");
    for yes in ["true", "\"true\"", "1", "\"yes\"", "{}"] {
        assert_eq!(payload(&[], &data(yes)), hidden(yes));
    }
    for no in ["false", "null", "0", "\"false\"", "\"0\"", "\"\""] {
        assert_eq!(payload(&[], &data(no)), data(no));
    }
    let [raw, wrapped] = both(&data("true"));
    let off = masks(&[], false);
    assert_eq!((off.masked(&raw, None), off.masked(&wrapped, None)), (None, None));
    // A rule for the field has the say.
    let ruled = payload(&[("interactionData.value", Hash)], &data("true"));
    assert!(!ruled.contains("4711") && !ruled.contains("***"), "{ruled}");
}

#[test]
fn strings_that_hold_json_are_gone_into() {
    let entity = r#"{"entity":" {\"firstName\":\"\\u0041nn\\/\",\"n\":{\"lastName\":\"L\",\"x\":1.0}}","text":"[firstName]"}"#;
    assert_eq!(
        payload(&[("entity.firstName", Redact), ("*.lastName", Drop)], entity),
        r#"{"entity":" {\"firstName\":\"***\",\"n\":{\"x\":1.0}}","text":"[firstName]"}"#
    );
    // A string in a string in a string, every other escape as it was.
    let deep =
        serde_json::to_string(&serde_json::to_string(r#"{"a":"\u00e9\ud800\/","v":"secret"}"#).unwrap())
            .unwrap();
    let raw = format!(r#"{{"eventId":"1-0","eventType":"a.B","payload":{deep}}}"#);
    assert_eq!(masked(&[("v", Redact)], &raw), raw.replace("secret", "***"));
}

#[test]
fn what_cannot_be_read_is_hidden_as_a_whole() {
    let fields: &[(&str, MaskAction)] = &[("phone", Redact)];
    for text in [r#""{\"phone\":\"6035551212\"""#, r#""phone 6035551212""#, r#""\"phone 6035551212\"""#] {
        let raw = format!(r#"{{"eventId":"1","eventType":"a.B","payload":{text}}}"#);
        let masked = masked(fields, &raw);
        assert!(masked.contains("***") && !masked.contains("6035"), "{masked}");
    }
    for fine in ["\"\"", "\" \"", "\"17\"", "\"null\"", "17", "null", "[]"] {
        let raw = format!(r#"{{"eventId":"1","eventType":"a.B","payload":{fine}}}"#);
        assert_eq!(masked(fields, &raw), raw);
    }
    let deep = format!(
        r#"{{"eventId":"1","eventType":"a.B","payload":{}1{}}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    assert!(masked(fields, &deep).len() < 500);
    let masks = masks(fields, true);
    for (raw, says) in [
        (r#"{"eventId":"7-0","phone":"6035551212","#, "\"*** no JSON, so its fields cannot be masked\""),
        (r#""phone 6035551212""#, "\"***\""),
        (r#"{"eventId":"7-0","phone":"6035551212"}"#, r#"{"eventId":"7-0","phone":"***"}"#),
        (
            r#"{"eventType":"a.B","payload":{"phone":"6035551212"}}"#,
            r#"{"eventType":"a.B","payload":{"phone":"***"}}"#,
        ),
    ] {
        let entry = parse_entry(raw.to_owned(), ApiVersion::V3, Instant::now());
        assert!(matches!(entry, Entry::Malformed(_)), "{raw}");
        let masked = masks.apply(entry.clone());
        assert_eq!((masked.raw(), masked.identity()), (says, entry.identity()));
        let (Entry::Malformed(old), Entry::Malformed(new)) = (entry, masked) else { panic!("{raw}") };
        assert_eq!((old.id(), old.reason()), (new.id(), new.reason()));
    }
}

#[test]
fn an_entry_with_nothing_to_mask_is_the_same_one() {
    let [raw, _] = both(r#"{"a":1}"#);
    let entry = parse_entry(raw, ApiVersion::V3, Instant::now());
    let before = entry.raw().as_ptr();
    assert_eq!(masks(&[("phone", Redact)], true).apply(entry).raw().as_ptr(), before);
}

#[test]
fn v2_events_keep_their_id_and_type() {
    let raw = r#"{"id":"1","type":"a.B","payload":"{\"id\":\"x\",\"type\":\"y\"}"}"#;
    let entry = parse_entry(raw.to_owned(), ApiVersion::V2, Instant::now());
    let masked = masks(&[("id", Redact), ("type", Drop)], true).apply(entry.clone());
    assert_eq!(masked.raw(), r#"{"id":"1","type":"a.B","payload":"{\"id\":\"***\"}"}"#);
    assert_eq!(masked.identity(), entry.identity());
}

/// The reading by values: what masking `*.v` must come to, however the text is written.
fn by_value(value: &Value, is_secret: bool) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| by_value(item, is_secret)).collect(),
        Value::Null => Value::Null,
        Value::String(text) if text.is_empty() => value.clone(),
        _ if is_secret => "***".into(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), by_value(value, name == "v"))).collect()
        }
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Masked text is JSON, and taking the masked values back gives the text byte for byte: nothing else changed.
    #[test]
    fn untouched_parts_are_byte_identical(
        before in super::super::json::tests::json(),
        after in super::super::json::tests::json(),
        wrapped: bool,
    ) {
        let payload = format!(r#"{{"before" : {before},"secret":"s3cret" , "after":[{after}, {{"secret":"s3cret"}}]}}"#);
        let [plain, string] = both(&payload);
        let raw = if wrapped { string } else { plain };
        let masks = masks(&[("*secret", Redact)], false);
        let masked = masks.masked(&raw, Some(ApiVersion::V3)).unwrap();
        prop_assert!(json::is_json(&masked), "{}", masked);
        prop_assert!(!masked.contains("s3cret"));
        prop_assert_eq!(masked.replace("***", "s3cret"), raw);
    }

    /// Dropping, too, leaves JSON with all the rest in it.
    #[test]
    fn what_is_dropped_is_all_that_is_gone(members in prop::collection::vec(("[xab]", super::super::json::tests::json()), 0..6)) {
        let text = |keep: bool| {
            let members: Vec<_> = members.iter()
                .filter(|(name, _)| keep || name != "x")
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            format!("{{{}}}", members.join(","))
        };
        prop_assert_eq!(payload(&[("x", Drop)], &text(true)), text(false));
    }

    /// Wherever a field stands and however deep, it is masked, and only it.
    #[test]
    fn masking_text_is_masking_values(text in super::super::json::tests::json()) {
        let text = text.replace(r"\ud800", "").replace("\"\" :", "\"v\" :");
        let Ok(value) = serde_json::from_str::<Value>(&text) else { return Ok(()) };
        let raw = format!(r#"{{"eventId":"1-0","eventType":"a.B","payload":{{"in":{text}}}}}"#);
        let masked: Value = serde_json::from_str(&masked(&[("*.v", Redact)], &raw)).unwrap();
        prop_assert_eq!(&masked["payload"]["in"], &by_value(&value, false));
    }
}
