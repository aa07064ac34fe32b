//! What `check` prints.

use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;
use tempfile::TempDir;

use super::*;

const RIGHT: &str = r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
api = "v2"
[source.main.auth]
token_url = "https://id.example.com/token"
client_id = "c4n4ry"
client_secret = "c4n4ry"
api_key = "c4n4ry"
[[source.main.subscription]]
description = "third party events"
catalog_type = "engagementCenterThirdParty"
events = ["all"]
[sink.lake]
type = "kafka"
bootstrap_servers = "one:9092, two:9092"
create_topics = true
[sink.lake.properties]
sasl.password = "c4n4ry"
security.protocol = "SASL_SSL"
[sink.bus]
type = "nats"
url = "nats://user:c4n4ry@localhost:4222"
stream = "VIA"
required = false
[sink.archive]
type = "file"
dir = "./events"
[sink.out]
type = "stdout"
[[route]]
match = ["engagementCenter.*", "outreach.*"]
sink = "lake"
[[route]]
match = ["*", "!chat.*"]
sink = "bus"
key = []
[[route]]
match = ["*", "!chat.*"]
sink = "archive"
format = "raw"
[[route]]
match = ["chat.*"]
sink = "none"
[dead_letter]
sink = "lake"
[mask]
fields = { phoneNumber = "last4", name = "hash" }
hash_key = "c4n4ry-c4n4ry-c4n4ry"
"#;

/// The output, and the failure.
fn checked(text: &str, strict: bool, json: bool) -> (String, Result<(), Failure>) {
    let dir = TempDir::new().unwrap();
    let file: PathBuf = dir.path().join("viaduct.toml");
    fs::write(&file, text).unwrap();
    let input = LoadInput { file: Some(file), ..LoadInput::default() };
    let mut out = Vec::new();
    let result = report(input, Show { strict, json, routes: false }, &mut out);
    let directory = format!("{}/", dir.path().display());
    (String::from_utf8(out).unwrap().replace(&directory, ""), result)
}

