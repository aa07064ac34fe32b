//! What is fuzzed, and what must hold for any input; the targets in `fuzz/` call these, and so does the replay of their
//! corpus among the ordinary tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::de::IgnoredAny;
use viaduct_poller::{ApiVersion, Entry, Payload, parse_entry, parse_response};
use viaduct_sink::{Checkpoint, Progress, Record};

use crate::config::{Config, LoadInput, Place, Template, load_text};
use crate::routing::{Naming, Plan, Router};

/// Stands where a secret stands.
const CANARY: &str = "hunter2-c4n4ry";

/// A source and a sink of each kind, with secrets.
const BASE: &str = r#"
[source.main]
api_url = "https://acme.example"
org_id = "acme"
[source.main.auth]
token_url = "https://acme.example/token"
client_id = "hunter2-c4n4ry"
client_secret = "hunter2-c4n4ry"
api_key = "hunter2-c4n4ry"
[sink.lake]
type = "kafka"
bootstrap_servers = "a:9092"
[sink.lake.properties]
"sasl.password" = "hunter2-c4n4ry"
[sink.bus]
type = "nats"
url = "nats://user:hunter2-c4n4ry@b:4222"
stream = "VIA"
[sink.archive]
type = "file"
dir = "events"
"#;

/// The body of a GET /events answer, of both API versions.
pub fn event_response(body: &[u8]) {
    for api in [ApiVersion::V3, ApiVersion::V2] {
        let now = Instant::now();
        let Ok(entries) = parse_response(body.to_vec(), api, now) else { continue };
        let text = String::from_utf8_lossy(body);
        for entry in entries {
            let raw = raw(&entry);
            assert!(text.contains(raw), "an entry is a piece of the response: {raw}");
            let again = parse_entry(raw.to_owned(), api, now);
            assert_eq!(again.identity(), entry.identity(), "an entry by itself is the same entry: {raw}");
            assert_eq!(is_event(&again), is_event(&entry), "{raw}");
            if let Entry::Event(event) = &entry {
                assert!(!event.id().is_empty() && is_json(event.raw().as_bytes()), "{raw}");
                if let Payload::Json(json) = event.payload() {
                    assert!(is_json(json.as_bytes()), "{raw}");
                }
            }
            records(&entry);
        }
    }
}

fn raw(entry: &Entry) -> &str {
    match entry {
        Entry::Event(event) => event.raw(),
        Entry::Malformed(malformed) => malformed.raw(),
    }
}

