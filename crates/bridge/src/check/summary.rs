//! What a right configuration means, for people and for programs.

use std::fmt;

use serde::Serialize;

use crate::config::{
    Api, Config, DeadLetter, Delivery, Mask, Sink, SinkKind, Target, duration_text, size_text,
};

/// What a configuration means. Holds no secret, and nothing that could hold one.
#[derive(Serialize)]
pub(super) struct Summary {
    bridge: String,
    sources: Vec<SourceSummary>,
    sinks: Vec<SinkSummary>,
    routes: Vec<RouteSummary>,
    dead_letters: String,
    /// What is masked, in words; `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<String>,
    state_dir: String,
    admin: String,
}

#[derive(Serialize)]
struct SourceSummary {
    name: String,
    org_id: String,
    api_url: String,
    api: &'static str,
    max_in_flight: usize,
    inactivity_delay: String,
    subscriptions: usize,
}

#[derive(Serialize)]
struct SinkSummary {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    target: String,
    delivery: Delivery,
    required: bool,
}

#[derive(Serialize)]
struct RouteSummary {
    #[serde(rename = "match")]
    patterns: Vec<String>,
    /// `None`: dropped.
    sink: Option<String>,
    to: Option<String>,
    key: Vec<String>,
    format: Option<&'static str>,
}

impl Summary {
    pub(super) fn of(config: &Config) -> Self {
        let sources = config.sources.iter().map(|source| SourceSummary {
            name: source.name.clone(),
            org_id: source.org_id.clone(),
            api_url: source.api_url.to_string(),
            api: match source.api {
                Api::V2 => "v2",
                Api::V3 => "v3",
            },
            max_in_flight: source.max_in_flight,
            inactivity_delay: duration_text(source.session.inactivity_delay),
            subscriptions: source.subscriptions.len(),
        });
        let routes = config.routes.iter().map(|route| {
            let patterns = route.match_texts();
            match &route.target {
                Target::Drop => {
                    RouteSummary { patterns, sink: None, to: None, key: Vec::new(), format: None }
                }
                Target::Sink { sink, to, key, format, .. } => RouteSummary {
                    patterns,
                    sink: Some(config.sink(*sink).name.clone()),
                    to: Some(to.to_string()),
                    key: key.iter().map(ToString::to_string).collect(),
                    format: Some(format.word()),
                },
            }
        });
        Self {
            bridge: config.bridge.name.clone(),
            sources: sources.collect(),
            sinks: config.sinks.iter().map(SinkSummary::of).collect(),
            routes: routes.collect(),
            dead_letters: match &config.dead_letter {
                DeadLetter::LocalFile => format!("JSON Lines under {}", config.state_dir.display()),
                DeadLetter::Sink { sink, to } => format!(
                    "{} {to}; what that refuses: JSON Lines under {}",
                    config.sink(*sink).name,
                    config.state_dir.display()
                ),
            },
            mask: config.mask.as_ref().map(mask),
            state_dir: config.state_dir.display().to_string(),
            admin: config.admin.map_or_else(|| "off".to_owned(), |address| format!("http://{address}/")),
        }
    }
}

/// The rules, in words.
fn mask(mask: &Mask) -> String {
    let rules = mask.rules.iter().map(|rule| format!("{} ({})", rule.path, rule.action.word()));
    let honoured = mask.honour_is_masked.then(|| "what the vendor calls masked".to_owned());
    rules.chain(honoured).collect::<Vec<_>>().join(", ")
}

impl SinkSummary {
    fn of(sink: &Sink) -> Self {
        let target = match &sink.kind {
            SinkKind::Kafka(kafka) => {
                let names: Vec<_> = kafka.properties.keys().map(String::as_str).collect();
                let properties =
                    if names.is_empty() { String::new() } else { format!(" with {}", names.join(", ")) };
                let topics = if kafka.create_topics { ", creates missing topics" } else { "" };
                format!("{}{properties}{topics}", kafka.bootstrap_servers)
            }
            SinkKind::Nats(nats) => {
                let urls: Vec<_> = nats.urls.iter().map(|url| url.as_str()).collect();
                let created = if nats.create_stream { ", created if missing" } else { "" };
                format!("{} as {}, stream {}{created}", urls.join(","), nats.auth.word(), nats.stream)
            }
            SinkKind::File(file) => {
                format!("{}, rotated at {}", file.dir.display(), size_text(file.rotate_bytes))
            }
            SinkKind::Stdout => "standard output".to_owned(),
        };
        Self {
            name: sink.name.clone(),
            kind: sink.kind.word(),
            target,
            delivery: sink.delivery(),
            required: sink.required,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "bridge {}", self.bridge)?;
        for source in &self.sources {
            let SourceSummary { name, org_id, api_url, api, max_in_flight, inactivity_delay, subscriptions } =
                source;
            writeln!(f, "source {name}: {org_id} at {api_url}, API {api}")?;
            write!(
                f,
                "  at most {max_in_flight} events in flight; a session not polled for {inactivity_delay} is lost"
            )?;
            match subscriptions {
                0 => writeln!(f)?,
                1 => writeln!(f, "; 1 subscription")?,
                count => writeln!(f, "; {count} subscriptions")?,
            }
            if *api == "v2" {
                writeln!(f, "  v2 has no acknowledgement: every response is on disk before it is published")?;
            }
        }
        for sink in &self.sinks {
            writeln!(f, "sink {}: {}, {}", sink.name, sink.kind, sink.target)?;
            writeln!(
                f,
                "  {}",
                match sink.delivery {
                    Delivery::AtLeastOnce =>
                        "at least once: events are acknowledged only after they are here",
                    Delivery::ExactlyOnce =>
                        "exactly once: an event and the memory of it are stored in one step",
                    Delivery::BestEffort =>
                        "best effort (required = false): events are acknowledged without it",
                }
            )?;
        }
        for route in &self.routes {
            write!(f, "route {}", route.patterns.join(" "))?;
            match (&route.sink, &route.to) {
                (Some(sink), Some(to)) => {
                    let key = if route.key.is_empty() { "none".to_owned() } else { route.key.join(" or ") };
                    writeln!(f, " -> {sink} {to}, {}, key: {key}", route.format.unwrap_or_default())?;
                }
                _ => writeln!(f, " -> dropped where nothing else matches")?,
            }
        }
        writeln!(f, "dead letters: {}", self.dead_letters)?;
        if let Some(mask) = &self.mask {
            writeln!(f, "mask: {mask}")?;
        }
        writeln!(f, "state: {}", self.state_dir)?;
        writeln!(f, "admin: {}", self.admin)
    }
}
