//! How long a batch takes until it is confirmed, at least once and exactly once:
//!
//! ```text
//! cargo run --release -p viaduct-sink-kafka --example kafka_latency -- [HOST:PORT]
//! ```
//!
//! Prints medians over 300 batches of 200 records of 1 KB for one topic of three partitions. Without an address it starts a
//! broker of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use viaduct_sink::{Batch, Identity, Member, Outcome, Owner, Record, Sink};
use viaduct_sink_kafka::{KafkaSettings, KafkaSink};
use viaduct_testkit::kafka::{KafkaBroker, create_topic};

const BATCHES: usize = 300;
const WARM_UP: usize = 50;
const RECORDS: usize = 200;

#[tokio::main]
async fn main() {
    let own = std::env::args().nth(1).is_none().then(KafkaBroker::start_own);
    let bootstrap = std::env::args()
        .nth(1)
        .or_else(|| own.as_ref().map(|own| own.bootstrap().to_owned()))
        .expect("one of the two");
    for exactly_once in [false, true] {
        let topic: Arc<str> = format!("latency-{exactly_once}-{}", std::process::id()).into();
        create_topic(&bootstrap, &topic, 3, &[]).await.expect("a topic");
        let mut settings = KafkaSettings::new(&bootstrap);
        settings.exactly_once = exactly_once.then(|| Identity {
            bridge: format!("latency-{}", std::process::id()),
            sink: "lake".to_owned(),
            owner: Owner::random(),
            sources: vec![Member { source: "main".into(), remember: 10_000 }],
        });
        let sink = KafkaSink::connect(settings).await.expect("a sink");
        let mut times: Vec<Duration> = Vec::with_capacity(BATCHES);
        for batch in 0..WARM_UP + BATCHES {
            let records: Vec<Record> =
                (0..RECORDS).map(|number| record(&topic, batch * RECORDS + number)).collect();
            let start = Instant::now();
            let outcomes = sink.publish(Batch { source: "main", records: &records }).await;
            let took = start.elapsed();
            assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Confirmed(_))), "{outcomes:?}");
            if let Some(checkpoints) = sink.checkpoints() {
                // As the vendor confirms acknowledgements.
                records.iter().for_each(|record| checkpoints.acknowledged("main", &record.event));
            }
            if batch >= WARM_UP {
                times.push(took);
            }
        }
        times.sort();
        let guarantee = if exactly_once { "exactly once" } else { "at least once" };
        println!(
            "{guarantee}: median {:.2?}, 90th percentile {:.2?}, 99th {:.2?}",
            times[BATCHES / 2],
            times[BATCHES * 9 / 10],
            times[BATCHES * 99 / 100]
        );
        sink.close().await;
    }
}

fn record(topic: &Arc<str>, number: usize) -> Record {
    let mut state = number as u64;
    let value: Vec<u8> = (0..1000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            b'!' + (state >> 57) as u8 % 90
        })
        .collect();
    Record {
        destination: Arc::clone(topic),
        key: Some(format!("k{}", number % 50).into()),
        headers: Vec::new(),
        value: Bytes::from(value),
        timestamp_ms: None,
        message_id: format!("acme.{number}.00f3a1b2c3d4e5f6").into(),
        event: format!("acme.{number}.00f3a1b2c3d4e5f6").into(),
    }
}
