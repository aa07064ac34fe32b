//! The checks that every sink has to pass.

use std::sync::Arc;

use async_trait::async_trait;
use viaduct_sink::Sink;
use viaduct_sink::conformance::{self, Abilities, Harness, Observed};
use viaduct_sink::record::HeaderStyle;
use viaduct_sink_nats::NatsSink;
use viaduct_testkit::nats::{NatsServer, StoredMessage, read_stream};

use crate::support::settings;

struct JetStream {
    server: NatsServer,
    sink: Arc<NatsSink>,
}

impl JetStream {
    async fn new() -> Self {
        let server = NatsServer::start_own();
        let sink = NatsSink::connect(settings(server.url(), "VIA")).await.unwrap();
        Self { sink: Arc::new(sink), server }
    }
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
    conformance::run_all(&JetStream::new().await).await;
}
