//! What comes out of response bodies, good and bad.

use super::*;
use crate::event::{ContentHash, MalformedReason, Payload};
use proptest::prelude::*;

fn v3(body: &str) -> Vec<Entry> {
    parse_response(body.as_bytes().to_vec(), ApiVersion::V3, Instant::now()).unwrap()
}

fn event(entry: &Entry) -> &Event {
    match entry {
        Entry::Event(event) => event,
        Entry::Malformed(malformed) => panic!("{malformed:?}"),
    }
}

fn malformed(entry: &Entry) -> &Malformed {
    match entry {
        Entry::Malformed(malformed) => malformed,
        Entry::Event(event) => panic!("{event:?}"),
    }
}

fn list(entries: &[&str]) -> String {
    format!(
        r#"{{"kind":"via#streamingEventCollection","totalItems":{},"events":[{}]}}"#,
        entries.len(),
        entries.join(",")
    )
}

fn good(id: u32) -> String {
    format!(r#"{{"eventId":"{id}","eventType":"a.B","payload":"{{\"eventId\":\"x\"}}"}}"#)
}

/// The example of the vendor document, EventResponseV3.
const DOCUMENTED: &str = r#"{
"kind": "via#engagementCenterEvent",
"eventId": "1519073278252-0",
"correlationId": "def61349-6f49-4019-918f-2cd2fbfd4e42",
"eventType": "engagementCenter.Idle",
"publishedTime": "2018-01-30T14:04:20.539Z",
"schemaVersion": "1",
"payload": "{\"userId\":\"5aa0b645c2b3e80\", \"ehubSessionId\":215}"
}"#;