fn is_event(entry: &Entry) -> bool {
    matches!(entry, Entry::Event(_))
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Whatever came, every record of it can be published.
fn records(entry: &Entry) {
    thread_local! {
        static CONFIG: Config = right(&format!("{BASE}\n[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nto = \"x\"\n"));
    }
    CONFIG.with(|config| check_records(config, entry));
}

fn right(text: &str) -> Config {
    configured(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn configured(text: &str) -> Result<Config, crate::config::Mistakes> {
    let input = LoadInput { file: Some(PathBuf::from("viaduct.toml")), ..LoadInput::default() };
    load_text(Some(text), input).map(|loaded| loaded.config)
}

fn check_records(config: &Config, entry: &Entry) {
    let Entry::Event(event) = entry else { return };
    let naming = [Naming::Kafka, Naming::Nats, Naming::File];
    let mut router = Router::new("main", "acme", "via://acme", &config.routes, &naming);
    let Plan::Records(records) = router.plan(event) else { return };
    for (sink, record) in records {
        assert!(is_json(&record.value), "a value is JSON: {:?}", record.value);
        check_destination(naming[sink.get()], &record.destination);
    }
}

fn check_destination(naming: Naming, name: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let right = match naming {
        Naming::Kafka => name != "." && name != ".." && name.chars().all(plain),
        Naming::File => !name.starts_with('.') && name.chars().all(plain),
        Naming::Nats => name.split('.').all(|token| {
            let legal = |c: char| !c.is_whitespace() && !c.is_control() && c != '*' && c != '>';
            !token.is_empty() && token.chars().all(legal)
        }),
    };
    assert!(right && !name.is_empty(), "{name:?} is no name for {naming:?}");
}

/// A configuration, behind the tables of [`BASE`].
pub fn configuration(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let text = format!("{BASE}{}", text.replace(CANARY, ""));
    let lines = text.lines().count() + 1;
    let input = LoadInput { file: Some(PathBuf::from("viaduct.toml")), ..LoadInput::default() };
    let shown = match load_text(Some(&text), input) {
        Ok(loaded) => format!("{loaded:?}"),
        Err(mistakes) => {
            for mistake in mistakes.all() {
                let there = match &mistake.place {
                    Place::Line { line, column, .. } => (1..=lines).contains(line) && *column > 0,
                    Place::File { .. } => true,
                    Place::Variable { .. } | Place::Flag { .. } | Place::Nowhere => false,
                };
                assert!(there, "a mistake has its place in the file: {mistake}");
                assert!(!mistake.message.is_empty() && !mistake.hint.is_empty(), "{mistake}");
            }
            format!("{mistakes} {mistakes:?}")
        }
    };
    assert!(!shown.contains(CANARY), "a secret is shown: {shown}");
}

/// A template in the first line, an event (v3) in the rest.
pub fn template(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (template, event) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(parsed) = Template::parse(template) else { return };
    assert_eq!(parsed.to_string(), template, "a template says what it was made of");
    let entry = parse_entry(event.to_owned(), ApiVersion::V3, Instant::now());
    let mut routes = String::new();
    for sink in ["lake", "bus", "archive"] {
        let to = toml::Value::String(template.to_owned());
        routes.push_str(&format!("[[route]]\nmatch = [\"*\"]\nsink = \"{sink}\"\nto = {to}\n"));
    }
    // Templates that no destination of that kind can have are refused here.
    if let Ok(config) = configured(&format!("{BASE}\n{routes}")) {
        check_records(&config, &entry);
    }
}

/// A checkpoint in the first line, its pages in the others.
pub fn checkpoint(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let text = lines.next().unwrap_or_default();
    let pages: Vec<&[u8]> = lines.collect();
    let page_of = |number: u32| {
        let page = pages.get(usize::try_from(number).ok()?.checked_rem(pages.len())?)?;
        Some(Bytes::copy_from_slice(page))
    };
    let Ok(read) = Checkpoint::decode(text, page_of) else {
        return;
    };
    let mut once = Written::of(read);
    for _ in 0..4 {
        let read = once.read();
        let twice = Written::of(read);
        // What is too old may be forgotten, or turned into pages, step by step; nothing else changes.
        assert!(twice.events.keys().all(|event| once.events.contains_key(event)));
        once = twice;
    }
    let mut progress = once.progress();
    for (event, record) in once.events {
        let record = Record {
            destination: "d".into(),
            key: None,
            headers: Vec::new(),
            value: Bytes::new(),
            timestamp_ms: None,
            message_id: record,
            event: event.clone(),
        };
        assert!(progress.recognise(&record), "what stands there is known");
        progress.acknowledged(&event);
        assert!(!progress.recognise(&record), "what is acknowledged is forgotten");
    }
}

/// A checkpoint as it is written by whoever has read one.
struct Written {
    text: Bytes,
    pages: BTreeMap<u32, Bytes>,
    /// Events and their last records.
    events: BTreeMap<Arc<str>, Arc<str>>,
}

impl Written {
    fn of(read: Checkpoint) -> Self {
        // The pages that stand there already.
        let before = read.clone();
        let mut progress = Progress::claim(read.owner.clone(), 4096, Some(read));
        let proposal = progress.propose([]);
        let text = proposal.text().clone();
        let mut pages: BTreeMap<u32, Bytes> =
            before.pages.iter().map(|page| (page.number, page_text(page))).collect();
        for (number, text) in proposal.pages() {
            match text {
                Some(text) => drop(pages.insert(*number, text.clone())),
                None => drop(pages.remove(number)),
            }
        }
        progress.commit(proposal);
        let mut written = Self { text, pages, events: BTreeMap::new() };
        let read = written.read();
        let last = |remembered: &viaduct_sink::Remembered| {
            Some((remembered.event.clone(), remembered.records.last()?.clone()))
        };
        written.events = read.events().filter_map(last).collect();
        assert_eq!(progress.len(), written.events.len(), "what is remembered is written");
        written
    }

    fn read(&self) -> Checkpoint {
        let read = Checkpoint::decode(&self.text, |page| self.pages.get(&page).cloned());
        read.unwrap_or_else(|error| panic!("what was written cannot be read: {error}"))
    }

    fn progress(&self) -> Progress {
        let read = self.read();
        Progress::claim(read.owner.clone(), 4096, Some(read))
    }
}

/// A page as it may stand there; what is gone has any name.
fn page_text(page: &viaduct_sink::checkpoint::Page) -> Bytes {
    let gone = viaduct_sink::Remembered { event: "gone".into(), records: vec!["gone".into()] };
    let records: Vec<_> = page.events.iter().map(|event| event.as_ref().unwrap_or(&gone)).collect();
    let page = serde_json::json!({ "version": 1, "page": page.number, "records": records });
    page.to_string().into()
}

/// Runs a target over the inputs of a directory; returns how many there are.
///
/// # Errors
/// The directory cannot be read.
pub fn replay(directory: &Path, target: impl Fn(&[u8])) -> std::io::Result<usize> {
    let mut count = 0;
    for file in std::fs::read_dir(directory)? {
        target(&std::fs::read(file?.path())?);
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fuzz targets compile and hold for their corpus, without a fuzzer.
    #[test]
    fn the_corpus_of_every_target_passes() {
        let targets: [(&str, fn(&[u8])); 4] = [
            ("event_response", event_response),
            ("configuration", configuration),
            ("template", template),
            ("checkpoint", checkpoint),
        ];
        for (name, target) in targets {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
            let inputs =
                replay(&directory, target).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
            assert!(inputs > 5, "{name} has {inputs} inputs");
        }
    }
}
