//! Destinations of a test: their part of the configuration, and what independent readers find there.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use viaduct_testkit::{kafka, nats};

use super::invariants::{Content, Seen};

/// The categories of the document, and the one for what has none.
pub(crate) const CATEGORIES: [&str; 4] = ["engagementCenter", "outreach", "messaging", "unknown"];

/// A name that no other test uses.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Topics on a Kafka broker.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    pub(crate) bootstrap: String,
    pub(crate) prefix: String,
}

impl Topics {
    pub(crate) fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned(), prefix: unique("it") }
    }

    /// `[sink.lake]` and its route. `more`: further lines of the sink.
    pub(crate) fn sink(&self, more: &str) -> String {
        format!(
            "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = true\npartitions = 3\n{more}\n\
             [[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nto = \"{}.{{category}}\"\n",
            self.bootstrap, self.prefix
        )
    }

    /// The topic of a category.
    pub(crate) fn topic(&self, category: &str) -> String {
        format!("{}.{category}", self.prefix)
    }

    /// Everything in them, in the order of the partitions.
    pub(crate) async fn read(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut topics = kafka::topics(&self.bootstrap).await.expect("the topics can be listed");
        topics.retain(|topic| topic.starts_with(&format!("{}.", self.prefix)));
        for topic in topics {
            for message in kafka::read_topic(&self.bootstrap, &topic).await.expect("the topic can be read") {
                let value = message.value.expect("no tombstone is ever produced");
                let (event_id, content) = identity(&value);
                seen.push(Seen {
                    place: format!("{topic}/{}", message.partition),
                    destination: topic.clone(),
                    key: message.key.map(|key| String::from_utf8(key).expect("keys are text")),
                    event_id,
                    content,
                });
            }
        }
        seen
    }
}

/// A stream on a NATS server.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Stream {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned(), name: unique("IT") }
    }

    /// `[sink.bus]` and its route. `more`: further lines of the sink.
    pub(crate) fn sink(&self, more: &str) -> String {
        format!(
            "[sink.bus]\ntype = \"nats\"\nurl = \"{}\"\nstream = \"{}\"\ncreate_stream = true\n{more}\n\
             [[route]]\nmatch = [\"*\"]\nsink = \"bus\"\nto = \"{}.{{category}}.{{name}}\"\n",
            self.url, self.name, self.name
        )
    }

    /// Everything in it, in its order.
    pub(crate) async fn read(&self) -> Vec<Seen> {
        let messages = nats::read_stream(&self.url, &self.name).await.expect("the stream can be read");
        messages
            .iter()
            .filter(|message| !message.subject.starts_with("_viaduct."))
            .map(|message| {
                let (event_id, content) = identity(&message.payload);
                let key = message.header("ce-subject").map(str::to_owned);
                Seen {
                    place: self.name.clone(),
                    destination: message.subject.clone(),
                    key,
                    event_id,
                    content,
                }
            })
            .collect()
    }
}

/// JSON Lines in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Files(pub(crate) PathBuf);

impl Files {
    /// `[sink.archive]` and its route.
    pub(crate) fn sink(&self) -> String {
        format!(
            "[sink.archive]\ntype = \"file\"\ndir = {:?}\n\
             [[route]]\nmatch = [\"*\"]\nsink = \"archive\"\nto = \"{{category}}\"\n",
            self.0
        )
    }

    /// Everything in them, in the order of the lines.
    pub(crate) fn read(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for (place, value) in lines(&self.0) {
            let inner = &value["payload"]["payload"]["interactionId"];
            let key = [inner, &value["payload"]["interactionId"]]
                .into_iter()
                .find(|id| id.as_u64().is_some_and(|id| id > 0));
            seen.push(Seen {
                destination: place.clone(),
                place,
                key: key.map(ToString::to_string),
                event_id: value["eventId"].as_str().expect("eventId").to_owned(),
                content: None,
            });
        }
        seen
    }
}

/// The lines of all `.jsonl` files in a folder, rotated ones first, with the file's name.
pub(crate) fn lines(folder: &Path) -> Vec<(String, Value)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let mut lines = Vec::new();
    for file in files {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        for line in std::fs::read_to_string(&file).expect("UTF-8").lines() {
            lines.push((name.clone(), serde_json::from_str(line).expect("every line is JSON")));
        }
    }
    lines
}

/// `eventId` of a value, and its content.
fn identity(value: &[u8]) -> (String, Option<Content>) {
    let value: Value = serde_json::from_slice(value).expect("values are JSON");
    let id = value["eventId"].as_str().expect("eventId").to_owned();
    (id, Content::of(&value))
}
