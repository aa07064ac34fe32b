//! SIGHUP: the configuration is read again. What can change in a running bridge changes, without a new session: routes, masks, the
//! log level, and where credentials are. A configuration with mistakes changes nothing.

use std::collections::BTreeSet;
use std::path::Path;

use tracing::{error, info, warn};

use crate::cli::ConfigArgs;
use crate::config::{self, Config};
use crate::engine::Reloader;
use crate::logging::LogLevel;

/// Reads the configuration again.
#[derive(Debug)]
pub(crate) struct Reload {
    args: ConfigArgs,
    level: LogLevel,
    /// As it was read last, to tell what is new.
    before: toml::Table,
    sinks: Vec<String>,
}

impl Reload {
    /// For the configuration that `args` name, which was just read as `config`.
    pub(crate) fn new(args: &ConfigArgs, config: &Config, level: LogLevel) -> Self {
        Self { args: args.clone(), level, before: table(&args.config), sinks: sink_names(config) }
    }

    /// Reads it now, applies what can be applied, and logs what cannot.
    pub(crate) fn reload(&mut self, engine: &Reloader) {
        let loaded = match self.args.load_input().map(config::load) {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(mistakes)) => {
                error!("the new configuration is refused, the bridge runs on with the old one: {mistakes}");
                return;
            }
            Err(failure) => {
                error!("the configuration cannot be read, the bridge runs on with the old one: {failure}");
                return;
            }
        };
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let now = table(&self.args.config);
        let mut changed = BTreeSet::new();
        differences("", &self.before, &now, &mut changed);
        let (mut applied, mut waiting): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|key| takes_effect(key));
        if sink_names(&loaded.config) == self.sinks {
            if let Err(failure) = engine.apply(&loaded.config) {
                error!("the new configuration is refused, the bridge runs on with the old one: {failure}");
                return;
            }
        } else {
            // Routes name sinks, and the running ones are others: all that sources do stays as it is.
            let routes = applied.extract_if(.., |key| !key.starts_with("log"));
            waiting.extend(routes);
        }
        self.level.set(&loaded.config.log.level);
        // What waits for a restart is told again at the next reload, until somebody does it.
        self.before = merged(&self.before, &now, &waiting);
        info!(changed = applied.join(" "), "configuration reloaded");
        if !waiting.is_empty() {
            waiting.sort();
            warn!(keys = waiting.join(" "), "these changes need a restart, and do nothing until then");
        }
    }
}

fn sink_names(config: &Config) -> Vec<String> {
    config.sinks.iter().map(|sink| sink.name.clone()).collect()
}

/// The file as it stands. It was read and checked already; what cannot be read now counts as empty, so that everything is
/// told as changed.
fn table(file: &Path) -> toml::Table {
    std::fs::read_to_string(file).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The keys that differ, as in `source.main.org_id`. An array is one key.
fn differences(path: &str, before: &toml::Table, now: &toml::Table, found: &mut BTreeSet<String>) {
    let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (before.get(key), now.get(key)) {
            (Some(toml::Value::Table(before)), Some(toml::Value::Table(now))) if !is_secret(&path) => {
                differences(&path, before, now, found);
            }
            (before, now) if before == now => {}
            _ => {
                found.insert(path);
            }
        }
    }
}

/// `before` with those parts of `now` that are in force: everything but the keys that wait.
fn merged(before: &toml::Table, now: &toml::Table, waiting: &[String]) -> toml::Table {
    let mut merged = now.clone();
    for key in waiting {
        let path: Vec<&str> = key.split('.').collect();
        put(&mut merged, before, &path);
    }
    merged
}

fn put(into: &mut toml::Table, from: &toml::Table, path: &[&str]) {
    let [first, rest @ ..] = path else { return };
    match (rest.is_empty(), from.get(*first), into.get_mut(*first)) {
        (false, Some(toml::Value::Table(from)), Some(toml::Value::Table(into))) => put(into, from, rest),
        (_, Some(value), _) => {
            into.insert((*first).to_owned(), value.clone());
        }
        (_, None, _) => {
            into.remove(*first);
        }
    }
}

/// `client_secret = "x"` and `client_secret = { file = "y" }` are one key.
fn is_secret(path: &str) -> bool {
    let parts: Vec<&str> = path.split('.').collect();
    matches!(parts[..], ["source", _, "auth", "client_id" | "client_secret" | "api_key"])
}

/// Whether a key is looked at again in a running bridge.
fn takes_effect(path: &str) -> bool {
    is_secret(path) || path == "log.level" || path == "route" || path == "mask" || path.starts_with("mask.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> toml::Table {
        text.parse().unwrap()
    }

    const BEFORE: &str = r#"
        [source.main]
        org_id = "acme"
        [source.main.auth]
        client_secret = "hunter2"
        [sink.lake]
        type = "kafka"
        [[route]]
        match = ["*"]
        [log]
        level = "info"
    "#;

    fn changed(now: &str) -> (Vec<String>, Vec<String>) {
        let mut found = BTreeSet::new();
        differences("", &parse(BEFORE), &parse(now), &mut found);
        found.into_iter().partition(|key| takes_effect(key))
    }

    #[test]
    fn what_can_change_is_told_from_what_cannot() {
        assert_eq!(changed(BEFORE), (vec![], vec![]));
        let now = BEFORE
            .replace("\"*\"", "\"chat.*\"")
            .replace("\"hunter2\"", "{ file = \"/run/secret\" }")
            .replace("\"info\"", "\"debug\"")
            .replace("acme", "other")
            .replace("type = \"kafka\"", "type = \"kafka\"\nrequired = false");
        let (applied, waiting) = changed(&now);
        assert_eq!(applied, ["log.level", "route", "source.main.auth.client_secret"]);
        assert_eq!(waiting, ["sink.lake.required", "source.main.org_id"]);
    }

    #[test]
    fn a_new_sink_needs_a_restart() {
        let (applied, waiting) = changed(&format!("{BEFORE}\n[sink.more]\ntype = \"stdout\""));
        assert_eq!((applied, waiting), (vec![], vec!["sink.more".to_owned()]));
    }

    #[test]
    fn what_waits_is_told_until_it_is_done() {
        let now = parse(&BEFORE.replace("acme", "other").replace("\"info\"", "\"debug\""));
        let kept = merged(&parse(BEFORE), &now, &["source.main.org_id".to_owned()]);
        let mut found = BTreeSet::new();
        differences("", &kept, &now, &mut found);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["source.main.org_id"]);
        let kept = merged(&parse(BEFORE), &parse(""), &["sink.lake".to_owned()]);
        assert_eq!(kept["sink"]["lake"]["type"].as_str(), Some("kafka"));
    }
}
