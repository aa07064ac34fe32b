//! `viaduct schema`, and events that are not as the vendor documents them.

use std::time::Duration;

use serde_json::{Value, json};
use viaduct_simulator::Settings;

use crate::kit::bridge::Site;
use crate::kit::destinations::Files;
use crate::kit::page::Page;
use crate::kit::vendor::{Vendor, settings};

#[test]
fn the_page_about_schemas_is_right() {
    let page = Page::read("schemas.md");
    let folder = tempfile::tempdir().unwrap();
    let [configuration, validate] = page.of("toml")[..] else { panic!("blocks are missing") };
    std::fs::write(folder.path().join("viaduct.toml"), configuration.text()).unwrap();
    for block in page.of("console") {
        block.run_in(folder.path());
    }
    // Both examples fit the schema that the page has just written.
    let schema = std::fs::read_to_string(folder.path().join("viaduct.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for block in [configuration, validate] {
        let value: Value = toml::from_str(block.text()).unwrap();
        assert!(validator.is_valid(&value), "{}", block.text());
    }
}

fn odd_event(id: &str, event_type: &str, payload: &Value) -> String {
    json!({
        "kind": "via#engagementCenterEvent", "eventId": id, "correlationId": "c", "eventType": event_type,
        "publishedTime": "2026-01-30T14:04:20.539Z", "schemaVersion": "1", "payload": payload.to_string(),
    })
    .to_string()
}

/// Documented events, and four that are not: published, counted, and one kind of them refused where that is asked for.
async fn validated(validate: &str) -> (Vec<String>, Vec<Value>, String) {
    let vendor = Vendor::start(Settings { total: Some(200), ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let files = Files(folder.path().to_owned());
    let site = Site::new(&[vendor.source(&format!("validate = \"{validate}\"")), files.sink()].concat());
    let mut bridge = site.start();
    let control = vendor.0.control();
    for (id, event_type, payload) in [
        ("odd-1", "engagementCenter.NewTeam", json!({"payload": {"friendlyName": 7}})),
        ("odd-2", "engagementCenter.Dialing", json!({"payload": {"mediaType": "Smoke"}})),
        ("odd-3", "engagementCenter.NewTeam", json!({"payload": {"colour": "red"}})),
        ("odd-4", "engagementCenter.Unheard", json!({"payload": {}})),
    ] {
        control.emit_raw(&odd_event(id, event_type, &payload)).unwrap();
    }
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    let (code, metrics) = bridge.get("/metrics").await.unwrap();
    assert_eq!(code, 200);
    bridge.terminate().await;
    let published: Vec<String> = files.read().into_iter().map(|seen| seen.event_id).collect();
    assert!(published.len() >= 202, "{}", published.len());
    let odd = published.into_iter().filter(|id| id.starts_with("odd-")).collect();
    let letters =
        std::fs::read_to_string(site.path("state/dead-letters/dead-letters.jsonl")).unwrap_or_default();
    let letters = letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let drift = metrics.lines().filter(|line| line.starts_with("viaduct_schema_drift_total"));
    (odd, letters, drift.collect::<Vec<_>>().join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_counted_and_published_where_it_is_only_reported() {
    let (mut odd, letters, drift) = validated("report").await;
    odd.sort_unstable();
    assert_eq!(odd, ["odd-1", "odd-2", "odd-3", "odd-4"]);
    assert!(letters.is_empty());
    let series = |event_type: &str, field: &str, problem: &str| {
        format!(
            "viaduct_schema_drift_total{{source=\"main\",type=\"{event_type}\",field=\"{field}\",problem=\"{problem}\"}} 1"
        )
    };
    let expected = [
        series("engagementCenter.Dialing", "payload.mediaType", "unknown_value"),
        series("engagementCenter.NewTeam", "payload", "unknown_field"),
        series("engagementCenter.NewTeam", "payload.friendlyName", "wrong_type"),
        series("other", "$", "unknown_type"),
    ];
    assert_eq!(drift, expected.join("\n"));
    let page = Page::read("schemas.md");
    assert_eq!(page.of("text")[0].text().trim_end(), expected[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_schema_refuses_becomes_a_dead_letter_where_that_is_asked_for() {
    let (mut odd, letters, drift) = validated("dead_letter").await;
    odd.sort_unstable();
    assert_eq!(odd, ["odd-3", "odd-4"], "what the vendor added is no reason");
    assert_eq!(drift.lines().count(), 4);
    let mut told: Vec<_> = letters
        .iter()
        .map(|letter| {
            let headers = &letter["headers"];
            assert_eq!(headers["viaduct-reason"], "schema");
            assert_eq!(headers["__connect.errors.stage"], "VALIDATE");
            let text = |value: &Value| value.as_str().expect("text").to_owned();
            (text(&letter["event"]["eventId"]), text(&headers["__connect.errors.exception.message"]))
        })
        .collect();
    told.sort_unstable();
    let why = |id: &str, event_type: &str, what: &str| {
        (
            id.to_owned(),
            format!("the payload is not as the vendor documents engagementCenter.{event_type}: {what}"),
        )
    };
    assert_eq!(
        told,
        [
            why("odd-1", "NewTeam", "payload.friendlyName has another type"),
            why("odd-2", "Dialing", "payload.mediaType has a value that is not in its list"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_unless_asked() {
    let (odd, letters, drift) = validated("off").await;
    assert_eq!((odd.len(), letters.len(), drift.as_str()), (4, 0, ""));
}
