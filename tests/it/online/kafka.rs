//! A Kafka sink.

use std::time::Duration;

use viaduct_simulator::Settings;
use viaduct_testkit::kafka::{self, KafkaBroker, KafkaCluster};

use super::check;
use crate::kit::bridge::Site;
use crate::kit::destinations::{Topics, unique};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

/// `[sink.lake]`, its route, and dead letters there; topics are not created.
fn sink(bootstrap: &str, prefix: &str, more: &str) -> String {
    format!(
        "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n{more}\n\
         [[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nto = \"{prefix}.{{category}}\"\n\
         [dead_letter]\nsink = \"lake\"\nto = \"{prefix}.dead\"\n"
    )
}

/// The topics of such a sink: every documented category, and the dead letters.
fn topics(prefix: &str) -> Vec<String> {
    let categories = ["engagementCenter", "outreach", "messaging"];
    categories.iter().chain(&["dead"]).map(|category| format!("{prefix}.{category}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_holds_on_a_cluster_and_a_bridge_runs_there() {
    let cluster = tokio::task::block_in_place(KafkaCluster::start_own);
    let bootstrap = cluster.bootstrap();
    let vendor = Vendor::start(Settings { total: Some(50), ..settings() }).await;
    let prefix = unique("online");
    // The brokers' default for new topics is min.insync.replicas=2.
    for topic in topics(&prefix) {
        kafka::create_replicated_topic(bootstrap, &topic, 3, 3, &[]).await.unwrap();
    }
    let compact = [("cleanup.policy", "compact")];
    kafka::create_replicated_topic(bootstrap, "_viaduct.checkpoints", 1, 3, &compact).await.unwrap();
    let demanding = format!("{prefix}.demanding");
    let all = [("min.insync.replicas", "3")];
    kafka::create_replicated_topic(bootstrap, &demanding, 1, 3, &all).await.unwrap();
    let delivery = "delivery = \"exactly_once\"\nrequire_durable = true\n";
    let site = Site::new(&[vendor.source("").as_str(), &sink(bootstrap, &prefix, delivery)].concat());
    let found = check(&site, &["--strict"]);
    assert_eq!(found.code, 0, "{}\n{:#}", found.said, found.document);
    assert_eq!(found.verdict(), ("holds", "exactly once to lake: holds"));
    let (status, detail) = found.of("sink lake", "cluster", "");
    assert_eq!(status, "ok");
    assert!(detail.starts_with("3 brokers, cluster "), "{detail}");
    for topic in topics(&prefix) {
        let (status, detail) = found.of("sink lake", "durability", &topic);
        assert_eq!((status, detail), ("ok", "replication factor 3, min.insync.replicas 2"));
        assert_eq!(found.status("write permission", &topic), "ok");
        assert_eq!(found.status("cleanup policy", &topic), "ok");
        // The question left nothing behind.
        assert_eq!(kafka::read_topic(bootstrap, &topic).await.unwrap().len(), 0);
    }
    assert_eq!(found.status("transactional id", "viaduct.lake.0"), "ok");
    assert_eq!(found.status("read permission", "_viaduct.checkpoints"), "ok");
    assert_eq!(found.status("cleanup policy", "_viaduct.checkpoints"), "ok");
    assert_eq!(kafka::read_topic(bootstrap, "_viaduct.checkpoints").await.unwrap().len(), 0);

    // What the check calls right, runs.
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    assert_eq!(bridge.status().await["sinks"]["lake"]["weaknesses"], serde_json::json!([]));
    let (status, _) = bridge.terminate().await;
    assert_eq!(status.code(), Some(0));
    let mut published = 0;
    for topic in topics(&prefix) {
        published += kafka::read_topic(bootstrap, &topic).await.unwrap().len();
    }
    assert_eq!(published, 50);

    // The others are enough to ask, and the one that is gone is named.
    cluster.kill(3).unwrap();
    let servers: Vec<&str> = bootstrap.split(',').collect();
    let found = check(&site, &[]);
    assert_eq!(found.status("server", servers[2]), "warn");
    assert_eq!(found.status("server", servers[0]), "ok");
    // A topic that wants all three takes nothing now.
    let letters = format!("dead_letter.to={demanding}");
    until("the cluster has noticed", Duration::from_secs(60), async || {
        let found = check(&site, &["--set", &letters]);
        found.code == 69 && found.of("sink lake", "durability", &demanding).1.contains("but only 2 in sync")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_is_a_warning_and_a_missing_topic_a_failure() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    let vendor = Vendor::start(settings()).await;
    let prefix = unique("online");
    let site = Site::new(&[vendor.source("").as_str(), &sink(bootstrap, &prefix, "")].concat());
    let topics = topics(&prefix);
    let found = check(&site, &[]);
    assert_eq!(found.code, 78, "{}", found.said);
    assert_eq!(found.of("sink lake", "topic", &topics[0]), ("fail", "does not exist"));
    assert_eq!(found.verdict().0, "does_not_hold");

    // May be created, and is not.
    let found =
        check(&site, &["--set", "sink.lake.create_topics=true", "--set", "sink.lake.replication_factor=1"]);
    assert_eq!(found.code, 0, "{}", found.said);
    assert_eq!(found.of("sink lake", "topic", &topics[0]), ("ok", "does not exist yet, and may be created"));
    assert_eq!(found.status("durability", &topics[0]), "warn");
    // More replicas than there are brokers.
    let found =
        check(&site, &["--set", "sink.lake.create_topics=true", "--set", "sink.lake.replication_factor=3"]);
    assert_eq!((found.code, found.status("topic", &topics[0])), (78, "fail"));
    let all = kafka::topics(bootstrap).await.unwrap();
    assert!(!all.iter().any(|topic| topic.starts_with(&prefix)), "a check creates topics");

    for topic in &topics {
        kafka::create_topic(bootstrap, topic, 1, &[]).await.unwrap();
    }
    let found = check(&site, &[]);
    assert_eq!(found.code, 0, "{}", found.said);
    let (status, detail) = found.of("sink lake", "durability", &topics[0]);
    assert_eq!((status, detail), ("warn", "replication factor 1: one lost disk loses confirmed records"));
    let (word, sentence) = found.verdict();
    assert_eq!(word, "does_not_hold");
    assert!(
        sentence.starts_with("at least once to lake: does not hold, because of durability"),
        "{sentence}"
    );
    assert_eq!(check(&site, &["--strict"]).code, 78);
    let found = check(&site, &["--set", "sink.lake.require_durable=true"]);
    assert_eq!((found.code, found.status("durability", &topics[0])), (78, "fail"));
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_topics_that_lose_records() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    let vendor = Vendor::start(settings()).await;
    let prefix = unique("online");
    let [compacted, short, small, dead] = &topics(&prefix)[..] else { panic!("four topics") };
    kafka::create_topic(bootstrap, compacted, 1, &[("cleanup.policy", "compact")]).await.unwrap();
    kafka::create_topic(bootstrap, short, 1, &[("retention.ms", "60000")]).await.unwrap();
    kafka::create_topic(bootstrap, small, 1, &[("max.message.bytes", "50000")]).await.unwrap();
    kafka::create_topic(bootstrap, dead, 1, &[("cleanup.policy", "compact,delete")]).await.unwrap();
    let site = Site::new(&[vendor.source("").as_str(), &sink(bootstrap, &prefix, "")].concat());
    let found = check(&site, &[]);
    assert_eq!(found.code, 0, "{}", found.said);
    for (check, topic) in [
        ("cleanup policy", compacted),
        ("retention", short),
        ("record size", small),
        ("cleanup policy", dead),
    ] {
        assert_eq!(found.status(check, topic), "warn", "{check}");
    }
    // A small limit does not keep the permission from being asked for.
    assert_eq!(found.status("write permission", small), "ok");

    let text = std::fs::read_to_string(site.config()).unwrap();
    let keyless = text.replacen("sink = \"lake\"\nto", "sink = \"lake\"\nkey = []\nto", 1);
    std::fs::write(site.config(), keyless).unwrap();
    let found = check(&site, &[]);
    assert_eq!((found.code, found.status("cleanup policy", compacted)), (78, "fail"), "{:#}", found.document);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_permitted_and_what_cannot_be_known() {
    let broker = tokio::task::block_in_place(|| {
        KafkaBroker::start_with(&[
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("allow.everyone.if.no.acl.found", "true"),
        ])
    });
    let bootstrap = broker.bootstrap();
    let prefix = unique("online");
    let [mute, blind, free, hidden] = &topics(&prefix)[..] else { panic!("four topics") };
    for topic in [mute, blind, free, hidden] {
        kafka::create_topic(bootstrap, topic, 1, &[]).await.unwrap();
    }
    // Once there is a rule, what no rule allows is forbidden.
    let acl = |words: &[&str]| {
        let words = [&["--bootstrap-server", bootstrap, "--add"], words].concat();
        tokio::task::block_in_place(|| broker.tool("org.apache.kafka.tools.AclCommand", &words)).unwrap();
    };
    let me = ["--allow-principal", "User:ANONYMOUS"];
    acl(&[&me[..], &["--operation", "Describe", "--operation", "DescribeConfigs", "--topic", mute]].concat());
    acl(&[&me[..], &["--operation", "Write", "--topic", blind]].concat());
    acl(&["--allow-principal", "User:other", "--operation", "Write", "--topic", hidden]);
    acl(&[
        "--allow-principal",
        "User:other",
        "--operation",
        "Write",
        "--transactional-id",
        "viaduct.",
        "--resource-pattern-type",
        "prefixed",
    ]);
    let vendor = Vendor::start(settings()).await;
    let delivery = "delivery = \"exactly_once\"";
    let site = Site::new(&[vendor.source("").as_str(), &sink(bootstrap, &prefix, delivery)].concat());
    let found = check(&site, &[]);
    assert_eq!(found.code, 77, "{}\n{:#}", found.said, found.document);
    assert_eq!(found.status("write permission", mute), "fail");
    assert_eq!(found.status("write permission", blind), "unverified");
    assert_eq!(found.status("write permission", free), "ok");
    assert_eq!(found.status("topic", hidden), "fail");
    assert_eq!(found.status("transactional id", "viaduct.lake.0"), "unverified");
    assert_eq!(found.verdict().0, "does_not_hold");
}

/// A cluster that is not there, one that is none, and one that refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_used() {
    let vendor = Vendor::start(settings()).await;
    let site = Site::new(&[vendor.source("").as_str(), &sink("127.0.0.1:1", "x", "")].concat());
    let found = check(&site, &[]);
    assert_eq!((found.code, found.status("server", "127.0.0.1:1")), (69, "fail"));
    assert_eq!(found.verdict().0, "unverified");

    let address = format!("127.0.0.1:{}", viaduct_testkit::native::free_port().unwrap());
    let login = "org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"hunter2\";";
    let broker = tokio::task::block_in_place(|| {
        KafkaBroker::start_with(&[
            ("listeners", &format!("{{listeners}},SECURE://{address}")),
            (
                "listener.security.protocol.map",
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_PLAINTEXT",
            ),
            ("listener.name.secure.sasl.enabled.mechanisms", "PLAIN"),
            ("listener.name.secure.plain.sasl.jaas.config", login),
        ])
    });
    let prefix = unique("online");
    for topic in topics(&prefix) {
        kafka::create_topic(broker.bootstrap(), &topic, 1, &[]).await.unwrap();
    }
    let secure = "[sink.lake.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
                  \"sasl.username\" = \"alice\"\n\"sasl.password\" = \"hunter2\"\n";
    let text = [vendor.source("").as_str(), &sink(&address, &prefix, secure)].concat();
    let found = check(&Site::new(&text), &[]);
    assert_eq!(found.code, 0, "{}\n{:#}", found.said, found.document);
    let unread = text.replace("\"SASL_PLAINTEXT\"", "\"SASL_SSL\"\n\"ssl.ca.location\" = \"/no/such\"");
    let found = check(&Site::new(&unread), &[]);
    assert_eq!((found.code, found.status("settings", "")), (78, "fail"), "{:#}", found.document);
    let wrong = text.replace("\"sasl.password\" = \"hunter2\"", "\"sasl.password\" = \"hunter2-wrong\"");
    let found = check(&Site::new(&wrong), &[]);
    assert_eq!((found.code, found.status("cluster", "")), (77, "fail"), "{:#}", found.document);
}

/// A name that an event decides cannot be looked up beforehand.
#[tokio::test(flavor = "multi_thread")]
async fn topics_that_events_decide_are_unverified() {
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let vendor = Vendor::start(settings()).await;
    let sink = topics.sink("").replace("{category}", "{userId}");
    let site = Site::new(&[vendor.source("").as_str(), &sink].concat());
    let found = check(&site, &[]);
    assert_eq!((found.code, found.verdict().0), (0, "unverified"), "{:#}", found.document);
    assert_eq!(found.status("topic", &format!("{}.{{userId}}", topics.prefix)), "unverified");
}
