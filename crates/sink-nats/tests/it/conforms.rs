//! The checks that every sink has to pass.

use std::sync::Arc;

use async_trait::async_trait;
use viaduct_sink::conformance::{self, Abilities, Harness, Instances, Observed};
use viaduct_sink::record::HeaderStyle;
use viaduct_sink::{Identity, Sink};
use viaduct_sink_nats::NatsSink;
use viaduct_testkit::nats::{NatsServer, StoredMessage, read_stream};

use crate::support::{identity, settings};

struct JetStream {
    server: NatsServer,
    sink: Arc<NatsSink>,
}

impl JetStream {
    async fn new(identity: Option<Identity>) -> Self {
        let server = NatsServer::start_own();
        let mut settings = settings(server.url(), "VIA");
        settings.exactly_once = identity;
        let sink = NatsSink::connect(settings).await.unwrap();
        Self { sink: Arc::new(sink), server }
    }
}

/// The sources that the suite publishes for.
fn sources() -> Vec<String> {
    let names =
        ["outcomes", "order", "readable", "content", "rejection", "dropped", "close"].map(str::to_owned);
    let numbered = (0..8).map(|source| format!("concurrent-{source}"));
    let outage = ["outage-0", "outage-1", "load-s0", "load-s1", "load-abandoned"].map(str::to_owned);
    names.into_iter().chain(numbered).chain(outage).collect()
}

fn observed(message: StoredMessage) -> Observed {
    let decoded = |(name, value): (String, String)| {
        let value = if name.starts_with("ce-") { percent_decoded(&value) } else { value };
        (name, value)
    };
    let headers = message.headers.into_iter().map(decoded).collect();
    Observed { key: None, headers, value: message.payload }
}

/// As a CloudEvents consumer reads an attribute.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let hex = [*high, *low];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[async_trait]
impl Harness for JetStream {
    fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    fn abilities(&self) -> Abilities {
        Abilities { keys: false, headers: Some(HeaderStyle::Nats), any_bytes: true, largest_value: 1_000_000 }
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        format!("VIA.destination.{n}").into()
    }

    async fn read(&self, destination: &str) -> Vec<Observed> {
        let messages = read_stream(self.server.url(), "VIA").await.unwrap();
        messages.into_iter().filter(|message| message.subject == destination).map(observed).collect()
    }

    async fn break_destination(&self) -> bool {
        self.server.kill();
        true
    }

    async fn heal_destination(&self) {
        self.server.restart().unwrap();
    }

    fn too_large(&self) -> Option<usize> {
        Some(1_100_000)
    }

    fn invalid_destination(&self) -> Option<Arc<str>> {
        Some("VIA.destination.*".into())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_conforms() {
    conformance::run_all(&JetStream::new(None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_conforms_where_delivery_is_exactly_once() {
    let sources = sources();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    conformance::run_all(&JetStream::new(Some(identity(&sources))).await).await;
}

/// Instances of one sink on a server, or on several of a cluster.
struct Processes {
    servers: Vec<NatsServer>,
    replicas: usize,
}

#[async_trait]
impl Instances for Processes {
    async fn start(&self) -> Arc<dyn Sink> {
        let mut settings = settings(self.servers[0].url(), "VIA");
        settings.urls = self.servers.iter().map(|server| server.url().to_owned()).collect();
        settings.replicas = self.replicas;
        settings.exactly_once =
            Some(identity(&["one", "two", "three", "four", "five", "six", "seven", "eight"]));
        Arc::new(NatsSink::connect(settings).await.unwrap())
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        format!("VIA.destination.{n}").into()
    }

    async fn read(&self, destination: &str) -> Vec<Vec<u8>> {
        let messages = read_stream(self.servers[0].url(), "VIA").await.unwrap();
        let found = messages.into_iter().filter(|message| message.subject == destination);
        found.map(|message| message.payload.to_vec()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetstream_delivers_exactly_once() {
    let processes = Processes { servers: vec![NatsServer::start_own()], replicas: 1 };
    conformance::exactly_once(&processes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_deliver_exactly_once() {
    let processes = Processes { servers: NatsServer::start_cluster(3), replicas: 3 };
    conformance::exactly_once(&processes).await;
}
