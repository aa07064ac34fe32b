//! Whole records, from a configuration's routes and an event's text.

use std::fs;
use std::time::Instant;

use viaduct_poller::{ApiVersion, Entry, parse_entry};
use viaduct_sink::record::HeaderStyle;

use super::*;
use crate::config::{LoadInput, load};

const SOURCE: &str = r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
[source.main.auth]
token_url = "https://myaspect.id.aspect-cloud.net/token"
client_id = "id"
client_secret = "hunter2"
api_key = "key"
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
[sink.archive]
type = "file"
dir = "events"
"#;

/// `lake` is sink 0, `bus` 1, `archive` 2.
fn router(routes: &str) -> Router {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("viaduct.toml");
    fs::write(&file, format!("{SOURCE}{routes}")).unwrap();
    let input = LoadInput { file: Some(file), ..LoadInput::default() };
    let config = load(input).unwrap_or_else(|mistakes| panic!("{mistakes}")).config;
    Router::new("main", "acme", "via://acme", &config.routes, &[Naming::Kafka, Naming::Nats, Naming::File])
}

fn event(event_type: &str, payload: &str) -> Event {
    let raw = serde_json::json!({"kind": "via#x", "eventId": "1-0", "correlationId": "c-1", "eventType": event_type,
        "publishedTime": "2018-01-30T14:04:20.539Z", "schemaVersion": 1, "payload": payload});
    match parse_entry(raw.to_string(), ApiVersion::V3, Instant::now()) {
        Entry::Event(event) => event,
        Entry::Malformed(malformed) => panic!("{malformed:?}"),
    }
}

fn records(router: &mut Router, event: &Event) -> Vec<(usize, Record)> {
    match router.plan(event) {
        Plan::Records(records) => records.into_iter().map(|(sink, record)| (sink.get(), record)).collect(),
        Plan::Dropped => Vec::new(),
        Plan::DeadLetter(reason, _) => panic!("{reason}"),
    }
}

fn key(router: &mut Router, payload: &str) -> Option<String> {
    let [(_, record)] = &records(router, &event("a.B", payload))[..] else { panic!("one record") };
    let subject = record.headers.iter().find(|h| h.name.spelled(HeaderStyle::Kafka) == "ce_subject");
    assert_eq!(subject.map(|header| &header.value), record.key.as_ref(), "ce_subject is the key");
    record.key.as_deref().map(str::to_owned)
}

#[test]
fn a_trace_is_in_the_record_and_in_none_of_its_names() {
    let routes = ["unwrapped", "cloudevents", "raw"].into_iter().zip(["lake", "bus", "archive"]).map(
        |(format, sink)| {
            format!("[[route]]\nmatch = [\"*\"]\nsink = \"{sink}\"\nto = \"x\"\nformat = \"{format}\"\n")
        },
    );
    let mut router = router(&routes.collect::<String>());
    let event = event("a.B", "{}");
    let traced = |router: &mut Router, traceparent: Option<&str>| {
        let traceparent = traceparent.map(Arc::from);
        let Plan::Records(records) = router.plan_traced(&event, traceparent.as_ref()) else {
            panic!("records")
        };
        records
    };
    let (plain, one, other) =
        (traced(&mut router, None), traced(&mut router, Some("00-1")), traced(&mut router, Some("00-2")));
    let names = |records: &[(SinkIndex, Record)]| {
        let names = records.iter().map(|(_, record)| (record.message_id.clone(), record.event.clone()));
        names.collect::<Vec<_>>()
    };
    assert_eq!((names(&one), names(&other)), (names(&plain), names(&plain)));
    let [(_, unwrapped), (_, structured), (_, raw)] = &one[..] else { panic!("three records") };
    let header = Header { name: HeaderName::Literal("traceparent".into()), value: "00-1".into() };
    assert_eq!(unwrapped.headers.last(), Some(&header));
    assert_eq!(raw.value, plain[2].1.value, "byte for byte");
    assert_eq!(structured.headers, plain[1].1.headers);
    let structured: serde_json::Value = serde_json::from_slice(&structured.value).unwrap();
    assert_eq!(structured["traceparent"], "00-1");
}

