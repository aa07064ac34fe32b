//! What a stream lacks, and what can go wrong with it.

use super::*;

fn report() -> StreamReport {
    StreamReport {
        name: "VIA".to_owned(),
        server_version: "2.15.1".to_owned(),
        distributed: false,
        subjects: vec!["via.>".to_owned()],
        replicas: 1,
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_message_size: None,
        max_messages: None,
        max_messages_per_subject: None,
        max_bytes: None,
        max_age: None,
        duplicate_window: Duration::from_secs(120),
        no_ack: false,
        sealed: false,
        allow_atomic: true,
        allow_rollup: true,
        allow_direct: true,
        deny_purge: false,
        discard_new_per_subject: false,
    }
}

#[test]
fn what_exactly_once_delivery_lacks_is_named() {
    let lacks = |change: fn(&mut StreamReport)| {
        let mut report = report();
        change(&mut report);
        report.exactly_once_problem().unwrap_or_default()
    };
    assert_eq!(lacks(|_| {}), "");
    for version in ["2.12.0", "2.14.0-RC.1", "3.0.0", "unknown"] {
        let report = StreamReport { server_version: version.to_owned(), ..report() };
        assert_eq!(report.exactly_once_problem(), None, "{version}");
    }
    assert!(lacks(|report| report.server_version = "2.11.9".to_owned()).contains("2.12"));
    assert!(lacks(|report| report.allow_atomic = false).contains("allow_atomic on stream VIA"));
    assert!(lacks(|report| report.allow_rollup = false).contains("allow_rollup_hdrs"));
    assert!(lacks(|report| report.deny_purge = true).contains("deny_purge"));
    assert!(
        lacks(|report| {
            report.discard_new_per_subject = true;
            report.max_messages_per_subject = Some(1);
        })
        .contains("max_msgs_per_subject")
    );
}

#[test]
fn what_can_lose_a_checkpoint_is_named() {
    assert!(report().dangers_to_checkpoints().is_empty());
    let limited = StreamReport {
        storage: StorageType::Memory,
        retention: RetentionPolicy::WorkQueue,
        max_age: Some(Duration::from_secs(60)),
        max_messages: Some(10),
        max_bytes: Some(10),
        ..report()
    };
    assert_eq!(limited.dangers_to_checkpoints().len(), 5);
    let refusing = StreamReport { discard: DiscardPolicy::New, max_messages: Some(10), ..report() };
    assert!(refusing.dangers_to_checkpoints().is_empty(), "it refuses new messages and keeps the old ones");
}
