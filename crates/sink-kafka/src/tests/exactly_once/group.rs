//! Many sources in one transaction, and shards.

use std::collections::HashSet;
use std::sync::Arc;

use viaduct_sink::{Sink, shard_of};
use viaduct_testkit::kafka::read_topic;
use viaduct_testkit::proxy_kafka::{Api, KafkaProxy};

use super::{exactly_once, start};
use crate::tests::{confirm_as, name, numbers, records, shared, topic};

#[tokio::test(flavor = "multi_thread")]
async fn many_sources_share_few_transactions() {
    let (broker, proxy) = KafkaProxy::with_broker(&[]).await;
    let bootstrap = broker.bootstrap();
    let topic = topic(bootstrap, "group", 3, &[]).await;
    let sources: Vec<String> = (0..100).map(|number| format!("s{number}")).collect();
    let names: Vec<&str> = sources.iter().map(String::as_str).collect();
    let sink = start(exactly_once(&proxy.bootstrap(), "bridge", &names, 1)).await;
    confirm_as(&sink, "s0", &records(&topic, "first", 0..1)).await;
    let before = proxy.requests(Api::EndTxn);
    let mut lanes = tokio::task::JoinSet::new();
    for source in &sources {
        let (sink, topic, source) = (sink.clone(), topic.clone(), source.clone());
        lanes.spawn(async move {
            for batch in 0..10 {
                let mut records = records(&topic, &source, batch * 10..(batch + 1) * 10);
                for record in &mut records {
                    record.message_id = format!("{source}.{}", record.message_id).into();
                    record.event = record.message_id.clone();
                }
                confirm_as(&sink, &source, &records).await;
            }
        });
    }
    lanes.join_all().await;
    let transactions = proxy.requests(Api::EndTxn) - before;
    assert!(transactions <= 200, "1000 batches took {transactions} transactions");
    let all = read_topic(bootstrap, &topic).await.unwrap();
    for source in &sources {
        assert_eq!(numbers(&all, Some(source)), (0..100).collect::<Vec<_>>(), "{source}");
    }
}

/// A shard is a transactional id; its sources are claimed together, whoever asks.
#[tokio::test(flavor = "multi_thread")]
async fn each_source_belongs_to_a_shard_of_its_own_producer() {
    let bootstrap = shared();
    let bridge = name("bridge");
    let topic = topic(bootstrap, "shards", 1, &[]).await;
    let sources = ["one", "two", "three", "four", "five", "six"];
    let settings = exactly_once(bootstrap, &bridge, &sources, 3);
    let used: HashSet<u32> = sources.iter().map(|source| shard_of(source, settings.shards)).collect();
    assert!(used.len() > 1, "the test is about several shards");
    let sink = start(settings).await;
    for source in sources {
        let records: Vec<_> = records(&topic, source, 0..10);
        confirm_as(&sink, source, &records).await;
    }
    let all = read_topic(bootstrap, &topic).await.unwrap();
    for source in sources {
        assert_eq!(numbers(&all, Some(source)), (0..10).collect::<Vec<_>>(), "{source}");
    }
    // Another instance fences all of them when it claims one source of each.
    let heir = start(exactly_once(bootstrap, &bridge, &sources, 3)).await;
    for source in sources {
        let claim = heir.checkpoints().unwrap().claim(source).await.unwrap();
        assert_eq!(claim.remembered, 10, "{source}");
    }
    let checkpoints = read_topic(bootstrap, "_viaduct.checkpoints").await.unwrap();
    let keys: HashSet<Arc<str>> = checkpoints
        .iter()
        .map(|message| String::from_utf8(message.key.clone().unwrap()).unwrap().into())
        .filter(|key: &Arc<str>| key.starts_with(&*bridge))
        .collect();
    assert_eq!(keys.len(), sources.len(), "{keys:?}");
}
