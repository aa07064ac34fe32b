//! The suite that every sink passes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use viaduct_sink::Sink;
use viaduct_sink::conformance::{self, Abilities, Harness, Observed};
use viaduct_sink::record::HeaderStyle;
use viaduct_testkit::kafka::{KafkaBroker, create_topic, read_topic};

use crate::KafkaSink;

pub(super) struct Kafka {
    broker: KafkaBroker,
    sink: Arc<KafkaSink>,
    topics: tokio::sync::Mutex<HashMap<usize, Arc<str>>>,
}

impl Kafka {
    pub(super) fn new(broker: KafkaBroker, sink: Arc<KafkaSink>) -> Self {
        Self { broker, sink, topics: tokio::sync::Mutex::default() }
    }
}

#[async_trait]
impl Harness for Kafka {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::clone(&self.sink) as Arc<dyn Sink>
    }

    fn abilities(&self) -> Abilities {
        Abilities { keys: true, headers: Some(HeaderStyle::Kafka), any_bytes: true, largest_value: 1_000_000 }
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        let mut topics = self.topics.lock().await;
        if let Some(topic) = topics.get(&n) {
            return Arc::clone(topic);
        }
        let topic: Arc<str> = Arc::from(format!("conformance-{n}"));
        create_topic(self.broker.bootstrap(), &topic, 3, &[]).await.unwrap();
        topics.insert(n, Arc::clone(&topic));
        topic
    }

    async fn read(&self, destination: &str) -> Vec<Observed> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let messages = read_topic(self.broker.bootstrap(), destination).await.unwrap();
        messages
            .into_iter()
            .map(|message| Observed {
                key: message.key.map(text),
                headers: message.headers.into_iter().map(|(name, value)| (name, text(value))).collect(),
                value: Bytes::from(message.value.expect("a null value is a tombstone")),
            })
            .collect()
    }

    async fn break_destination(&self) -> bool {
        tokio::task::block_in_place(|| self.broker.stop()).unwrap();
        true
    }

    async fn heal_destination(&self) {
        tokio::task::block_in_place(|| self.broker.restart()).unwrap();
    }

    fn too_large(&self) -> Option<usize> {
        Some(1_100_000)
    }

    fn invalid_destination(&self) -> Option<Arc<str>> {
        Some(Arc::from("no topic/can have this"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_keeps_the_contract() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    let sink = super::connect(broker.bootstrap(), &[]).await;
    conformance::run_all(&Kafka::new(broker, sink)).await;
}
