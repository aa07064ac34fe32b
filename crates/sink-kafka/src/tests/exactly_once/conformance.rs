//! The suites that every exactly-once sink passes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use viaduct_sink::Sink;
use viaduct_sink::conformance::{self, Instances};
use viaduct_testkit::kafka::{KafkaBroker, create_topic, read_topic};

use super::{exactly_once, start};
use crate::tests::conformance::Kafka;
use crate::tests::name;

/// The sources that the checks of [`conformance::run_all`] publish as.
const SOURCES: [&str; 20] = [
    "outcomes",
    "order",
    "readable",
    "content",
    "rejection",
    "concurrent-0",
    "concurrent-1",
    "concurrent-2",
    "concurrent-3",
    "concurrent-4",
    "concurrent-5",
    "concurrent-6",
    "concurrent-7",
    "dropped",
    "outage-0",
    "outage-1",
    "load-s0",
    "load-s1",
    "load-abandoned",
    "close",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_keeps_the_contract_exactly_once_too() {
    let broker = tokio::task::block_in_place(KafkaBroker::start_own);
    let sink = start(exactly_once(broker.bootstrap(), "bridge", &SOURCES, 1)).await;
    conformance::run_all(&Kafka::new(broker, sink)).await;
}

struct Bridge {
    name: Arc<str>,
    shards: u32,
    topics: tokio::sync::Mutex<HashMap<usize, Arc<str>>>,
}

#[async_trait]
impl Instances for Bridge {
    async fn start(&self) -> Arc<dyn Sink> {
        let sources = ["one", "two", "three", "four", "five", "six", "seven", "eight"];
        start(exactly_once(crate::tests::shared(), &self.name, &sources, self.shards)).await
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        let mut topics = self.topics.lock().await;
        if let Some(topic) = topics.get(&n) {
            return Arc::clone(topic);
        }
        let topic = name(&format!("once-{n}"));
        create_topic(crate::tests::shared(), &topic, 3, &[]).await.unwrap();
        topics.insert(n, Arc::clone(&topic));
        topic
    }

    async fn read(&self, destination: &str) -> Vec<Vec<u8>> {
        let messages = read_topic(crate::tests::shared(), destination).await.unwrap();
        messages.into_iter().map(|message| message.value.expect("a null value is a tombstone")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_is_an_exactly_once_sink() {
    for shards in [1, 3] {
        let bridge = Bridge { name: name("bridge"), shards, topics: tokio::sync::Mutex::default() };
        conformance::exactly_once(&bridge).await;
    }
}
