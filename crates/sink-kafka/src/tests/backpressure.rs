//! A queue that is full.

use super::{confirm, connect, records, shared, stored, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_waited_for_and_keeps_the_order() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "full", 1, &[]).await;
    let sink = connect(bootstrap, &[("queue.buffering.max.messages", "10")]).await;
    let records = records(&topic, "k", 0..2000);
    assert_eq!(confirm(&sink, &records).await, Vec::<&str>::new());
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, (0..2000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_share_a_full_queue_all_get_through() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "full", 3, &[]).await;
    let sink = connect(bootstrap, &[("queue.buffering.max.messages", "10")]).await;
    let mut sources = tokio::task::JoinSet::new();
    for source in 0..10 {
        let (sink, records) = (sink.clone(), records(&topic, &format!("k{source}"), 0..200));
        sources.spawn(async move { confirm(&sink, &records).await });
    }
    sources.join_all().await;
    for source in 0..10 {
        let stored = stored(bootstrap, &topic, Some(&format!("k{source}"))).await;
        assert_eq!(stored, (0..200).collect::<Vec<_>>(), "source {source}");
    }
}
