//! Lines read back by their ids, over rotations, and marked.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test")]

use viaduct_sink::{Archive, ArchiveError, Batch, Kept, Mark, Names, Numbers, Record, Sink};
use viaduct_sink_file::{FileArchive, FileSettings, FileSink};

fn record(destination: &str, value: &str) -> Record {
    Record {
        destination: destination.into(),
        key: None,
        headers: Vec::new(),
        value: value.to_owned().into(),
        timestamp_ms: None,
        message_id: value.into(),
        event: value.into(),
    }
}

async fn all(archive: &FileArchive) -> Vec<Kept> {
    let mut reading = archive.read(None).await.unwrap();
    let mut all = Vec::new();
    while let Some(kept) = reading.recv().await {
        all.push(kept.unwrap());
    }
    all
}

fn ids(kept: &[Kept]) -> Vec<(String, String)> {
    kept.iter().map(|kept| (kept.place.id.clone(), String::from_utf8(kept.value.to_vec()).unwrap())).collect()
}

/// Lines of 3 bytes with their ends, two per file.
async fn write(sink: &FileSink, values: std::ops::Range<u32>) {
    for value in values {
        let records = [record("dead", &format!("{value:02}"))];
        drop(sink.publish(Batch { source: "main", records: &records }).await);
    }
}

fn one(name: &str) -> Names {
    Names::One(name.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_marks_stay_when_files_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = FileSettings::new(dir.path());
    settings.rotate_bytes = Some(6);
    let sink = FileSink::open(settings).unwrap();
    let archive = FileArchive::new(dir.path(), one("dead"), None);
    assert!(all(&archive).await.is_empty());
    write(&sink, 0..3).await;
    let before = ids(&all(&archive).await);
    let expected = [("dead.000001:1", "00"), ("dead.000001:2", "01"), ("dead.000002:1", "02")];
    assert_eq!(before, expected.map(|(id, value)| (id.to_owned(), value.to_owned())));

    let last = archive.find("dead.000002:1").await.unwrap().expect("it stands there");
    let mut numbers = Numbers::default();
    numbers.insert(1, 1);
    archive.prepare().await.unwrap();
    archive.mark(&[Mark { log: last.place.log.clone(), numbers }]).await.unwrap();
    let second = FileArchive::new(dir.path(), one("dead"), None);
    let error = second.prepare().await.expect_err("somebody marks already");
    assert!(matches!(&error, ArchiveError::Refused(text) if text.contains("another replay")), "{error}");

    write(&sink, 3..6).await;
    let after = all(&archive).await;
    assert_eq!(ids(&after)[..3], before);
    assert_eq!(ids(&after).last().unwrap().0, "dead.000003:2");
    let marks = second.marks().await.unwrap();
    let marked: Vec<&str> = after
        .iter()
        .filter(|kept| marks.get(&kept.place.log).is_some_and(|marks| marks.contains(kept.place.number)))
        .map(|kept| kept.place.id.as_str())
        .collect();
    assert_eq!(marked, ["dead.000002:1"]);
    for absent in ["dead.000002:3", "dead.000009:1", "other.000001:1", "dead.000001:0"] {
        assert_eq!(archive.find(absent).await.unwrap(), None, "{absent}");
    }
}

/// A file that stands in the place of another one has none of its marks; a line that is being written is none yet.
#[tokio::test(flavor = "multi_thread")]
async fn marks_are_of_a_file_not_of_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dead.jsonl");
    std::fs::write(&path, "1\n2\n3").unwrap();
    let archive = FileArchive::new(dir.path(), one("dead"), Some("local"));
    let kept = all(&archive).await;
    assert_eq!(ids(&kept).iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["local:1", "local:2"]);
    assert!(archive.knows("local:7") && !archive.knows("dead.000001:7") && !archive.knows("0:7"));
    let numbers: Numbers = "1-2".parse().unwrap();
    archive.mark(&[Mark { log: kept[0].place.log.clone(), numbers }]).await.unwrap();
    // A crash tears a line of the marks: it says nothing, and the next one is read all the same.
    drop(archive);
    let marks = dir.path().join("dead.replayed");
    let torn = std::fs::read_to_string(&marks).unwrap() + "{\"file\":\"";
    std::fs::write(&marks, torn).unwrap();

    std::fs::write(&path, "other\n2\n").unwrap();
    let archive = FileArchive::new(dir.path(), one("dead"), Some("local"));
    let other = all(&archive).await;
    let known = archive.marks().await.unwrap();
    assert!(!known.contains_key(&other[0].place.log));
    assert!(known[&kept[0].place.log].contains(2));
    archive.mark(&[Mark { log: other[0].place.log.clone(), numbers: "2".parse().unwrap() }]).await.unwrap();
    assert!(archive.marks().await.unwrap()[&other[0].place.log].contains(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_template() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["dead-a.jsonl", "dead-a.000001.jsonl", "dead-b.jsonl", "live.jsonl", "dead-a.replayed"] {
        std::fs::write(dir.path().join(file), "1\n").unwrap();
    }
    let matches = std::sync::Arc::new(|name: &str| name.starts_with("dead-"));
    let names = Names::Like { prefixes: vec!["dead-".to_owned()], matches };
    let archive = FileArchive::new(dir.path(), names, None);
    let kept = ids(&all(&archive).await);
    let ids: Vec<&str> = kept.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["dead-a.000001:1", "dead-a.000002:1", "dead-b.000001:1"]);
}
