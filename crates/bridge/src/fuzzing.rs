//! What is fuzzed, and what must hold for any input; the targets in `fuzz/` call these, and so does the replay of their
//! corpus among the ordinary tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
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
            assert_eq!(is_event(&again), is_event(&entry), "an entry by itself is the same entry: {raw}");
            if let Entry::Event(event) = &entry {
                assert_eq!(again.identity(), entry.identity(), "{raw}");
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

/// A configuration, behind the tables of a right one (`BASE`).
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
    // Quotes that a name does not need are left out.
    let again = Template::parse(&parsed.to_string());
    assert_eq!(again.as_ref(), Ok(&parsed), "a template says what it was made of");
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 4] = [
        ("event_response", event_response),
        ("configuration", configuration),
        ("template", template),
        ("checkpoint", checkpoint),
    ];

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
        let read = |directory: &Path| -> std::io::Result<Vec<(PathBuf, Vec<u8>)>> {
            let files = fs::read_dir(directory)?.map(|file| file.map(|file| file.path()));
            files.map(|file| file.and_then(|file| Ok((file.clone(), fs::read(file)?)))).collect()
        };
        let mut inputs = read(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        inputs.sort();
        assert!(inputs.len() > 5, "{name} has {} inputs", inputs.len());
        inputs.into_iter().map(|(_, input)| input).collect()
    }

    /// The fuzz targets compile and hold for their corpus, without a fuzzer.
    #[test]
    fn the_corpus_of_every_target_passes() {
        for (name, target) in TARGETS {
            corpus(name).iter().for_each(|input| target(input));
        }
    }

    /// What a fuzzer without eyes would do to an input.
    #[derive(Debug, Clone)]
    enum Edit {
        Replace(usize, Vec<u8>),
        Insert(usize, Vec<u8>),
        Remove(usize, usize),
        /// A piece of another input of the corpus: which, from where, how long.
        Splice(usize, usize, usize, usize),
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 1..4),
            prop::sample::select(vec![
                &b"\""[..],
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b"\\",
                b"\\u",
                b"\\ud83d",
                b"\n",
                b"\0",
                b"null",
                b"'",
                b"\"\"\"",
                b"=",
                b"#",
                b".",
                b"..",
                b"-1",
                b"1e999",
                b"18446744073709551616",
                b"{a}",
                b"*",
                b">",
                b"/",
                b"\xc3",
                b"\xef\xbb\xbf",
                b"\xe2\x80\xa8",
                b"[[",
                b"]]",
                b"{ env = \"X\" }",
            ])
            .prop_map(<[u8]>::to_vec),
        ];
        let at = 0usize..2000;
        let edit = prop_oneof![
            (at.clone(), piece.clone()).prop_map(|(at, piece)| Edit::Replace(at, piece)),
            (at.clone(), piece).prop_map(|(at, piece)| Edit::Insert(at, piece)),
            (at.clone(), 1usize..20).prop_map(|(at, length)| Edit::Remove(at, length)),
            (at.clone(), 0usize..20, at, 1usize..60)
                .prop_map(|(at, of, from, length)| Edit::Splice(at, of, from, length)),
        ];
        prop::collection::vec(edit, 1..8)
    }

    fn edited(corpus: &[Vec<u8>], seed: usize, edits: &[Edit]) -> Vec<u8> {
        let mut input = corpus[seed % corpus.len()].clone();
        for edit in edits {
            let place = |at: usize| at % (input.len() + 1);
            match edit {
                Edit::Replace(at, piece) => {
                    let at = place(*at);
                    let end = (at + piece.len()).min(input.len());
                    input.splice(at..end, piece.iter().copied());
                }
                Edit::Insert(at, piece) => {
                    let at = place(*at);
                    input.splice(at..at, piece.iter().copied());
                }
                Edit::Remove(at, length) => {
                    let at = place(*at);
                    let end = (at + length).min(input.len());
                    input.drain(at..end);
                }
                Edit::Splice(at, of, from, length) => {
                    let other = &corpus[of % corpus.len()];
                    let from = from % (other.len() + 1);
                    let end = (from + length).min(other.len());
                    let at = place(*at);
                    input.splice(at..at, other[from..end].iter().copied());
                }
            }
        }
        input
    }

    /// More of them for a longer run: `VIADUCT_FUZZ_CASES`.
    fn cases() -> u32 {
        std::env::var("VIADUCT_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

        /// So do its neighbours.
        #[test]
        fn what_is_like_the_corpus_passes(seed in 0usize..20, edits in edits()) {
            static CORPORA: LazyLock<[Vec<Vec<u8>>; 4]> = LazyLock::new(|| TARGETS.map(|(name, _)| corpus(name)));
            for ((name, target), corpus) in TARGETS.into_iter().zip(&*CORPORA) {
                let input = edited(corpus, seed, &edits);
                let passed = std::panic::catch_unwind(|| target(&input));
                prop_assert!(passed.is_ok(), "{} fails for {:?}", name, String::from_utf8_lossy(&input));
            }
        }
    }
}
