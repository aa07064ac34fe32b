//! The schemas against what the program accepts and makes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Parser;
use serde_json::{Value, json};

use super::*;
use crate::cli::{Cli, Command};
use crate::config::{LoadInput, json_schema, load};

fn printed(arguments: &[&str]) -> Result<String, Failure> {
    let cli = Cli::try_parse_from(["viaduct", "schema"].iter().chain(arguments)).expect("a command line");
    let Command::Schema { command } = cli.command else { panic!("not `schema`") };
    let mut out = Vec::new();
    schema(&command, &mut out).map(|()| String::from_utf8(out).expect("UTF-8"))
}

fn asyncapi(toml: &str) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("viaduct.toml");
    std::fs::write(&file, toml).expect("written");
    let text = printed(&["asyncapi", "-c", file.to_str().expect("UTF-8")]).expect("a document");
    serde_json::from_str(&text).expect("JSON")
}

const SOURCE: &str = r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
[source.main.auth]
token_url = "https://id.example/token"
client_id = "hunter2-id"
client_secret = "hunter2-secret"
api_key = "hunter2-key"
"#;

const SINKS: &str = r#"
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
[sink.lake.properties]
"sasl.password" = "hunter2-password"
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
[sink.archive]
type = "file"
dir = "./events"
"#;

#[test]
fn one_type_all_types_and_a_file_each() {
    let one: Value =
        serde_json::from_str(&printed(&["events", "--type", "outreach.status"]).unwrap()).unwrap();
    assert_eq!(one["title"], "outreach.status");
    let all: Value = serde_json::from_str(&printed(&["events"]).unwrap()).unwrap();
    assert_eq!(all["$defs"]["outreach.status"]["title"], "outreach.status");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("schemas");
    printed(&["events", "--dir", dir.to_str().unwrap()]).unwrap();
    let names: BTreeSet<_> =
        std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), events().len());
    assert!(names.contains(std::ffi::OsStr::new("engagementCenter.Idle.schema.json")));
}

