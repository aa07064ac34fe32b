//! The schemas against an independent validator.

use jsonschema::{Draft, Validator};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{find, listed};

fn validator(schema: &Value) -> Validator {
    jsonschema::options().with_draft(Draft::Draft202012).build(schema).expect("a valid schema")
}

#[test]
fn every_schema_is_one_and_accepts_every_example_of_the_document() {
    for event in events() {
        let schema = payload_schema(event);
        jsonschema::draft202012::meta::validate(&schema).expect("valid against its meta-schema");
        let validator = validator(&schema);
        for example in event.examples.iter().chain(&event.described) {
            let payload: Value = serde_json::from_str(example).expect("JSON");
            if let Err(error) = validator.validate(&payload) {
                panic!("{}: {error}: {example}", event.event_type);
            }
        }
    }
}

#[test]
fn every_schema_refuses_something() {
    for event in events() {
        let validator = validator(&payload_schema(event));
        assert!(!validator.is_valid(&json!("text")), "{}", event.event_type);
        for field in event.fields.iter().filter(|field| !field.name.is_empty()) {
            assert!(!validator.is_valid(&json!({&field.name: 1.5})), "{} {}", event.event_type, field.path);
        }
    }
}

#[test]
fn the_bundle_has_a_definition_per_type() {
    let bundle = bundle();
    jsonschema::draft202012::meta::validate(&bundle).expect("valid against its meta-schema");
    let definitions = bundle["$defs"].as_object().expect("an object");
    assert!(listed().all(|event| definitions.contains_key(&event.event_type)));
    assert_eq!(definitions.len(), events().len());
}

/// The records of one event in every form, written by hand from the contract.
#[test]
fn every_form_of_a_record_has_its_schema() {
    let event = find("engagementCenter.Idle").expect("listed");
    let payload: Value = serde_json::from_str(&event.examples[0]).expect("JSON");
    let envelope = |payload: Value| {
        json!({"kind": "via#engagementCenterEvent", "eventId": "1519073278252-0", "correlationId": "c",
               "eventType": "engagementCenter.Idle", "publishedTime": "2018-01-30T14:04:20.539Z",
               "schemaVersion": "1", "payload": payload})
    };
    let cloud = json!({"specversion": "1.0", "id": "1", "source": "via://acme", "data": payload,
                       "type": "com.alvaria.engagementCenter.Idle"});
    let forms = [
        (Form::Unwrapped, envelope(payload.clone())),
        (Form::Raw, envelope(payload.to_string().into())),
        (Form::Payload, payload.clone()),
        (Form::CloudEvents, cloud),
    ];
    for (index, (form, _)) in forms.iter().enumerate() {
        let validator = validator(&record_schema(event, *form, payload_schema(event)));
        for (other, (_, value)) in forms.iter().enumerate() {
            // The schema of a bare payload is open: it takes other objects too.
            if *form != Form::Payload || other == index {
                assert_eq!(validator.is_valid(value), other == index, "{form:?} of {value}");
            }
        }
    }
}

/// Payloads near the documented ones: an example with one value replaced, a member added, or both.
fn near_example() -> impl Strategy<Value = (&'static EventType, Value)> {
    let odd = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        Just(json!(7)),
        Just(json!(7.0)),
        Just(json!(7.5)),
        Just(json!("7")),
        Just(json!("InboundACD")),
        Just(json!([])),
        Just(json!([{"key": "k"}])),
        Just(json!(["k"])),
        Just(json!({})),
        Just(json!({"new": 1})),
    ];
    (0..events().len(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), odd).prop_map(
        |(event, example, place, odd)| {
            let event = &events()[event];
            let examples: Vec<_> = event.examples.iter().chain(&event.described).collect();
            let mut payload: Value =
                serde_json::from_str(examples[example.index(examples.len())]).expect("JSON");
            let mut pointers = vec![String::new()];
            collect(&payload, "", &mut pointers);
            if let Some(spot) = payload.pointer_mut(&pointers[place.index(pointers.len())]) {
                *spot = odd;
            }
            (event, payload)
        },
    )
}

fn collect(value: &Value, at: &str, into: &mut Vec<String>) {
    let mut below = |key: String, value: &Value| {
        let pointer = format!("{at}/{key}");
        collect(value, &pointer, into);
        into.push(pointer);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| below(key.clone(), value)),
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(index, value)| below(index.to_string(), value));
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn drift_and_schema_agree((event, payload) in near_example()) {
        let mismatch = event.drift(&payload).iter().any(|drift| drift.problem.is_mismatch());
        let validator = validator(&payload_schema(event));
        prop_assert_eq!(validator.is_valid(&payload), !mismatch, "{} {}", event.event_type, payload);
    }
}
