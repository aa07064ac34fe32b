//! Records that a broker refuses for what they are: it refuses their whole batch with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use viaduct_sink::{Outcome, Record, RejectReason};

use super::{connect, name, record, rejected, settle, shared, stored, topic};

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_key_for_a_compacted_topic_holds_nobody_back() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "compacted", 1, &[("cleanup.policy", "compact")]).await;
    // Small batches, so that some are under way behind the one that is refused.
    let sink = connect(bootstrap, &[("batch.num.messages", "20")]).await;
    let is_bad = |number: usize| number % 97 == 50;
    for batch in 0..3 {
        let records: Vec<Record> = (batch * 300..(batch + 1) * 300)
            .map(|number| record(&topic, if is_bad(number) { None } else { Some("k") }, number, 0))
            .collect();
        let (outcomes, _) = settle(&sink, &records).await;
        for (place, outcome) in outcomes.iter().enumerate() {
            let number = batch * 300 + place;
            if is_bad(number) {
                assert_eq!(rejected(outcome), Some(RejectReason::Refused), "{number}: {outcome:?}");
            } else {
                assert!(matches!(outcome, Outcome::Confirmed(_)), "{number}: {outcome:?}");
            }
        }
    }
    let good: Vec<usize> = (0..900).filter(|&number| !is_bad(number)).collect();
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_the_topic_does_not_take_is_refused() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "times", 1, &[("message.timestamp.after.max.ms", "3600000")]).await;
    let sink = connect(bootstrap, &[]).await;
    let later = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(86_400);
    let mut records: Vec<Record> = (0..20).map(|number| record(&topic, Some("k"), number, 0)).collect();
    records[7].timestamp_ms = Some(i64::try_from(later.as_millis()).unwrap());
    let (outcomes, _) = settle(&sink, &records).await;
    assert_eq!(rejected(&outcomes[7]), Some(RejectReason::Refused), "{:?}", outcomes[7]);
    let good: Vec<usize> = (0..20).filter(|&number| number != 7).collect();
    assert_eq!(stored(bootstrap, &topic, Some("k")).await, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_topic_can_have_is_an_invalid_destination() {
    let bootstrap = shared();
    let topic = topic(bootstrap, "valid", 1, &[]).await;
    let sink = connect(bootstrap, &[]).await;
    let long = format!("{}{}", name("long"), "x".repeat(250));
    for invalid in ["", ".", "a/b", "ä", "nul\0", &long] {
        let records = [
            record(&topic, Some("k"), 0, 0),
            record(&std::sync::Arc::from(invalid), Some("k"), 1, 0),
            record(&topic, Some("k"), 2, 0),
        ];
        let outcomes = super::publish(&sink, &records).await;
        assert_eq!(rejected(&outcomes[1]), Some(RejectReason::InvalidDestination), "{invalid:?}");
        assert!(matches!((&outcomes[0], &outcomes[2]), (Outcome::Confirmed(_), Outcome::Confirmed(_))));
    }
}
