//! Topics that the credentials may not write to.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::types::RDKafkaErrorCode as Code;
use viaduct_sink::{Outcome, Refusal};
use viaduct_testkit::kafka::KafkaBroker;

use super::{PATIENCE, confirm, connect, publish, records, stored, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_topic_is_refused_and_taken_up_when_it_is_permitted() {
    let broker = tokio::task::block_in_place(|| {
        KafkaBroker::start_with(&[
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("allow.everyone.if.no.acl.found", "true"),
        ])
    });
    let bootstrap = broker.bootstrap();
    let acl = |change: &str, topic: &str, operation: &str| {
        let mut words = vec!["--bootstrap-server", bootstrap, change];
        if change == "--remove" {
            words.push("--force");
        }
        words.extend(["--allow-principal", "User:ANONYMOUS", "--operation", operation, "--topic", topic]);
        tokio::task::block_in_place(|| broker.tool("org.apache.kafka.tools.AclCommand", &words)).unwrap();
    };
    let (free, seen, hidden) = (
        topic(bootstrap, "free", 1, &[]).await,
        topic(bootstrap, "seen", 1, &[]).await,
        topic(bootstrap, "hidden", 1, &[]).await,
    );
    let sink = connect(bootstrap, &[]).await;
    confirm(&sink, &records(&seen, "k", 0..10)).await;
    // Once a topic has a rule, what no rule allows is forbidden: writing here, even seeing it there (which most rules would
    // allow along with what they are about, `Alter` too).
    acl("--add", &seen, "Describe");
    acl("--add", &hidden, "AlterConfigs");
    until_hidden(bootstrap, &hidden).await;
    for _ in 0..3 {
        let mut batch = records(&seen, "k", 10..20);
        batch.extend(records(&hidden, "k", 0..10));
        for (record, outcome) in batch.iter().zip(publish(&sink, &batch).await) {
            let Outcome::Retry(retry) = outcome else { panic!("{outcome:?}") };
            assert_eq!(retry.refusal, Some(Refusal::NotPermitted), "{}: {retry:?}", record.destination);
        }
        confirm(&sink, &records(&free, "k", 0..10)).await;
    }
    acl("--remove", &seen, "Describe");
    acl("--remove", &hidden, "AlterConfigs");
    confirm(&sink, &records(&seen, "k", 10..20)).await;
    confirm(&sink, &records(&hidden, "k", 0..10)).await;
    assert_eq!(stored(bootstrap, &seen, Some("k")).await, (0..20).collect::<Vec<_>>());
    assert_eq!(stored(bootstrap, &hidden, Some("k")).await, (0..10).collect::<Vec<_>>());
}

/// Waits until the broker goes by the rule that hides the topic: it learns of rules after the controller.
async fn until_hidden(bootstrap: &str, topic: &str) {
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let metadata = tokio::task::block_in_place(|| client.fetch_metadata(Some(topic), PATIENCE)).unwrap();
        let error = metadata.topics().first().and_then(|topic| topic.error()).map(Code::from);
        if error == Some(Code::TopicAuthorizationFailed) {
            return;
        }
        assert!(Instant::now() < deadline, "{topic} is never hidden: {error:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
