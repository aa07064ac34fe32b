//! Records read back from topics.

use std::collections::HashMap;

use viaduct_sink::{Archive, ArchiveError, Kept, Mark, Names, Numbers};

use super::*;
use crate::KafkaArchive;

async fn all(archive: &KafkaArchive, since_ms: Option<i64>) -> Vec<Kept> {
    let mut reading = archive.read(since_ms).await.unwrap();
    let mut all = Vec::new();
    while let Some(kept) = reading.recv().await {
        all.push(kept.unwrap());
    }
    all
}

fn open(bootstrap: &str, names: Names) -> KafkaArchive {
    KafkaArchive::new(&settings(bootstrap, &[]), names).unwrap()
}

/// Partitions of which one is much longer than the others, with values large enough to fill the buffers.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_merged_by_time() {
    let topic = topic(shared(), "archive", 3, &[]).await;
    let sink = connect(shared(), &[]).await;
    let mut records = Vec::new();
    for number in 0..3000_usize {
        // Keys: most records go to the partition of one of them.
        let key = if number % 10 == 0 { format!("k{number}") } else { "often".to_owned() };
        let mut record = record(&topic, Some(&key), number, 2000);
        record.timestamp_ms = Some(1_700_000_000_000 + number as i64 * 1000);
        records.push(record);
    }
    drop(sink.publish(Batch { source: "main", records: &records }).await);
    let archive = open(shared(), Names::One(Arc::clone(&topic)));
    let kept = all(&archive, None).await;
    let times: Vec<Option<i64>> = kept.iter().map(|kept| kept.time_ms).collect();
    let expected: Vec<Option<i64>> = records.iter().map(|record| record.timestamp_ms).collect();
    assert_eq!(times, expected);
    let logs: HashMap<&str, u64> = kept.iter().fold(HashMap::new(), |mut logs, kept| {
        *logs.entry(&*kept.place.log).or_default() += 1;
        logs
    });
    assert_eq!(logs.len(), 3, "{logs:?}");

    let since = 1_700_000_000_000 + 2990 * 1000;
    let late = all(&archive, Some(since)).await;
    let late: Vec<&Kept> = late.iter().filter(|kept| kept.time_ms >= Some(since)).collect();
    assert_eq!(late, kept[2990..].iter().collect::<Vec<_>>());
    assert!(all(&archive, Some(since * 2)).await.is_empty());

    let one = &kept[1234];
    assert!(archive.knows(&one.place.id));
    assert_eq!(archive.find(&one.place.id).await.unwrap().as_ref(), Some(one));
    for absent in ["0:9999999", "7:0"] {
        assert!(archive.knows(absent));
        assert_eq!(archive.find(absent).await.unwrap(), None);
    }
    for other in ["x", "0", "0:-1", "local:7", "other:0:7", "dead.000001:7"] {
        assert!(!archive.knows(other), "{other}");
    }
}

/// Marks stand in the partition of what they mark.
#[tokio::test(flavor = "multi_thread")]
async fn marks_are_read_by_everybody() {
    let topic = topic(shared(), "marks", 2, &[]).await;
    let sink = connect(shared(), &[]).await;
    let records: Vec<_> =
        (0..20).map(|number| record(&topic, Some(&number.to_string()), number, 10)).collect();
    drop(sink.publish(Batch { source: "main", records: &records }).await);
    let archive = open(shared(), Names::One(Arc::clone(&topic)));
    assert!(archive.marks().await.unwrap().is_empty());
    archive.prepare().await.unwrap();
    let numbers: Numbers = "0-3,5".parse().unwrap();
    let log: Arc<str> = format!("{topic}/1").into();
    archive.mark(&[Mark { log: log.clone(), numbers: numbers.clone() }]).await.unwrap();
    let marks = open(shared(), Names::One(Arc::clone(&topic))).marks().await.unwrap();
    assert_eq!(marks, HashMap::from([(log, numbers)]));
    let messages = read_topic(shared(), &topic).await.unwrap();
    let mark = messages.iter().find(|message| message.header("viaduct-replayed").is_some()).unwrap();
    assert_eq!(mark.partition, 1);
    assert_eq!(mark.header("viaduct-replayed"), Some(&b"0-3,5"[..]));
    assert_eq!(mark.value.as_deref(), Some(&br#"{"replayed":"1:0-3,5"}"#[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_of_a_template_and_none() {
    let prefix = name("many");
    for end in ["a", "b"] {
        let topic: Arc<str> = format!("{prefix}.{end}").into();
        create_topic(shared(), &topic, 1, &[]).await.unwrap();
        let sink = connect(shared(), &[]).await;
        let records = [record(&topic, None, 1, 10)];
        drop(sink.publish(Batch { source: "main", records: &records }).await);
    }
    let matches = {
        let prefix = format!("{prefix}.");
        Arc::new(move |name: &str| name.starts_with(&prefix))
    };
    let many = open(shared(), Names::Like { prefixes: Vec::new(), matches });
    let kept = all(&many, None).await;
    let mut ids: Vec<String> = kept.iter().map(|kept| kept.place.id.clone()).collect();
    ids.sort();
    assert_eq!(ids, [format!("{prefix}.a:0:0"), format!("{prefix}.b:0:0")]);
    assert!(many.find(&ids[1]).await.unwrap().is_some());
    let none = open(shared(), Names::One(name("absent")));
    assert!(all(&none, None).await.is_empty());
    assert_eq!(none.find("0:0").await.unwrap(), None);
    let nobody = open("127.0.0.1:1", Names::One("t".into()));
    let error = nobody.marks().await.expect_err("nobody is there");
    assert!(matches!(&error, ArchiveError::Unreachable(text) if text.contains("127.0.0.1:1")), "{error}");
}
