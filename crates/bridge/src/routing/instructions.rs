//! One batch on its way from the text of a response to records, for counting instructions: `scripts/instructions` runs
//! this test under callgrind and compares what [`parsed`] and [`planned`] take with `scripts/instructions.txt`.

use std::time::Instant;

use viaduct_poller::{ApiVersion, Entry, parse_response};

use super::{Plan, Router};
use crate::config::{self, LoadInput};
use crate::sinks;

const EVENTS: usize = 200;
const PAYLOAD: usize = 1024;

/// A response with the document's own payloads in turn, filled up to one size.
fn response() -> Vec<u8> {
    let types = viaduct_catalogue::listed().flat_map(|event| {
        event.examples.iter().map(move |payload| (event.event_type.as_str(), event.category(), payload))
    });
    let types: Vec<_> = types.filter(|(.., payload)| payload.starts_with('{')).collect();
    let entries =
        types.iter().cycle().take(EVENTS).enumerate().map(|(number, (event_type, category, payload))| {
            let rest = payload.trim_start_matches('{');
            let separator = if rest.trim_start().starts_with('}') { "" } else { "," };
            let padding = "x".repeat(PAYLOAD.saturating_sub(payload.len()));
            let payload = format!("{{\"padding\":\"{padding}\"{separator}{rest}");
            let payload = serde_json::Value::from(payload);
            format!(
                "{{\"kind\":\"via#{category}Event\",\"eventId\":\"1519073278252-{number}\",\
             \"correlationId\":\"5a8b2d2e-7b1f-4c3d-9e4f-0a1b2c3d4e5f\",\"eventType\":\"{event_type}\",\
             \"publishedTime\":\"2018-02-19T20:47:58.252Z\",\"schemaVersion\":\"1\",\"payload\":{payload}}}"
            )
        });
    let entries = entries.collect::<Vec<_>>().join(",");
    format!("{{\"kind\":\"via#streamingEventCollection\",\"totalItems\":{EVENTS},\"events\":[{entries}]}}")
        .into_bytes()
}

fn router() -> Router {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("viaduct.toml");
    let text = "[source.main]\napi_url = \"https://acme.example\"\norg_id = \"acme\"\n\
                [source.main.auth]\ntoken_url = \"https://acme.example/token\"\nclient_id = \"a\"\n\
                client_secret = \"hunter2\"\napi_key = \"hunter2\"\n\
                [sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n";
    std::fs::write(&file, text).unwrap();
    let input = LoadInput { file: Some(file), env: Vec::new(), overrides: Vec::new() };
    let config = config::load(input).unwrap().config;
    let naming: Vec<_> = config.sinks.iter().map(|sink| sinks::naming(&sink.kind)).collect();
    Router::new("main", "acme", "via://acme", &config.routes, &naming)
}

#[inline(never)]
fn parsed(body: Vec<u8>) -> Vec<Entry> {
    parse_response(body, ApiVersion::V3, Instant::now()).unwrap()
}

#[inline(never)]
fn planned(router: &mut Router, entries: &[Entry]) -> Vec<Plan> {
    let plan = |entry: &Entry| match entry {
        Entry::Event(event) => router.plan(event),
        Entry::Malformed(malformed) => panic!("{malformed:?}"),
    };
    entries.iter().map(plan).collect()
}

#[test]
fn a_batch_becomes_records() {
    let body = response();
    let mut router = router();
    // The names and types of a first batch are remembered for all that follow.
    for entry in parse_response(body.clone(), ApiVersion::V3, Instant::now()).unwrap() {
        if let Entry::Event(event) = entry {
            drop(router.plan(&event));
        }
    }
    let entries = parsed(body);
    let plans = planned(&mut router, &entries);
    assert_eq!(plans.len(), EVENTS);
    for plan in plans {
        let Plan::Records(records) = plan else { panic!("no records: {plan:?}") };
        let [(_, record)] = records.as_slice() else { panic!("not one record") };
        assert!(record.value.len() > PAYLOAD && record.headers.len() >= 8 && record.key.is_some());
    }
}
