//! What the configuration accepts, what it refuses, and in which words.

mod accepted;
mod broken;
mod broken_sinks;
mod canary;
mod generated;
mod layers;
mod masks;
mod routes;
mod tls;
mod tracing;

use std::fs;

use tempfile::TempDir;

use super::{LoadInput, Loaded, Mistakes, load};

/// A source and a sink without a mistake, to put something wrong beside.
const SOURCE: &str = r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
[source.main.auth]
token_url = "https://myaspect.id.aspect-cloud.net/tokenservice/oauth2/access_token"
client_id = "id"
client_secret = "s3cret"
api_key = "key"
"#;

const SINK: &str = r#"
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
"#;

/// Loads a text as the file `viaduct.toml`, with variables and flags.
fn load_with(text: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Loaded, Mistakes> {
    let dir = TempDir::new().expect("a temporary directory");
    let file = dir.path().join("viaduct.toml");
    fs::write(&file, text).expect("a file in it");
    let owned =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    load(LoadInput { file: Some(file), env: owned(env), overrides: owned(overrides) })
}

/// The configuration and its warnings.
fn right(text: &str) -> Loaded {
    load_with(text, &[], &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// What a person reads about a broken configuration, without the temporary directory.
fn wrong(text: &str) -> String {
    wrong_with(text, &[], &[])
}

fn wrong_with(text: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> String {
    match load_with(text, env, overrides) {
        Ok(loaded) => panic!("this is accepted, with the warnings {:#?}", loaded.warnings),
        Err(mistakes) => short(&mistakes.to_string()),
    }
}

/// What a person reads about a doubtful one.
fn doubts(text: &str) -> String {
    let lines: Vec<_> = right(text).warnings.iter().map(|warning| short(&warning.to_string())).collect();
    lines.join("\n")
}

fn short(message: &str) -> String {
    let paths = message.lines().map(|line| match line.split_once("/viaduct.toml") {
        Some((directory, rest)) if directory.starts_with('/') => format!("viaduct.toml{rest}"),
        _ => line.to_owned(),
    });
    paths.collect::<Vec<_>>().join("\n")
}
