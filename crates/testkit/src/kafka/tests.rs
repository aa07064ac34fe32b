//! The broker does what the tests of the sinks rely on.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::{KafkaBroker, create_topic, delete_topic, read_topic, topics};

const PATIENCE: Duration = Duration::from_secs(30);

fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("allow.auto.create.topics", "true");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().expect("a producer")
}

async fn put(producer: &FutureProducer, topic: &str, value: &str) {
    producer.send(FutureRecord::<str, str>::to(topic).payload(value), PATIENCE).await.expect("a delivery");
}

async fn values(bootstrap: &str, topic: &str) -> Vec<String> {
    let messages = read_topic(bootstrap, topic).await.expect("a reading");
    messages
        .into_iter()
        .map(|message| String::from_utf8(message.value.expect("a value")).expect("text"))
        .collect()
}

#[tokio::test]
async fn everything_of_a_message_is_read_back() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    create_topic(bootstrap, "everything", 2, &[]).await.expect("a topic");
    let producer = producer(bootstrap, &[]);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "ce_id", value: Some("a") })
        .insert(Header { key: "ce_id", value: Some("ä") });
    for partition in [1, 0] {
        let record = FutureRecord::to("everything").key("k").payload("v").timestamp(17);
        let record = record.partition(partition).headers(headers.clone());
        producer.send(record, PATIENCE).await.expect("a delivery");
    }
    let tombstone: FutureRecord<'_, str, str> = FutureRecord::to("everything").partition(0);
    producer.send(tombstone, PATIENCE).await.expect("a delivery");

    let messages = read_topic(bootstrap, "everything").await.expect("a reading");
    let places: Vec<_> = messages.iter().map(|message| (message.partition, message.offset)).collect();
    assert_eq!(places, [(0, 0), (0, 1), (1, 0)]);
    assert_eq!(messages[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(messages[0].value.as_deref(), Some(&b"v"[..]));
    assert_eq!(messages[0].timestamp_ms, Some(17));
    assert_eq!(messages[0].headers[1], ("ce_id".to_owned(), "ä".as_bytes().to_vec()));
    assert_eq!(messages[0].header("ce_id"), Some(&b"a"[..]));
    assert_eq!((&messages[1].key, &messages[1].value), (&None, &None));
}

#[tokio::test]
async fn topics_are_made_only_on_purpose_and_can_be_deleted() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    assert_eq!(read_topic(bootstrap, "never-made").await.expect("a reading"), []);
    let limited = [("max.message.bytes", "2000")];
    create_topic(bootstrap, "limited", 1, &limited).await.expect("a topic");
    assert!(create_topic(bootstrap, "limited", 1, &[]).await.is_err(), "the same topic was made twice");
    let producer = producer(bootstrap, &[("message.timeout.ms", "5000")]);
    let large = "x".repeat(3000);
    let (error, _) = producer
        .send(FutureRecord::<str, str>::to("limited").payload(&large), PATIENCE)
        .await
        .expect_err("larger than the topic takes");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    let (error, _) = producer
        .send(FutureRecord::<str, str>::to("never-made").payload("x"), PATIENCE)
        .await
        .expect_err("no such topic");
    let code = error.rdkafka_error_code().expect("a code");
    assert!(
        matches!(
            code,
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::MessageTimedOut
        ),
        "{code}"
    );

    delete_topic(bootstrap, "limited").await.expect("the topic goes");
    let names = topics(bootstrap).await.expect("the topics");
    assert!(!names.iter().any(|name| name == "limited" || name == "never-made"), "{names:?}");
}

#[tokio::test]
async fn what_a_transaction_took_back_is_not_read() {
    let bootstrap = KafkaBroker::shared().bootstrap();
    create_topic(bootstrap, "transactions", 1, &[]).await.expect("a topic");
    let producer = producer(bootstrap, &[("transactional.id", "testkit")]);
    producer.init_transactions(PATIENCE).expect("init");
    for (value, keep) in [("kept", true), ("dropped", false), ("kept too", true), ("at the end", false)] {
        producer.begin_transaction().expect("begin");
        put(&producer, "transactions", value).await;
        if keep {
            producer.commit_transaction(PATIENCE).expect("commit");
        } else {
            producer.abort_transaction(PATIENCE).expect("abort");
        }
    }
    assert_eq!(values(bootstrap, "transactions").await, ["kept", "kept too"]);

    producer.begin_transaction().expect("begin");
    put(&producer, "transactions", "open").await;
    assert_eq!(values(bootstrap, "transactions").await, ["kept", "kept too"]);
    producer.abort_transaction(PATIENCE).expect("abort");
}

#[tokio::test]
async fn a_broker_comes_back_with_its_data() {
    let broker = KafkaBroker::start_own();
    let bootstrap = broker.bootstrap();
    create_topic(bootstrap, "kept", 1, &[]).await.expect("a topic");
    let producer = producer(bootstrap, &[("acks", "all"), ("reconnect.backoff.max.ms", "200")]);
    put(&producer, "kept", "before").await;

    broker.kill().expect("it runs");
    assert!(broker.kill().is_err(), "a broker that is dead was killed");
    assert!(
        super::topics::answers(bootstrap, 1, Duration::from_millis(300)).is_err(),
        "it answers though killed"
    );
    broker.restart().expect("it comes back");
    put(&producer, "kept", "between").await;

    broker.stop().expect("it runs");
    assert!(
        super::topics::answers(bootstrap, 1, Duration::from_millis(300)).is_err(),
        "it answers though stopped"
    );
    broker.restart().expect("it comes back");

    broker.signal("STOP").expect("it runs");
    let frozen = super::topics::answers(bootstrap, 1, Duration::from_millis(300));
    broker.signal("CONT").expect("it runs");
    assert!(frozen.is_err(), "it answers though frozen");
    put(&producer, "kept", "after").await;
    assert_eq!(values(bootstrap, "kept").await, ["before", "between", "after"]);
    assert!(broker.log_tail().contains("Kafka"), "the log is not the broker's: {}", broker.log_tail());
}
