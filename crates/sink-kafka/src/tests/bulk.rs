//! Many records at once.

use std::time::{Duration, Instant};

use viaduct_sink::Sink as _;

use super::{confirm, connect, records, shared, topic};

const LINGER: Duration = Duration::from_millis(800);

/// With a long wait it can be seen who waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_waits_for_what_may_still_come_and_a_full_one_for_nothing() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "bulk", 1, &[]).await;
    let sink = connect(bootstrap, &[("linger.ms", "800")]).await;
    let full = sink.batch_limit();
    let mut from = 0;
    let mut publish = async |count: usize| {
        let records = records(&topic, "k", from..from + count);
        from += count;
        let began = Instant::now();
        confirm(&sink, &records).await;
        began.elapsed()
    };
    publish(1).await;
    assert!(publish(full - 1).await >= LINGER);
    // A busy machine may need longer for other reasons, but not every time.
    for _ in 0..20 {
        if publish(full).await < LINGER {
            return;
        }
    }
    panic!("{full} records wait for others");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_sets_the_size_of_a_batch_has_it_so() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "bulk", 1, &[]).await;
    let sink = connect(bootstrap, &[("linger.ms", "800"), ("batch.num.messages", "10000")]).await;
    confirm(&sink, &records(&topic, "k", 0..1)).await;
    let began = Instant::now();
    confirm(&sink, &records(&topic, "k", 1..1 + sink.batch_limit())).await;
    assert!(began.elapsed() >= LINGER);
}
