//! `require_durable`: a warning at the start and in `/status`, or a refusal.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, StorageType};
use viaduct_simulator::Settings;
use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::NatsServer;

use crate::kit::bridge::Site;
use crate::kit::destinations::{CATEGORIES, Stream, Topics};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

async fn vendor() -> Vendor {
    Vendor::start(Settings { total: Some(50), ..settings() }).await
}

/// A weak destination is told of, and used.
#[tokio::test(flavor = "multi_thread")]
async fn a_weak_destination_is_a_warning() {
    let vendor = vendor().await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let stream = Stream::new(NatsServer::shared().url());
    for category in CATEGORIES {
        kafka::create_topic(&topics.bootstrap, &topics.topic(category), 1, &[]).await.unwrap();
    }
    let site = Site::new(&[vendor.source("").as_str(), &topics.sink(""), &stream.sink("")].concat());
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    let topic = topics.topic("engagementCenter");
    let weak = format!("topic {topic} has replication factor 1: one lost disk loses confirmed records");
    until("/status tells", Duration::from_secs(30), async || {
        let status = bridge.status().await;
        let of = |sink: &str| status["sinks"][sink]["weaknesses"].as_array().expect("a list").clone();
        of("lake").iter().any(|one| *one == weak.as_str())
            && of("bus").iter().any(|one| one.as_str().expect("text").contains("has replicas 1"))
    })
    .await;
    let (status, _) = bridge.terminate().await;
    assert_eq!(status.code(), Some(0));
    let log = site.log();
    let about =
        |line: &&str| line.contains("less durable than the guarantee assumes") && line.contains(&topic);
    assert_eq!(log.lines().filter(about).count(), 1, "told once");
}

/// Whether a bridge with this sink refuses to start, and says so.
async fn refuses(vendor: &Vendor, sink: &str, says: &str) {
    let site = Site::new(&[vendor.source("").as_str(), sink].concat());
    let mut bridge = site.start();
    let status = bridge.wait(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(78), "{}", site.log());
    let log = site.log();
    let last = log.lines().rfind(|line| line.starts_with("viaduct: ")).unwrap_or_default();
    assert!(last.contains("has require_durable = true, but ") && last.contains(says), "{last}");
    assert!(!vendor.report().requests.contains_key("events"), "it polls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_weak_destination_is_refused_where_that_is_demanded() {
    let vendor = vendor().await;
    let demand = "require_durable = true";
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    for category in CATEGORIES {
        kafka::create_topic(&topics.bootstrap, &topics.topic(category), 1, &[]).await.unwrap();
    }
    for delivery in ["at_least_once", "exactly_once"] {
        let sink = topics.sink(&format!("{demand}\ndelivery = \"{delivery}\""));
        refuses(&vendor, &sink, "has replication factor 1").await;
    }
    assert_eq!(topics.read().await.len(), 0, "something was published");
    for storage in [StorageType::Memory, StorageType::File] {
        let stream = Stream::new(NatsServer::shared().url());
        let config = Config {
            name: stream.name.clone(),
            subjects: vec![format!("{}.>", stream.name), format!("_viaduct.checkpoint.{}.>", stream.name)],
            storage,
            allow_atomic_publish: true,
            allow_rollup: true,
            ..Config::default()
        };
        let js = jetstream::new(async_nats::connect(&stream.url).await.unwrap());
        js.create_stream(config).await.unwrap();
        let setting = if storage == StorageType::Memory { "has storage memory" } else { "has replicas 1" };
        let sink = stream.sink(demand).replace("create_stream = true", "create_stream = false");
        refuses(&vendor, &sink, setting).await;
        assert_eq!(stream.read().await.len(), 0, "something was published");
    }
}

/// What turns up later is refused when it is first met: records wait, become dead letters, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_weak_topic_that_turns_up_later_gets_nothing() {
    let vendor = vendor().await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    // The brokers' default is one replica.
    let sink = topics.sink("require_durable = true\nrefused_after = \"1s\"");
    let site = Site::new(&[vendor.source("").as_str(), &sink].concat());
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    let status = bridge.status().await;
    let refused = status["sinks"]["lake"]["retries"]["not_durable"].as_u64();
    assert!(refused.is_some_and(|count| count > 0), "{status:#}");
    bridge.terminate().await;
    assert_eq!(topics.read().await.len(), 0, "something was published");
    let letters = crate::kit::destinations::lines(&site.path("state/dead-letters"));
    assert_eq!(letters.len(), 50);
}