#[test]
fn the_documented_v3_event_has_all_its_fields() {
    let entries = v3(&list(&[DOCUMENTED]));
    let event = event(&entries[0]);
    assert_eq!(event.raw(), DOCUMENTED);
    assert_eq!(event.id(), "1519073278252-0");
    assert_eq!((event.category(), event.name()), ("engagementCenter", "Idle"));
    assert_eq!(event.kind(), Some("via#engagementCenterEvent"));
    assert_eq!(event.correlation_id(), Some("def61349-6f49-4019-918f-2cd2fbfd4e42"));
    assert_eq!(event.published_time(), Some("2018-01-30T14:04:20.539Z"));
    assert_eq!(event.schema_version(), Some("1"));
    assert_eq!(event.payload(), Payload::Text(r#"{"userId":"5aa0b645c2b3e80", "ehubSessionId":215}"#));
    let span = event.payload_span().unwrap();
    assert!(event.raw()[span.clone()].starts_with(r#""{\"userId"#) && event.raw()[span].ends_with("215}\""));
}

#[test]
fn v2_uses_its_own_names() {
    let body = list(&[
        r#"{"kind":"via#chatEvent","id":"159e","type":"chat.SendText","schemaVersion":1,"payload":"{}"}"#,
    ]);
    let entries = parse_response(body.into_bytes(), ApiVersion::V2, Instant::now()).unwrap();
    let event = event(&entries[0]);
    assert_eq!(
        (event.id(), event.event_type(), event.schema_version()),
        ("159e", "chat.SendText", Some("1"))
    );
}

#[test]
fn the_content_hash_is_fixed_for_ever() {
    // Checkpoints and message ids of deployments contain it: a change of this number is a change of identity.
    let entries = v3(&list(&[DOCUMENTED]));
    assert_eq!(entries[0].identity().hash().to_string(), "a231cab08cf0fb4bc5cbf5affafd1137");
    assert_eq!(entries[0].identity().hash().prefix16(), "a231cab08cf0fb4b");
    let hash = entries[0].identity().hash();
    assert_eq!(ContentHash::from_u128(hash.as_u128()), hash);
}

#[test]
fn the_hash_tells_apart_what_differs_and_only_that() {
    let hash = |fields: &str| {
        v3(&list(&[&format!(r#"{{"eventId":"1","eventType":"a.B"{fields}}}"#)]))[0].identity().hash()
    };
    let base = hash(r#","publishedTime":"t","payload":"{}""#);
    assert_eq!(base, hash(r#", "payload": "\u007b}", "publishedTime":"t", "schemaVersion":"2", "new":[1]"#));
    for other in [
        r#","publishedTime":"u","payload":"{}""#,
        r#","publishedTime":"t","payload":"{} ""#,
        r#","publishedTime":"t","payload":{}"#,
        r#","publishedTime":"t","payload":null"#,
        r#","publishedTime":"t","payload":"""#,
        r#","publishedTime":"t""#,
        r#","payload":"{}""#,
    ] {
        assert_ne!(base, hash(other), "{other}");
    }
}

#[test]
fn types_without_a_category_are_unknown() {
    for (event_type, category, name) in
        [("Idle", "unknown", "Idle"), (".Idle", "unknown", ".Idle"), ("a.b.c", "a", "b.c"), ("a.", "a", "")]
    {
        let entries = v3(&list(&[&format!(r#"{{"eventId":"1","eventType":"{event_type}"}}"#)]));
        assert_eq!((event(&entries[0]).category(), event(&entries[0]).name()), (category, name));
    }
}

#[test]
fn payloads_of_every_kind() {
    let payload = |text: &str| {
        let entries = v3(&list(&[&format!(r#"{{"eventId":"1","eventType":"a.B"{text}}}"#)]));
        format!(
            "{:?}",
            match event(&entries[0]).payload() {
                Payload::Missing => "missing".to_owned(),
                Payload::Null => "null".to_owned(),
                Payload::Text(text) => format!("text {text}"),
                Payload::Json(text) => format!("json {text}"),
            }
        )
    };
    assert_eq!(payload(""), "\"missing\"");
    assert_eq!(payload(r#","payload":null"#), "\"null\"");
    assert_eq!(payload(r#","payload":"""#), "\"text \"");
    assert_eq!(payload(r#","payload": 1.0"#), "\"json 1.0\"");
    assert_eq!(
        payload(r#","payload":{"n": 12345678901234567890}"#),
        r#""json {\"n\": 12345678901234567890}""#
    );
    assert_eq!(payload(r#","payload":[true]"#), "\"json [true]\"");
}

#[test]
fn of_a_field_that_occurs_twice_the_last_counts() {
    let entries = v3(&list(&[r#"{"eventId":"1","eventType":"a.B","eventId":"2","event\u0054ype":"c.D"}"#]));
    assert_eq!((event(&entries[0]).id(), event(&entries[0]).event_type()), ("2", "c.D"));
    assert_eq!(v3(r#"{"events":[1,2],"events":[]}"#).len(), 0);
}

#[test]
fn a_lone_surrogate_breaks_nothing() {
    let odd = r#"{"eventId":"1","eventType":"a.B","\ud800":"\udfff","payload":"{\"t\":\"\ud800\"}"}"#;
    let entries = v3(&list(&[odd, &good(2)]));
    assert_eq!(event(&entries[0]).raw(), odd);
    assert_eq!(event(&entries[0]).payload(), Payload::Text("{\"t\":\"\u{fffd}\"}"));
    assert_eq!(event(&entries[1]).id(), "2");
}

#[test]
fn bytes_that_are_no_utf8_break_nothing() {
    let mut body = list(&[&good(1)]).into_bytes();
    let at = body.iter().position(|&byte| byte == b'x').unwrap();
    body[at] = 0xff;
    let entries = parse_response(body, ApiVersion::V3, Instant::now()).unwrap();
    assert_eq!(event(&entries[0]).id(), "1");
}

#[test]
fn an_event_without_an_id_is_told_apart() {
    for id in ["", r#""eventId":"","#, r#""eventId":null,"#] {
        let entries = v3(&list(&[&format!(r#"{{{id}"eventType":"a.B","payload":"{{}}"}}"#)]));
        let malformed = malformed(&entries[0]);
        assert_eq!((malformed.reason(), malformed.id()), (MalformedReason::NoId, None));
        assert_eq!(malformed.event().unwrap().event_type(), "a.B");
        assert_eq!(malformed.content_hash(), malformed.event().unwrap().content_hash());
    }
}

#[test]
fn entries_of_the_wrong_shape_are_malformed_with_their_id() {
    for (raw, id) in [
        ("17", None),
        ("null", None),
        (r#""text""#, None),
        ("[]", None),
        (r#"{"eventId":5,"eventType":"a.B"}"#, None),
        (r#"{"eventId":"5"}"#, Some("5")),
        (r#"{"eventId":"5","eventType":""}"#, Some("5")),
        (r#"{"eventId":"5","eventType":{}}"#, Some("5")),
    ] {
        let entries = v3(&list(&[&good(1), raw, &good(2)]));
        assert_eq!(entries.len(), 3);
        assert_eq!((event(&entries[0]).id(), event(&entries[2]).id()), ("1", "2"));
        assert_eq!((malformed(&entries[1]).raw(), malformed(&entries[1]).id()), (raw, id));
        assert_eq!(malformed(&entries[1]).reason(), MalformedReason::Malformed);
    }
}

#[test]
fn a_syntactically_broken_entry_is_isolated() {
    for broken in [
        r#"{"eventId":"5","eventType":"a.B","payload":oops}"#,
        r#"{"eventId":"5","eventType":"a.B","payload":"{\"a\":1}""#,
        r#"{"eventId":"5","eventType":"a.B","payload":"{\"a\":1}"#,
        r#"{"eventId":"5","eventType":"a.B","payload":{"a":[1}}"#,
        r#"{"eventId":"5","eventType":"a.B",}"#,
        r#"{"eventId":"5","eventType" "a.B"}"#,
        "{\"eventId\":\"5\",\"eventType\":\"a.B\",\"payload\":\"a\nb\"}",
        r#"{"eventId":"5","eventType":"a.B","payload":"\x"}"#,
        r#"{"eventId":"5","eventType":"a"#,
    ] {
        for after in [vec![good(2), good(3)], vec![]] {
            let first = good(1);
            let mut entries = vec![first.as_str(), broken];
            entries.extend(after.iter().map(String::as_str));
            let parsed = v3(&list(&entries));
            assert_eq!(parsed.len(), entries.len(), "{broken} {parsed:?}");
            assert_eq!(event(&parsed[0]).id(), "1");
            assert_eq!(malformed(&parsed[1]).id(), Some("5"), "{broken}");
            assert_eq!(malformed(&parsed[1]).raw(), broken);
            for (entry, raw) in parsed[2..].iter().zip(&after) {
                assert_eq!(event(entry).raw(), raw);
            }
        }
    }
}

#[test]
fn two_broken_neighbours_are_two_entries() {
    let parsed = v3(&list(&[&good(1), r#"{"eventId":"5",x}"#, r#"{"eventId":"6",y}"#, &good(2)]));
    let ids: Vec<_> = parsed.iter().map(|entry| entry.identity().id().to_owned()).collect();
    assert_eq!(ids, ["1", "5", "6", "2"]);
}

#[test]
fn an_empty_list_is_one_in_every_dress() {
    for body in
        ["", " \n", r#"{"events":[]}"#, r#"{"kind":"x","totalItems":0,"events": [ ] }"#, r#"{"events":null}"#]
    {
        assert!(v3(body).is_empty(), "{body}");
    }
}

#[test]
fn what_is_no_event_list_is_an_error() {
    let parse =
        |body: &str| parse_response(body.into(), ApiVersion::V3, Instant::now()).map(|entries| entries.len());
    assert_eq!(parse("<html>busy</html>"), Err(Unreadable::NotJson));
    assert_eq!(parse("{}"), Err(Unreadable::NoEvents));
    assert_eq!(parse(r#"{"events":"none"}"#), Err(Unreadable::NoEvents));
    assert_eq!(parse(r#"[1]"#), Err(Unreadable::NotJson));
}

#[test]
fn a_cut_response_is_not_taken_for_a_malformed_event() {
    let body = list(&[&good(1), &good(2)]);
    let array = body.find('[').unwrap();
    for end in array..body.len() - 2 {
        let cut = parse_response(body.as_bytes()[..end].to_vec(), ApiVersion::V3, Instant::now());
        assert!(cut.is_err(), "{}", &body[..end]);
    }
}

#[test]
fn a_cut_v2_response_gives_what_is_whole_and_reports_the_rest() {
    let entry = |id: u32| format!(r#"{{"id":"{id}","type":"a.B","payload":"{{}}"}}"#);
    let body = list(&[&entry(1), &entry(2)]);
    let second = body.find(r#"{"id":"2""#).unwrap();
    for end in second + 1..second + entry(2).len() {
        let entries =
            parse(body.as_bytes()[..end].to_vec(), ApiVersion::V2, Instant::now(), Completeness::Cut)
                .unwrap();
        assert_eq!(entries.len(), 2, "{}", &body[..end]);
        assert_eq!(event(&entries[0]).id(), "1");
        assert!(malformed(&entries[1]).detail().contains("cut off"));
    }
}

#[test]
fn an_entry_can_be_parsed_alone() {
    let entry = parse_entry(format!(" {} ", good(7)), ApiVersion::V3, Instant::now());
    assert_eq!(event(&entry).id(), "7");
    assert_eq!(event(&entry).raw(), good(7));
    assert_eq!(malformed(&parse_entry("{".into(), ApiVersion::V3, Instant::now())).raw(), "{");
}

#[test]
fn a_rewritten_entry_says_something_else_and_is_the_same_one() {
    let body = list(&[&good(1), r#"{"eventType":"a.B","payload":"secret"}"#, r#"{"eventId":"3","secret"}"#]);
    for entry in v3(&body) {
        let raw = match &entry {
            Entry::Event(_) => good(1).replace("\"payload\":\"", "\"payload\":\"masked"),
            Entry::Malformed(_) => entry.raw().replace("secret", "masked"),
        };
        let rewritten = entry.rewritten(raw.clone());
        assert_eq!((rewritten.raw(), rewritten.identity()), (raw.as_str(), entry.identity()));
        match (&entry, &rewritten) {
            (Entry::Event(old), Entry::Event(new)) => {
                assert_ne!(new.content_hash(), old.content_hash());
                assert_eq!((new.id(), new.event_type()), (old.id(), old.event_type()));
                assert!(matches!(new.payload(), Payload::Text(text) if text.starts_with("masked")));
                assert_eq!(rewritten.rewritten(entry.raw().to_owned()).identity(), entry.identity());
            }
            (Entry::Malformed(old), Entry::Malformed(new)) => {
                assert_ne!(new.content_hash(), old.content_hash());
                assert_eq!((new.id(), new.reason(), new.detail()), (old.id(), old.reason(), old.detail()));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn debug_output_has_no_payload() {
    let entries = v3(&list(&[
        r#"{"eventId":"1","eventType":"a.B","payload":"4111111111111111"}"#,
        r#"{"x":4111111111111111}"#,
    ]));
    assert!(!format!("{entries:?}").contains("4111"));
    assert!(!format!("{:?}", event(&entries[0]).payload()).contains("4111"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever one entry is replaced with, the entries around it arrive (unless the damage makes entries of its own).
    #[test]
    fn damage_to_one_entry_never_loses_another(at in 0usize..60, byte in prop::sample::select(b"x\"{}[],:\\\n ".to_vec())) {
        let mut bad = good(5).into_bytes();
        let at = at % bad.len();
        bad[at] = byte;
        let bad = String::from_utf8(bad).unwrap();
        let body = list(&[&good(1), &bad, &good(2), &good(3)]);
        let parsed = parse_response(body.into_bytes(), ApiVersion::V3, Instant::now()).unwrap();
        let ids: Vec<_> = parsed
            .iter()
            .filter_map(|entry| match entry { Entry::Event(event) => Some(event.id().to_owned()), Entry::Malformed(_) => None })
            .collect();
        for id in ["1", "2", "3"] {
            prop_assert!(ids.iter().any(|found| found == id), "{} of {:?} lost by {}", id, ids, bad);
        }
    }

    #[test]
    fn nothing_panics(body in r#"(\{|\}|\[|\]|,|"|\\|:|"events":\[|"eventId":"1"|"eventType":"a"|é|\n| ){0,40}"#) {
        for completeness in [Completeness::Whole, Completeness::Cut] {
            let _ = parse(body.clone().into_bytes(), ApiVersion::V3, Instant::now(), completeness);
        }
    }
}