#[test]
fn the_first_key_that_says_something_counts() {
    let mut router = router("[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\n");
    let mut key = |payload: &str| key(&mut router, payload);
    assert_eq!(
        key(r#"{"userId":"u","payload":{"interactionId":1030}}"#).as_deref(),
        Some("1030"),
        "the inner payload comes first"
    );
    assert_eq!(key(r#"{"interactionId":"1030","userId":"u"}"#).as_deref(), Some("1030"), "a string twin");
    for nothing in ["0", "\"0\"", "\"\"", "null", "\" \"", "{}", "[]"] {
        let payload = format!(r#"{{"interactionId":{nothing},"sessionId":{nothing},"userId":"u"}}"#);
        assert_eq!(key(&payload).as_deref(), Some("u"), "{nothing}");
    }
    assert_eq!(key(r#"{"ehubSessionId":215,"phoneNumber":"6035551212"}"#).as_deref(), Some("215"));
    assert_eq!(
        key(r#"{"phoneNumber":"6035551212"}"#).as_deref(),
        Some("c-1"),
        "the envelope's correlationId"
    );
    assert_eq!(key("no JSON").as_deref(), Some("c-1"));
}

#[test]
fn integers_and_their_twins_give_equal_keys() {
    let mut integers = router("[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nkey = [\"interactionId\"]\n");
    let mut strings = router("[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nkey = [\"interactionIdRev\"]\n");
    for twins in [
        r#"{"interactionId":1030,"interactionIdRev":"1030"}"#,
        r#"{"interactionId":0,"interactionIdRev":"0"}"#,
    ] {
        assert_eq!(key(&mut integers, twins), key(&mut strings, twins));
    }
}

#[test]
fn keys_can_be_templates_constants_paths_and_none() {
    let with = |key: &str| router(&format!("[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nkey = {key}\n"));
    let payload = r#"{"userId":"u","payload":{"list":[{"id":7}],"category":14}}"#;
    assert_eq!(key(&mut with("[]"), payload), None);
    assert_eq!(key(&mut with("['\"all\"']"), payload).as_deref(), Some("all"));
    assert_eq!(key(&mut with("['{org}:{userId}']"), payload).as_deref(), Some("acme:u"));
    assert_eq!(key(&mut with("['list.0.id']"), payload).as_deref(), Some("7"));
    assert_eq!(key(&mut with("['payload.payload.category', 'category']"), payload).as_deref(), Some("14"));
    assert_eq!(
        key(&mut with("['category']"), payload).as_deref(),
        Some("a"),
        "the event's, not the payload's"
    );
    // A template without all its fields is no key: half a key would bring strangers together.
    assert_eq!(key(&mut with("['{org}:{teamId}', 'userId']"), payload).as_deref(), Some("u"));
    assert_eq!(key(&mut with("['{org}:{teamId}']"), payload), None);
}

#[test]
fn every_sink_gets_its_first_match_in_its_own_form() {
    let mut router = router(
        r#"
[[route]]
match = ["*", "!*.Idle"]
sink = "lake"
format = "cloudevents"
[[route]]
match = ["engagementCenter.*"]
sink = "lake"
to = "idle"
format = "payload"
key = []
headers = { x-user = "{userId}", x-team = "billing", x-both = "{userId}/{teamId}" }
[[route]]
match = ["*.Idle"]
sink = "bus"
format = "raw"
[[route]]
match = ["chat.*", "engagementCenter.*"]
sink = "none"
"#,
    );
    let idle = event("engagementCenter.Idle", r#"{"userId":"u","n":1.0}"#);
    let made = records(&mut router, &idle);
    let [(0, lake), (1, bus)] = &made[..] else { panic!("{made:?}") };
    assert_eq!((&*lake.destination, &lake.value[..]), ("idle", &br#"{"userId":"u","n":1.0}"#[..]));
    assert_eq!(
        (&*bus.destination, &bus.value[..]),
        ("via.acme.engagementCenter.Idle", idle.raw().as_bytes())
    );
    assert_eq!((lake.key.as_deref(), bus.key.as_deref()), (None, Some("u")));
    assert_eq!((&lake.message_id, &lake.event), (&bus.message_id, &bus.message_id));
    let headers = |record: &Record| {
        let header = |h: &Header| format!("{}={}", h.name.spelled(HeaderStyle::Kafka), h.value);
        record.headers.iter().map(header).collect::<Vec<_>>()
    };
    assert_eq!(
        headers(lake),
        [
            "ce_specversion=1.0",
            "ce_id=1-0",
            "ce_source=via://acme",
            "ce_type=com.alvaria.engagementCenter.Idle",
            "ce_time=2018-01-30T14:04:20.539Z",
            "ce_correlationid=c-1",
            "ce_schemaversion=1",
            "content-type=application/json",
            "x-user=u",
            "x-team=billing",
            // x-both: a header without all its fields is none
        ]
    );
    let made = records(&mut router, &event("outreach.status", r#"{"sessionId":"s"}"#));
    let [(0, lake)] = &made[..] else { panic!("{made:?}") };
    assert_eq!(headers(lake), ["content-type=application/cloudevents+json"]);
    let value = String::from_utf8(lake.value.to_vec()).unwrap();
    assert!(value.starts_with(r#"{"specversion":"1.0","id":"1-0","source":"via://acme","#), "{value}");
    assert!(value.ends_with(r#""subject":"s","time":"2018-01-30T14:04:20.539Z","correlationid":"c-1","schemaversion":"1","datacontenttype":"application/json","data":{"sessionId":"s"}}"#), "{value}");
    // Dropped only where nothing else matches.
    assert_eq!(records(&mut router, &event("chat.SendText", "{}")).len(), 1);
}

#[test]
fn what_no_route_matches_is_a_dead_letter_and_what_none_alone_matches_is_dropped() {
    let mut router = router(
        "[[route]]\nmatch = [\"a.*\"]\nsink = \"none\"\n[[route]]\nmatch = [\"a.B\"]\nsink = \"lake\"\n",
    );
    assert!(matches!(router.plan(&event("x.Y", "{}")), Plan::DeadLetter(Reason::Unrouted, _)));
    assert!(matches!(router.plan(&event("a.C", "{}")), Plan::Dropped));
    assert_eq!(records(&mut router, &event("a.B", "{}")).len(), 1);
}

#[test]
fn templates_know_every_documented_field() {
    let destination = |to: &str, sink: &str, event: &Event| {
        let mut router = router(&format!("[[route]]\nmatch = [\"*\"]\nsink = \"{sink}\"\nto = '{to}'\n"));
        records(&mut router, event)[0].1.destination.to_string()
    };
    let screen_pop = event(
        "engagementCenter.ScreenPop",
        r#"{"userId":"u.1","payload":{"interactionId":1030,"info":{"ani":"+1 603"}," x ":"y"}}"#,
    );
    let of = |to: &str| destination(to, "bus", &screen_pop);
    assert_eq!(of("{org}.{source}.{category}.{name}"), "acme.main.engagementCenter.ScreenPop");
    assert_eq!(of("t.{eventType}.{interactionId}"), "t.engagementCenter.ScreenPop.1030");
    assert_eq!(of("{schemaVersion}.{correlationId}.{eventId}.{missing}"), "1.c-1.1-0._");
    assert_eq!(of("t.{\" x \"}"), "t.y");
    assert_eq!(of("t.{info.ani:plain}"), "t.+1_603");
    assert!(of("t.{info.ani}").starts_with("t.+1_603-"), "{}", of("t.{info.ani}"));
    assert_eq!(of("t.{userId:plain}"), "t.u_1");
    assert_eq!(destination("t {kind:plain}", "lake", &screen_pop), "t_via_x");
    let dotted = event("engagementCenter.Call.Ended", "{}");
    assert_eq!(destination("via.{name}", "lake", &dotted), "via.Call.Ended");
    let nameless = event("Idle", "{}");
    assert_eq!(destination("via.{category}.{name}", "lake", &nameless), "via.unknown.Idle");
}

#[test]
fn different_inputs_have_different_destinations() {
    let mut router = router("[[route]]\nmatch = [\"*\"]\nsink = \"bus\"\nto = \"t.{userId}.{teamId}\"\n");
    let mut destination = |user: &str, team: &str| {
        let payload = serde_json::json!({"userId": user, "teamId": team}).to_string();
        records(&mut router, &event("a.B", &payload))[0].1.destination.to_string()
    };
    let inputs = [
        ("a.b", "c"),
        ("a", "b.c"),
        ("a b", "c"),
        ("a*b", "c"),
        ("a_b", "c"),
        ("_", "c"),
        ("", "c"),
        ("c", "_"),
    ];
    let mut seen: Vec<String> = inputs.iter().map(|(user, team)| destination(user, team)).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), inputs.len(), "{seen:?}");
}

#[test]
fn names_in_checkpoints_are_the_vendors_and_names_that_readers_see_are_masked() {
    let mut router = router("[[route]]\nmatch = [\"*\"]\nsink = \"bus\"\n");
    let vendors = event("a.B", r#"{"phone":"6035551212"}"#);
    let entry = Entry::Event(vendors.clone()).rewritten(vendors.raw().replace("6035551212", "***"));
    let Entry::Event(masked) = entry else { panic!("no event") };
    let (before, after) = (&records(&mut router, &vendors)[0].1, &records(&mut router, &masked)[0].1);
    assert_eq!(before.event, after.event);
    assert_ne!(before.message_id, after.message_id);
    assert_eq!(before.message_id, before.event);
    let letter = DeadLetterRoute::local("main", "acme");
    let circumstances = Circumstances {
        session: "s",
        reason: Reason::Unrouted,
        detail: "",
        intended: None,
        masks: None,
        at: jiff::Timestamp::UNIX_EPOCH,
    };
    let letter = |event: &Event| letter.record(&Entry::Event(event.clone()), &circumstances);
    assert_eq!(letter(&vendors).event, letter(&masked).event);
    assert_ne!(letter(&vendors).message_id, letter(&masked).message_id);
}

#[test]
fn an_events_name_ends_with_the_first_half_of_its_hash() {
    for hash in [0, 1, u128::MAX, 0x0012_3456_789a_bcde_f000_0000_0000_0001] {
        let hash = ContentHash::from_u128(hash);
        let expected = format!("acme.1-0.{}", hash.prefix16());
        assert_eq!(&*event_name("acme", "1-0", hash), expected);
    }
}
