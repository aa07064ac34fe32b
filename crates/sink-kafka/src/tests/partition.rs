//! Which partition a key goes to, and the record's time.

use viaduct_sink::outcome::Position;
use viaduct_sink::{Outcome, Record};
use viaduct_testkit::kafka::read_topic;

use super::{connect, publish, record, shared, topic};

/// Keys and their murmur2 hashes from Apache Kafka's own test (`UtilsTest.testMurmur2`).
const MURMUR2: [(&str, i32); 6] = [
    ("21", -973_932_308),
    ("foobar", -790_332_482),
    ("a-little-bit-long-string", -985_981_536),
    ("a-little-bit-longer-string", -1_486_304_829),
    ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
    ("abc", 479_470_107),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_where_the_java_client_puts_it() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "murmur", 17, &[]).await;
    let sink = connect(bootstrap, &[]).await;
    let records: Vec<Record> =
        MURMUR2.iter().enumerate().map(|(number, (key, _))| record(&topic, Some(key), number, 0)).collect();
    let outcomes = publish(&sink, &records).await;
    let stored = read_topic(bootstrap, &topic).await.unwrap();
    for ((key, hash), outcome) in MURMUR2.iter().zip(&outcomes) {
        let wanted = (hash & 0x7fff_ffff) % 17;
        let found = stored.iter().find(|message| message.key.as_deref() == Some(key.as_bytes())).unwrap();
        assert_eq!(found.partition, wanted, "{key}");
        let Outcome::Confirmed(receipt) = outcome else { panic!("{outcome:?}") };
        assert_eq!(receipt.position(), Position::Kafka { partition: wanted, offset: found.offset }, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_record_is_the_events() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "time", 1, &[]).await;
    let sink = connect(bootstrap, &[]).await;
    let before = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let records = [
        Record { timestamp_ms: Some(1_700_000_000_123), ..record(&topic, Some("k"), 0, 0) },
        record(&topic, Some("k"), 1, 0),
    ];
    publish(&sink, &records).await;
    let stored = read_topic(bootstrap, &topic).await.unwrap();
    assert_eq!(stored[0].timestamp_ms, Some(1_700_000_000_123));
    assert!(stored[1].timestamp_ms.unwrap() >= before - 1000, "without a time, the producer's clock");
}
