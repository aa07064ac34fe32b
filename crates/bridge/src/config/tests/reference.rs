//! What the reference says of defaults and limits is what the checks do.

use toml::{Table, Value};

use super::super::reference::{Default, Key, Section, sections};
use super::super::units::{duration, duration_text, size, size_text};
use super::load_with;

/// Every table there is, each with its required keys alone.
const BARE: &str = r#"
[bridge]
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
[source.main.auth]
token_url = "https://id.example/token"
client_id = "id"
client_secret = "secret"
api_key = "key"
[source.main.session]
[source.main.retry]
[[source.main.subscription]]
description = "all users"
catalog_type = "changeNotification"
events = ["user"]
[sink.kafka]
type = "kafka"
bootstrap_servers = "localhost:9092"
[sink.nats]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
[sink.nats.tls]
[sink.file]
type = "file"
dir = "./events"
[sink.stdout]
type = "stdout"
[[route]]
match = ["*"]
sink = "kafka"
[dead_letter]
sink = "kafka"
[mask]
[state]
[admin]
[log]
[tracing]
otlp_endpoint = "http://localhost:4318"
"#;

/// A key without which the limits of another one cannot be reached.
fn companion(key: &str) -> Option<(&'static str, Value)> {
    match key {
        "max_in_flight" => Some(("max_events", 1.into())),
        "poll_timeout" => Some(("inactivity_delay", "600s".into())),
        "initial" => Some(("max", "10m".into())),
        "max" => Some(("initial", "10ms".into())),
        _ => None,
    }
}

/// The table of a section in the bare configuration.
fn table<'t>(root: &'t mut Table, section: &Section) -> &'t mut Table {
    let name = section.kind.as_deref().unwrap_or("main");
    let name = if section.path.starts_with("sink.<name>.") { "nats" } else { name };
    let path = section.path.replace("<name>", name);
    path.split('.').fold(root, |table, step| {
        let key = step.trim_end_matches("[]");
        match table.get_mut(key).unwrap_or_else(|| panic!("BARE has no [{}]", section.path)) {
            Value::Table(table) => table,
            Value::Array(list) => list[0].as_table_mut().expect("a list of tables"),
            _ => panic!("{key} is no table"),
        }
    })
}

/// The checked configuration of BARE after a change, or the mistakes.
fn after(section: &Section, change: impl FnOnce(&mut Table)) -> Result<String, String> {
    let mut root: Table = BARE.parse().expect("TOML");
    change(table(&mut root, section));
    let text = toml::to_string(&root).expect("TOML");
    load_with(&text, &[], &[])
        .map(|loaded| format!("{:?}", loaded.config))
        .map_err(|mistakes| mistakes.to_string())
}

fn keys(sections: &[Section]) -> impl Iterator<Item = (&Section, &Key)> {
    sections.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

#[test]
fn every_key_says_what_it_is_when_absent() {
    for (section, key) in keys(&sections()) {
        assert_ne!(key.default, Default::Unsaid, "{} in {}: see raw.rs", key.name, section.path);
    }
}

#[test]
fn a_default_is_what_an_absent_key_means() {
    let mut tried = 0;
    for (section, key) in keys(&sections()) {
        let Default::Value(default) = &key.default else { continue };
        let default = Value::try_from(default).expect("a TOML value");
        let absent = after(section, |_| {}).expect("BARE is right");
        let written = after(section, |table| drop(table.insert(key.name.clone(), default.clone())));
        assert_eq!(written, Ok(absent), "{} = {default} in {}", key.name, section.path);
        tried += 1;
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn required_keys_are_those_that_cannot_be_left_out() {
    let mut tried = 0;
    for (section, key) in keys(&sections()) {
        let mut was_there = false;
        let without = after(section, |table| was_there = table.remove(&key.name).is_some());
        let required = key.default == Default::Required;
        assert_eq!(was_there, required, "{} in {}", key.name, section.path);
        match without {
            Err(mistakes) => {
                assert!(required, "{} in {}", key.name, section.path);
                assert!(mistakes.contains(&format!("`{}`", key.name)), "{mistakes}");
            }
            Ok(_) => assert!(!required, "{} in {}", key.name, section.path),
        }
        tried += usize::from(required);
    }
    assert!(tried > 15, "{tried}");
}

#[test]
fn limits_are_those_of_the_checks() {
    let mut tried = 0;
    for (section, key) in keys(&sections()) {
        let Some([below, least, most, above]) = limits(key) else { continue };
        let with = |value: Value| {
            after(section, |table| {
                table.extend(companion(&key.name).map(|(name, value)| (name.to_owned(), value)));
                table.insert(key.name.clone(), value);
            })
        };
        let place = format!("{} in {}", key.name, section.path);
        for right in [least, most] {
            assert!(with(right.clone()).is_ok(), "{place} = {right}: {:?}", with(right.clone()));
        }
        for wrong in [below, above] {
            let mistakes = with(wrong.clone()).expect_err(&format!("{place} = {wrong}"));
            assert!(mistakes.contains(&format!("`{}`", key.name)), "{mistakes}");
        }
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
}

/// One below the least value, the least, the most, one above it.
fn limits(key: &Key) -> Option<[Value; 4]> {
    let (kind, range) = key.values.split_once(", ")?;
    let (least, most) = range.split_once(" to ")?;
    match kind {
        "number" => {
            let (least, most): (i64, i64) = (least.parse().ok()?, most.parse().ok()?);
            Some([least - 1, least, most, most + 1].map(Value::from))
        }
        "duration" => {
            let millisecond = std::time::Duration::from_millis(1);
            let (least, most) = (duration(least)?, duration(most)?);
            let all = [least - millisecond, least, most, most + millisecond];
            Some(all.map(|value| duration_text(value).into()))
        }
        "size" => {
            let (least, most) = (size(least)?, size(most)?);
            Some([least - 1, least, most, most + 1].map(|value| size_text(value).into()))
        }
        _ => None,
    }
}
