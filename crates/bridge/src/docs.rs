//! Every example in the documentation is run: configurations load, and records, tables and complaints are as shown.
//!
//! What a block of a page is, its info string says:
//!
//! - `toml`: a configuration; what it leaves out (source, sinks) is added. The blocks behind it are about it.
//! - `json event`: one event of the vendor per line, of API v2 with `json event v2`.
//! - `text dry-run`: what `viaduct run --dry-run` prints of these events.
//! - `text routes`: lines of what `viaduct check --routes` prints; `…` stands for others.
//! - `text check`: the mistakes or warnings of the configuration.
//! - `text`: for people alone.
//!
//! With `VIADUCT_UPDATE_DOCS=1` the pages are written anew instead.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use viaduct_poller::{ApiVersion, Entry, parse_entry};

use crate::check::routes_of;
use crate::config::{LoadInput, Loaded, Mistakes, load};
use crate::dry_run::Shower;
use crate::routing::Masks;

const SOURCE: &str = r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
[source.main.auth]
token_url = "https://myaspect.id.aspect-cloud.net/tokenservice/oauth2/access_token"
client_id = "hunter2"
client_secret = "hunter2"
api_key = "hunter2"
"#;

const LAKE: &str = "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\n";
const BUS: &str = "[sink.bus]\ntype = \"nats\"\nurl = \"nats://localhost:4222\"\nstream = \"VIA\"\n";
const ARCHIVE: &str = "[sink.archive]\ntype = \"file\"\ndir = \"./events\"\n";

/// When the examples happen: 2026-01-05T09:30:00Z.
const NOW: Timestamp = Timestamp::constant(1_767_605_400, 0);

/// A fenced block.
struct Block<'p> {
    info: &'p str,
    text: &'p str,
    line: usize,
}

/// The page as text between blocks, and the blocks: the text before a block, then the block.
fn blocks(page: &str) -> Vec<(&str, Block<'_>)> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("\n```") {
        let (info, body) = after.split_once('\n').expect("a block has lines");
        let end = body.find("```").expect("a block is closed");
        let line = page[..page.len() - after.len()].lines().count();
        blocks.push((before, Block { info, text: &body[..end], line }));
        rest = &body[end + 3..];
    }
    blocks.push((rest, Block { info: "", text: "", line: 0 }));
    blocks
}

/// A configuration with what the page leaves out.
fn completed(text: &str) -> Result<Loaded, Mistakes> {
    let mut whole = text.to_owned();
    if !text.contains("[source.") {
        whole.push_str(SOURCE);
    }
    for (name, sink) in [("lake", LAKE), ("bus", BUS), ("archive", ARCHIVE)] {
        let is_named = text.contains(&format!("sink = \"{name}\""));
        let is_only_sink = name == "lake" && !text.contains("sink = ");
        if (is_named || is_only_sink) && !text.contains(&format!("[sink.{name}]")) {
            whole.push_str(sink);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("viaduct.toml");
    fs::write(&file, whole).unwrap();
    let env = vec![("VIADUCT_MASK_KEY".to_owned(), "hunter2-hunter2-hunter2".to_owned())];
    load(LoadInput { file: Some(file), env, overrides: Vec::new() })
}

/// Mistakes or warnings without the directory of the file.
fn complaints(loaded: &Result<Loaded, Mistakes>) -> String {
    let text = match loaded {
        Ok(loaded) => loaded.warnings.iter().fold(String::new(), |mut text, warning| {
            writeln!(text, "{warning}").unwrap();
            text
        }),
        Err(mistakes) => format!("{mistakes}\n"),
    };
    let mut short = String::new();
    for line in text.lines() {
        let line = line
            .split_once("/viaduct.toml")
            .map_or(line.to_owned(), |(_, rest)| format!("viaduct.toml{rest}"));
        writeln!(short, "{line}").unwrap();
    }
    short
}

/// What stands where the page has `shown`: lines of the table that it shows, `…` for the others between them.
fn excerpt(shown: &str, table: &str) -> String {
    let types: Vec<&str> = shown.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let mut text = String::new();
    for line in table.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if types.contains(&first) {
            writeln!(text, "{line}").unwrap();
        } else if !text.ends_with("…\n") {
            text.push_str("…\n");
        }
    }
    text
}

/// Runs a page; returns it as it should be.
fn run(page: &str, name: &str) -> String {
    let mut config = completed("");
    let mut entries: Vec<Entry> = Vec::new();
    let mut whole = String::new();
    let mut complaints_are_due = String::new();
    for (before, block) in blocks(page) {
        whole.push_str(before);
        let place = format!("{name}:{}", block.line);
        if block.info != "text check" {
            assert_eq!(complaints_are_due, "", "the configuration before {place}");
        }
        complaints_are_due.clear();
        let right = || config.as_ref().unwrap_or_else(|mistakes| panic!("{place}: {mistakes}"));
        let text = match block.info {
            "" => break,
            "toml" => {
                config = completed(block.text);
                complaints_are_due = complaints(&config);
                block.text.to_owned()
            }
            "json event" | "json event v2" => {
                let api = if block.info.ends_with("v2") { ApiVersion::V2 } else { ApiVersion::V3 };
                let parse = |line: &str| parse_entry(line.to_owned(), api, Instant::now());
                entries = block.text.lines().map(parse).collect();
                block.text.to_owned()
            }
            "text dry-run" => {
                let config = &right().config;
                let masks = config.mask.as_ref().map(|_| masks(config));
                let mut shower = Shower::new(config, &config.sources[0], masks.flatten());
                let shown = entries.iter().map(|entry| shower.show(entry.clone(), "s-1", NOW));
                shown.collect::<String>().trim_end().to_owned() + "\n"
            }
            "text routes" => excerpt(block.text, &routes_of(&right().config)),
            "text" => block.text.to_owned(),
            "text check" => complaints(&config),
            other => panic!("{place}: nothing is known of a block `{other}`"),
        };
        write!(whole, "\n```{}\n{text}```", block.info).unwrap();
    }
    whole
}

/// The page names its key by a variable, which only the loading above knows.
fn masks(config: &crate::config::Config) -> Option<std::sync::Arc<Masks>> {
    let mut config = config.clone();
    if let Some(mask) = &mut config.mask {
        mask.hash_key = Some(crate::config::SecretRef::literal("hunter2-hunter2-hunter2"));
    }
    Masks::of(&config).unwrap()
}

fn page(name: &str) {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let page = fs::read_to_string(&file).unwrap();
    let whole = run(&page, name);
    if std::env::var_os("VIADUCT_UPDATE_DOCS").is_some() {
        fs::write(file, whole).unwrap();
    } else if let Some((is, should_be)) = page.lines().zip(whole.lines()).find(|(one, other)| one != other) {
        panic!("{name} shows\n{is}\nand it is\n{should_be}");
    } else {
        assert_eq!(page.len(), whole.len(), "{name} is longer or shorter than what its examples come to");
    }
}

#[test]
fn the_examples_of_records_are_right() {
    page("records.md");
}

#[test]
fn the_examples_of_routes_are_right() {
    page("routes.md");
}

#[test]
fn the_examples_of_tracing_are_right() {
    page("tracing.md");
}

#[test]
fn the_examples_of_masking_are_right() {
    page("masking.md");
}
