//! `viaduct dlq`: dead letters of a real bridge, listed, shown and replayed while it runs.

mod files;
mod interrupted;
mod kafka;
mod nats;
mod page;

use std::path::PathBuf;

use serde_json::{Value, json};
use viaduct_simulator::{Rate, Settings};

use crate::kit::bridge::{Site, viaduct};
use crate::kit::invariants::discreet;
use crate::kit::vendor::{Vendor, settings};

/// What a command said.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// The last line of the output.
    fn summary(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }

    /// It ended well, with this as its last line.
    #[track_caller]
    fn is(&self, code: i32, summary: &str) {
        assert_eq!((self.code, self.summary()), (Some(code), summary), "{}\n{}", self.out, self.err);
    }

    /// It failed with this text among what it says.
    #[track_caller]
    fn fails(&self, code: i32, text: &str) {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        assert!(self.err.contains(text), "{text:?} is not in {}", self.err);
    }
}

/// Runs `viaduct dlq` with the site's configuration.
fn dlq(site: &Site, args: &[&str]) -> Said {
    dlq_with(site.config(), args)
}

/// The same with another configuration.
fn dlq_with(config: PathBuf, args: &[&str]) -> Said {
    let output = tokio::task::block_in_place(|| {
        viaduct().arg("dlq").args(args).arg("-c").arg(config).output().expect("viaduct starts")
    });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let said = Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    discreet("viaduct dlq", &[said.out.as_str(), said.err.as_str()].concat()).none();
    said
}

/// The lines of `dlq list --json`.
fn listed(site: &Site, more: &[&str]) -> Vec<Value> {
    let said = dlq(site, &[&["list", "--json"], more].concat());
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn texts(lines: &[Value], field: &str) -> Vec<String> {
    lines.iter().map(|line| line[field].as_str().unwrap_or("-").to_owned()).collect()
}

/// A configuration of the site with some text replaced, in a file of its own.
fn changed(site: &Site, from: &str, to: &str) -> PathBuf {
    let text = std::fs::read_to_string(site.config()).expect("a configuration");
    assert!(text.contains(from), "{from:?} is not in {text}");
    let path = site.path("changed.toml");
    std::fs::write(&path, text.replace(from, to)).expect("it can be written");
    path
}

fn entry(id: &str, event_type: &str, payload: &str) -> String {
    json!({"kind": "via#engagementCenterEvent", "eventId": id, "correlationId": "c", "eventType": event_type,
           "publishedTime": "2018-01-30T14:04:20.539Z", "schemaVersion": "1", "payload": payload})
    .to_string()
}

/// No events but those that a test gives.
async fn silent_vendor() -> Vendor {
    Vendor::start(Settings { rate: Rate::PerSecond(0.000_1), total: None, ..settings() }).await
}