#[test]
fn an_unknown_type_is_a_wrong_command_line() {
    let failure = printed(&["events", "--type", "engagementCenter.idel"]).unwrap_err();
    assert_eq!(failure.exit(), Exit::Usage);
    insta::assert_snapshot!(failure, @r"
    engagementCenter.idel is no event type of the vendor's document
      hint: did you mean engagementCenter.Idle?
    ");
}

#[test]
fn channels_are_where_the_default_routes_lead() {
    let document = asyncapi(&[SOURCE, SINKS].concat());
    let addresses = |sink: &str| -> BTreeSet<String> {
        let channels = document["channels"].as_object().unwrap();
        let of_sink = channels
            .values()
            .filter(|channel| channel["servers"][0]["$ref"] == format!("#/servers/{sink}").as_str());
        of_sink.map(|channel| channel["address"].as_str().unwrap().to_owned()).collect()
    };
    let lake = addresses("lake");
    assert_eq!(lake.iter().collect::<Vec<_>>(), ["via.engagementCenter", "via.messaging", "via.outreach"]);
    let bus = addresses("bus");
    assert_eq!(bus.len(), 67);
    assert!(bus.contains("via.acme.engagementCenter.Idle"));
    assert!(addresses("archive").is_empty());
    assert_eq!(document["channels"]["lake_via.outreach"]["messages"].as_object().unwrap().len(), 3);
    assert_eq!(
        document["servers"]["bus"],
        json!({
            "host": "localhost:4222", "protocol": "nats", "description": "Sink `bus`: JetStream stream `VIA`."
        })
    );
    assert!(!document.to_string().contains("hunter2"));
}

#[test]
fn fields_that_only_an_event_knows_are_parameters_and_the_first_route_per_sink_wins() {
    let routes = r#"
[[route]]
match = ["outreach.*"]
sink = "lake"
to = "calls.{source}.{interactionInfo.screenData.ani} x"
format = "raw"
[[route]]
match = ["*"]
sink = "lake"
to = "all"
[dead_letter]
sink = "bus"
to = "via.dead.{org}"
"#;
    let document = asyncapi(&[SOURCE, SINKS, routes].concat());
    let calls = &document["channels"]["lake_calls.main._interactionInfo_screenData_ani__x"];
    assert_eq!(calls["address"], "calls.main.{interactionInfo_screenData_ani}_x");
    assert!(calls["parameters"]["interactionInfo_screenData_ani"]["description"].is_string());
    let names = |channel: &str| -> Vec<String> {
        document["channels"][channel]["messages"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(
        names("lake_calls.main._interactionInfo_screenData_ani__x"),
        [
            "outreach.automationScriptStatus.raw.kafka",
            "outreach.disposition.raw.kafka",
            "outreach.status.raw.kafka"
        ]
    );
    assert_eq!(names("lake_all").len(), 64);
    assert_eq!(names("bus_via.dead.acme"), ["dead-letter.nats"]);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    fn references<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                into.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, into));
            }
            Value::Array(elements) => elements.iter().for_each(|value| references(value, into)),
            _ => {}
        }
    }
    let document = asyncapi(&[SOURCE, SINKS].concat());
    let mut all = Vec::new();
    references(&document, &mut all);
    assert!(all.len() > 67 * 4);
    for reference in all {
        let pointer = reference.strip_prefix('#').expect("a local reference");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// Every path of keys in the configuration's schema, with a placeholder name for what the user names.
fn key_paths(schema: &Value) -> Vec<Vec<String>> {
    fn walk(root: &Value, at: &Value, path: &mut Vec<String>, into: &mut Vec<Vec<String>>) {
        let at = match at["$ref"].as_str() {
            Some(reference) => root.pointer(&reference[1..]).expect("it leads somewhere"),
            None => at,
        };
        for (key, value) in at["properties"].as_object().into_iter().flatten() {
            path.push(key.clone());
            into.push(path.clone());
            walk(root, value, path, into);
            path.pop();
        }
        if path.len() < 6 && at["additionalProperties"].is_object() {
            path.push("main".to_owned());
            walk(root, &at["additionalProperties"], path, into);
            path.pop();
        }
        for (word, mark) in [("items", Some("[]")), ("oneOf", None), ("anyOf", None)] {
            let below = match &at[word] {
                Value::Array(all) => all.iter().collect(),
                Value::Object(_) => vec![&at[word]],
                _ => Vec::new(),
            };
            for one in below {
                path.extend(mark.map(str::to_owned));
                let kind = one["properties"]["type"]["const"].as_str().map(|kind| format!("type={kind}"));
                path.extend(kind.clone());
                walk(root, one, path, into);
                if kind.is_some() {
                    path.pop();
                }
                if mark.is_some() {
                    path.pop();
                }
            }
        }
    }
    let mut paths = Vec::new();
    walk(schema, schema, &mut Vec::new(), &mut paths);
    paths
}

/// A configuration that has nothing but this key, with a value that no key takes.
/// Tables whose keys the user chooses.
fn takes_any_name(table: &[String]) -> bool {
    table.iter().any(|part| ["properties", "headers", "fields"].contains(&part.as_str()))
}

fn toml_of(path: &[String]) -> String {
    let mut value = "[[[]]]".to_owned();
    for part in path.iter().rev() {
        value = match (part.as_str(), part.strip_prefix("type=")) {
            ("[]", _) => format!("[{value}]"),
            // Goes into the table that the key below has made.
            (_, Some(kind)) => value.replacen("{ ", &format!("{{ type = \"{kind}\", "), 1),
            (key, None) => format!("{{ \"{key}\" = {value} }}"),
        };
    }
    let members = value.strip_prefix("{ ").and_then(|value| value.strip_suffix(" }"));
    members.expect("a path begins with a key").to_owned()
}

#[test]
fn every_key_in_the_schema_is_one_that_the_program_knows() {
    let schema = json_schema();
    jsonschema::draft202012::meta::validate(&schema).expect("valid against its meta-schema");
    let paths = key_paths(&schema);
    assert!(paths.len() > 100, "{}", paths.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("viaduct.toml");
    let complaints = |path: &[String]| {
        let text = toml_of(path);
        std::fs::write(&file, &text).unwrap();
        let input = LoadInput { file: Some(PathBuf::from(&file)), ..LoadInput::default() };
        (text, load(input).expect_err("nothing but one key is no configuration").to_string())
    };
    for path in &paths {
        let (text, said) = complaints(path);
        assert!(!said.contains("unknown key"), "{text}\n{said}");
        // The same place with another key; tables of properties take any.
        let mut other = path.clone();
        let closed = !path[..path.len() - 1]
            .iter()
            .any(|part| ["properties", "headers", "fields"].contains(&part.as_str()));
        if let Some(last) = other.last_mut().filter(|last| closed && *last != "type") {
            *last = format!("no-such-{last}");
            let (text, said) = complaints(&other);
            assert!(said.contains("unknown key"), "{text}\n{said}");
        }
    }
}

#[test]
fn every_key_that_the_program_knows_is_in_the_schema() {
    let mut keys: BTreeMap<Vec<String>, BTreeSet<String>> = BTreeMap::new();
    for mut path in key_paths(&json_schema()) {
        let key = path.pop().expect("a path is not empty");
        keys.entry(path).or_default().insert(key);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("viaduct.toml");
    for (table, in_schema) in keys.iter().filter(|(table, _)| !takes_any_name(table)) {
        let path: Vec<_> = table.iter().cloned().chain(["qqqq".to_owned()]).collect();
        std::fs::write(&file, toml_of(&path)).unwrap();
        let input = LoadInput { file: Some(file.clone()), ..LoadInput::default() };
        let said = load(input).expect_err("there is no such key").to_string();
        let list = said.split("the keys here are ").nth(1).and_then(|rest| rest.lines().next());
        let known: BTreeSet<_> = list.unwrap_or_else(|| panic!("{path:?}: {said}")).split(", ").collect();
        assert_eq!(in_schema.iter().map(String::as_str).collect::<BTreeSet<_>>(), known, "{table:?}");
    }
}

#[test]
fn the_configurations_that_init_writes_fit_the_schema() {
    let validator = jsonschema::validator_for(&json_schema()).expect("a schema");
    let folder = tempfile::tempdir().unwrap();
    for (index, flags) in [&["--kafka", "--nats"][..], &["--kafka", "--simulator"], &[]].iter().enumerate() {
        let file = folder.path().join(format!("{index}.toml"));
        let command = ["viaduct", "init", "--output", file.to_str().unwrap()];
        let cli = Cli::try_parse_from(command.iter().chain(flags.iter())).unwrap();
        let Command::Init(args) = cli.command else { panic!("not `init`") };
        crate::init::init(&args, &mut Vec::new()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let value: Value = toml::from_str(&text).unwrap();
        if let Err(error) = validator.validate(&value) {
            panic!("{}: {error}", error.instance_path());
        }
        let misspelt: Value = toml::from_str(&text.replace("org_id", "org")).unwrap();
        assert!(!validator.is_valid(&misspelt));
    }
}

#[test]
fn the_configuration_is_printed_for_editors_and_for_people() {
    let schema: Value = serde_json::from_str(&printed(&["config"]).unwrap()).unwrap();
    let events = &schema["$defs"]["Source"]["properties"]["max_events"];
    assert_eq!((&events["default"], &events["maximum"]), (&json!(200), &json!(200)));
    let page = printed(&["config", "--markdown"]).unwrap();
    assert!(page.starts_with("# Configuration\n"), "{page}");
    assert!(page.contains("\n| `max_events` | number, 1 to 200 | `200` | "), "{page}");
}
