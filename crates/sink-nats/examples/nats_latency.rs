//! How long a batch takes, at least once and exactly once: `cargo run --release -p viaduct-sink-nats --example nats_latency`.
//!
//! One server on loopback with file storage, one source, batches of 1 KB records one after the other. The server is
//! the one of the tests, or the one that `VIADUCT_TEST_NATS` names.

use std::time::{Duration, Instant};

use bytes::Bytes;
use viaduct_sink::{Batch, Identity, Member, Outcome, Owner, Record, Sink};
use viaduct_sink_nats::{NatsSettings, NatsSink};
use viaduct_testkit::nats::NatsServer;

const BATCHES: usize = 200;

fn main() -> anyhow::Result<()> {
    let server = NatsServer::shared();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{:>14} {:>6} {:>10} {:>10} {:>12}", "delivery", "batch", "median", "p99", "records/s");
    for size in [200, 1_000] {
        for exactly_once in [false, true] {
            let times = runtime.block_on(measure(server.url(), size, exactly_once))?;
            let (median, slow) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            let total: Duration = times.iter().sum();
            let rate = (times.len() * size) as f64 / total.as_secs_f64();
            let name = if exactly_once { "exactly once" } else { "at least once" };
            println!("{name:>14} {size:>6} {median:>10.2?} {slow:>10.2?} {rate:>12.0}");
        }
    }
    Ok(())
}

/// The times of the batches, sorted, the first few left out.
async fn measure(url: &str, size: usize, exactly_once: bool) -> anyhow::Result<Vec<Duration>> {
    let stream = format!("LATENCY{}-{size}-{exactly_once}", std::process::id());
    let mut settings = NatsSettings::new(vec![url.to_owned()], stream.clone());
    settings.create_stream = true;
    settings.subjects = vec![format!("{stream}.>")];
    settings.exactly_once = exactly_once.then(|| Identity {
        bridge: "latency".to_owned(),
        sink: stream.clone(),
        owner: Owner::random(),
        sources: vec![Member { source: "main".into(), remember: 2_000 }],
    });
    let sink = NatsSink::connect(settings).await?;
    let mut times = Vec::with_capacity(BATCHES);
    for batch in 0..BATCHES {
        let records: Vec<Record> = (0..size).map(|number| record(&stream, batch * size + number)).collect();
        let begun = Instant::now();
        let outcomes = sink.publish(Batch { source: "main", records: &records }).await;
        times.push(begun.elapsed());
        anyhow::ensure!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Confirmed(_))));
        if let Some(checkpoints) = sink.checkpoints() {
            records.iter().for_each(|record| checkpoints.acknowledged("main", &record.event));
        }
    }
    sink.close().await;
    times.drain(..BATCHES / 10);
    times.sort_unstable();
    Ok(times)
}

fn record(stream: &str, number: usize) -> Record {
    let name = format!("acme.{number}.0123456789abcdef");
    Record {
        destination: format!("{stream}.chat.{}", number % 10).into(),
        key: Some(format!("k{}", number % 50).into()),
        headers: Vec::new(),
        value: Bytes::from(vec![b'x'; 1_024]),
        timestamp_ms: None,
        message_id: name.as_str().into(),
        event: name.into(),
    }
}