#[test]
fn what_a_right_configuration_means() {
    let (out, result) = checked(RIGHT, false, false);
    assert_eq!(result, Ok(()));
    assert_snapshot!(out, @r#"
    bridge viaduct
    source main: acme at https://acme.via.aspect-cloud.net/, API v2
      at most 2000 events in flight; a session not polled for 2m is lost; 1 subscription
      v2 has no acknowledgement: every response is on disk before it is published
    sink lake: kafka, one:9092,two:9092 with sasl.password, security.protocol, creates missing topics
      at least once: events are acknowledged only after they are here
    sink bus: nats, nats://localhost:4222 as user and password, stream VIA
      best effort (required = false): events are acknowledged without it
    sink archive: file, ./events, rotated at 64MiB
      at least once: events are acknowledged only after they are here
    sink out: stdout, standard output
      at least once: events are acknowledged only after they are here
    route engagementCenter.* outreach.* -> lake via.{category}, unwrapped, key: interactionId or sessionId or userId or ehubSessionId or correlationId
    route * !chat.* -> bus via.{org}.{category}.{name}, unwrapped, key: none
    route * !chat.* -> archive {category}, raw, key: interactionId or sessionId or userId or ehubSessionId or correlationId
    route chat.* -> dropped where nothing else matches
    dead letters: lake via.dead-letter; what that refuses: JSON Lines under ./viaduct-state
    mask: phoneNumber (last4), name (hash), what the vendor calls masked
    state: ./viaduct-state
    admin: http://127.0.0.1:9464/
    warning: viaduct.toml:30:1: [sink.out] receives nothing: no route goes to it
      hint: add a [[route]] with sink = "out", or remove it
    the configuration is right, with 1 warning
    "#);
}

#[test]
fn the_same_as_json() {
    let (out, result) = checked(RIGHT, false, true);
    assert_eq!(result, Ok(()));
    assert_snapshot!(out, @r#"
    {
      "ok": true,
      "warnings": [
        {
          "place": {
            "file": "viaduct.toml",
            "line": 30,
            "column": 1
          },
          "message": "[sink.out] receives nothing: no route goes to it",
          "hint": "add a [[route]] with sink = \"out\", or remove it"
        }
      ],
      "bridge": "viaduct",
      "sources": [
        {
          "name": "main",
          "org_id": "acme",
          "api_url": "https://acme.via.aspect-cloud.net/",
          "api": "v2",
          "max_in_flight": 2000,
          "inactivity_delay": "2m",
          "subscriptions": 1
        }
      ],
      "sinks": [
        {
          "name": "lake",
          "type": "kafka",
          "target": "one:9092,two:9092 with sasl.password, security.protocol, creates missing topics",
          "delivery": "at_least_once",
          "required": true
        },
        {
          "name": "bus",
          "type": "nats",
          "target": "nats://localhost:4222 as user and password, stream VIA",
          "delivery": "best_effort",
          "required": false
        },
        {
          "name": "archive",
          "type": "file",
          "target": "./events, rotated at 64MiB",
          "delivery": "at_least_once",
          "required": true
        },
        {
          "name": "out",
          "type": "stdout",
          "target": "standard output",
          "delivery": "at_least_once",
          "required": true
        }
      ],
      "routes": [
        {
          "match": [
            "engagementCenter.*",
            "outreach.*"
          ],
          "sink": "lake",
          "to": "via.{category}",
          "key": [
            "interactionId",
            "sessionId",
            "userId",
            "ehubSessionId",
            "correlationId"
          ],
          "format": "unwrapped"
        },
        {
          "match": [
            "*",
            "!chat.*"
          ],
          "sink": "bus",
          "to": "via.{org}.{category}.{name}",
          "key": [],
          "format": "unwrapped"
        },
        {
          "match": [
            "*",
            "!chat.*"
          ],
          "sink": "archive",
          "to": "{category}",
          "key": [
            "interactionId",
            "sessionId",
            "userId",
            "ehubSessionId",
            "correlationId"
          ],
          "format": "raw"
        },
        {
          "match": [
            "chat.*"
          ],
          "sink": null,
          "to": null,
          "key": [],
          "format": null
        }
      ],
      "dead_letters": "lake via.dead-letter; what that refuses: JSON Lines under ./viaduct-state",
      "mask": "phoneNumber (last4), name (hash), what the vendor calls masked",
      "state_dir": "./viaduct-state",
      "admin": "http://127.0.0.1:9464/"
    }
    "#);
}

#[test]
fn no_secret_is_printed() {
    for json in [false, true] {
        let (out, _) = checked(RIGHT, false, json);
        assert!(!out.contains("c4n4ry"), "{out}");
    }
}

#[test]
fn strict_turns_warnings_into_78() {
    let (out, result) = checked(RIGHT, true, false);
    assert!(out.contains("warning: "), "{out}");
    let failure = result.unwrap_err();
    assert_eq!(failure.exit(), Exit::Config);
    assert_snapshot!(failure, @r"
    1 warning in the configuration
      hint: mend them, or leave out --strict
    ");
    let (json, _) = checked(RIGHT, true, true);
    assert!(json.contains("\"ok\": false"), "{json}");
}

#[test]
fn mistakes_are_the_failure() {
    let (out, result) = checked("[log]\nlevle = \"info\"\n", false, false);
    let failure = result.unwrap_err();
    assert_eq!((out.as_str(), failure.exit()), ("", Exit::Config));
    let message = failure.to_string();
    assert!(
        message.contains("viaduct.toml:2:1: unknown key `levle` in [log]\n  hint: did you mean `level`?")
    );
    assert!(message.ends_with("3 mistakes in the configuration"), "{message}");
}

#[test]
fn mistakes_as_json_are_the_output() {
    let (out, result) = checked("[log]\nlevle = \"info\"\n", false, true);
    let failure = result.unwrap_err();
    assert_eq!(
        (failure.exit(), failure.to_string().as_str()),
        (Exit::Config, "3 mistakes in the configuration")
    );
    assert_snapshot!(out, @r#"
    {
      "ok": false,
      "mistakes": [
        {
          "place": {
            "file": "viaduct.toml"
          },
          "message": "a sink is missing",
          "hint": "add [sink.lake] with type = \"kafka\"; `viaduct init` writes an example"
        },
        {
          "place": {
            "file": "viaduct.toml"
          },
          "message": "a source is missing",
          "hint": "add [source.main]; `viaduct init` writes an example"
        },
        {
          "place": {
            "file": "viaduct.toml",
            "line": 2,
            "column": 1
          },
          "message": "unknown key `levle` in [log]",
          "hint": "did you mean `level`?"
        }
      ],
      "warnings": []
    }
    "#);
}

/// The table's lines, columns apart.
fn table(text: &str) -> Vec<Vec<String>> {
    let dir = TempDir::new().unwrap();
    let file: PathBuf = dir.path().join("viaduct.toml");
    fs::write(&file, text).unwrap();
    let input = LoadInput { file: Some(file), ..LoadInput::default() };
    let mut out = Vec::new();
    report(input, Show { routes: true, ..Show::default() }, &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    out.lines()
        .map(|line| {
            line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        })
        .collect()
}

#[test]
fn every_documented_type_is_in_the_table_of_routes() {
    let table = table(&RIGHT.replace("match = [\"*\", \"!chat.*\"]", "match = [\"messaging.*\"]"));
    let head = ["EVENT TYPE", "SINK", "DESTINATION", "FORMAT", "KEY"];
    assert_eq!(table[0], head);
    for event_type in crate::documented::event_types() {
        let lines: Vec<_> = table.iter().filter(|line| line[0] == event_type).collect();
        let sinks: Vec<_> = lines.iter().map(|line| line[1].as_str()).collect();
        match event_type.split_once('.').unwrap() {
            ("messaging", name) => {
                assert_eq!(sinks, ["bus", "archive"]);
                assert_eq!(lines[0][2..], [&format!("via.acme.messaging.{name}"), "unwrapped", "none"]);
            }
            (category, _) => {
                assert_eq!(sinks, ["lake"]);
                assert_eq!(lines[0][2], format!("via.{category}"));
            }
        }
    }
    let notes: Vec<_> = table.iter().filter(|line| line[0].starts_with("route ")).collect();
    assert_eq!(
        notes,
        [&["route 4 (chat.*) matches no documented event type: it waits for undocumented ones"]]
    );
}

#[test]
fn the_table_tells_what_is_dropped_and_what_is_unrouted() {
    let routes = "[[route]]\nmatch = [\"outreach.*\"]\nsink = \"none\"\n[[route]]\nmatch = [\"messaging.*\"]\nsink = \"bus\"\nto = \"via.{org}.{userId}\"\n";
    let (head, _) = RIGHT.split_once("[[route]]").unwrap();
    let table = table(&format!("{head}{routes}"));
    let of = |event_type: &str| table.iter().find(|line| line[0] == event_type).unwrap()[1..].to_vec();
    assert_eq!(of("outreach.status"), ["(dropped)"]);
    assert_eq!(of("engagementCenter.Idle"), ["(dead letters)"]);
    assert_eq!(of("messaging.EntityList")[..2], ["bus", "via.acme.{userId}"]);
}

#[test]
fn the_table_as_json_has_a_line_per_record() {
    let dir = TempDir::new().unwrap();
    let file: PathBuf = dir.path().join("viaduct.toml");
    fs::write(&file, RIGHT).unwrap();
    let input = LoadInput { file: Some(file), ..LoadInput::default() };
    let mut out = Vec::new();
    report(input, Show { routes: true, json: true, strict: false }, &mut out).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out).unwrap();
    let row = &report["event_types"][0];
    assert_eq!(
        (&row["type"], &row["fate"]),
        (&"engagementCenter.AcceptCallTimeout".into(), &"published".into())
    );
    assert_eq!(
        (&row["route"], &row["sink"], &row["to"]),
        (&1.into(), &"lake".into(), &"via.engagementCenter".into())
    );
    assert_eq!(report["sinks"][0]["name"], "lake");
}
