//! The file sink on real directories: what is confirmed is there, whatever happens in between.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test")]

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Batch, Fatal, Outcome, Record, Refusal, RejectReason, Sink};
use viaduct_sink_file::{FileSettings, FileSink, StdoutSink};

fn record(destination: &str, value: impl Into<String>) -> Record {
    Record {
        destination: destination.into(),
        key: None,
        headers: Vec::new(),
        value: Bytes::from(value.into()),
        timestamp_ms: None,
        message_id: "acme.1.00".into(),
        event: "acme.1.00".into(),
    }
}

async fn publish(sink: &dyn Sink, records: &[Record]) -> Vec<Outcome> {
    sink.publish(Batch { source: "main", records }).await
}

fn end(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Confirmed(receipt) => match receipt.position() {
            Position::File { end } => end,
            other => panic!("not a file's position: {other:?}"),
        },
        other => panic!("not confirmed: {other:?}"),
    }
}

fn refusal(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Outcome::Retry(retry) => retry.refusal,
        other => panic!("not a retry: {other:?}"),
    }
}

fn open(dir: &Path) -> FileSink {
    FileSink::open(FileSettings::new(dir)).unwrap()
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap()
}

#[tokio::test]
async fn one_line_per_value_one_file_per_destination() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("made/on/the/way");
    let sink = open(&deep);
    let records =
        [record("chat", "{\"a\":1}"), record("outreach", "null"), record("chat", "{\n\"b\": 2\r\n}")];
    let outcomes = publish(&sink, &records).await;
    assert_eq!(outcomes.iter().map(end).collect::<Vec<_>>(), [8, 5, 8 + 12]);
    assert_eq!(read(&deep, "chat.jsonl"), "{\"a\":1}\n{ \"b\": 2  }\n");
    assert_eq!(read(&deep, "outreach.jsonl"), "null\n");
    assert!(sink.health().borrow().up);
    sink.close().await;
    sink.close().await;
    assert_eq!(refusal(&publish(&sink, &records).await[0]), None);
}

#[tokio::test]
async fn files_are_rotated_by_size_and_no_line_is_split() {
    let dir = tempfile::tempdir().unwrap();
    let settings = FileSettings { rotate_bytes: Some(10), ..FileSettings::new(dir.path()) };
    let sink = FileSink::open(settings.clone()).unwrap();
    let records: Vec<Record> =
        ["1111", "2222", "33333333333333", "4", "5"].map(|value| record("x", value)).into();
    let outcomes = publish(&sink, &records).await;
    assert_eq!(outcomes.iter().map(end).collect::<Vec<_>>(), [5, 10, 15, 2, 4]);
    sink.close().await;
    let sink = FileSink::open(settings).unwrap();
    publish(&sink, &[record("x", "66"), record("x", "777")])
        .await
        .iter()
        .for_each(|outcome| assert!(end(outcome) > 0));
    assert_eq!(read(dir.path(), "x.000001.jsonl"), "1111\n2222\n");
    assert_eq!(read(dir.path(), "x.000002.jsonl"), "33333333333333\n");
    assert_eq!(read(dir.path(), "x.000003.jsonl"), "4\n5\n66\n");
    assert_eq!(read(dir.path(), "x.jsonl"), "777\n");
}

#[tokio::test]
async fn a_name_that_cannot_be_a_file_is_rejected_and_holds_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let outcomes = publish(&sink, &[record("../x", "1"), record("x", "2"), record("x", "3")]).await;
    assert!(
        matches!(&outcomes[0], Outcome::Rejected(rejection) if rejection.reason == RejectReason::InvalidDestination)
    );
    assert_eq!((end(&outcomes[1]), end(&outcomes[2])), (2, 4));
    assert!(!dir.path().join("../x.jsonl").exists());
}

#[tokio::test]
async fn a_torn_last_line_never_gets_the_next_one_glued_to_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.jsonl"), "{\"whole\":1}\n{\"torn\":").unwrap();
    let outcomes = publish(&open(dir.path()), &[record("x", "{\"next\":2}")]).await;
    end(&outcomes[0]);
    assert_eq!(read(dir.path(), "x.jsonl"), "{\"whole\":1}\n{\"next\":2}\n");
}

#[tokio::test]
async fn a_full_disk_is_refused_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.jsonl");
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    let sink = open(dir.path());
    let outcomes = publish(&sink, &[record("x", "1"), record("y", "2")]).await;
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Full));
    end(&outcomes[1]);
    let health = sink.health().borrow().clone();
    assert!(!health.up && health.reason.contains("x.jsonl"), "{health:?}");
    fs::remove_file(&file).unwrap();
    end(&publish(&sink, &[record("x", "1")]).await[0]);
    assert_eq!(read(dir.path(), "x.jsonl"), "1\n");
    assert!(sink.health().borrow().up);
}

#[tokio::test]
async fn a_directory_that_cannot_be_one_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("events");
    fs::write(&target, "a file is in the way").unwrap();
    let sink = open(&target);
    let records = [record("x", "1"), record("x", "2")];
    let mut publishing = Box::pin(publish(&sink, &records));
    assert!(tokio::time::timeout(Duration::from_millis(700), &mut publishing).await.is_err());
    let health = sink.health().borrow().clone();
    assert!(!health.up && health.reason.contains("x.jsonl"), "{health:?}");
    fs::remove_file(&target).unwrap();
    assert_eq!(publishing.await.iter().map(end).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(read(&target, "x.jsonl"), "1\n2\n");
    assert!(sink.health().borrow().up);
}

#[tokio::test]
async fn a_directory_in_the_place_of_a_file_refuses_that_destination_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("x.jsonl")).unwrap();
    let outcomes = publish(&open(dir.path()), &[record("x", "1"), record("y", "2")]).await;
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::Missing));
    end(&outcomes[1]);
}

#[tokio::test]
async fn closing_ends_a_publish_that_waits() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("events");
    fs::write(&target, "a file is in the way").unwrap();
    let sink = open(&target);
    let records = [record("x", "1")];
    let mut publishing = Box::pin(publish(&sink, &records));
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut publishing).await.is_err());
    sink.close().await;
    let outcomes = tokio::time::timeout(Duration::from_secs(10), publishing).await.unwrap();
    assert_eq!(refusal(&outcomes[0]), None);
}

#[tokio::test]
async fn what_was_removed_or_moved_away_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("events");
    let sink = open(&target);
    end(&publish(&sink, &[record("x", "1")]).await[0]);
    fs::remove_dir_all(&target).unwrap();
    end(&publish(&sink, &[record("x", "2")]).await[0]);
    fs::rename(target.join("x.jsonl"), target.join("x.archived")).unwrap();
    end(&publish(&sink, &[record("x", "3")]).await[0]);
    assert_eq!((read(&target, "x.archived"), read(&target, "x.jsonl")), ("2\n".into(), "3\n".into()));
}

#[tokio::test]
async fn a_file_that_another_sink_writes_to_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (open(dir.path()), open(dir.path()));
    end(&publish(&one, &[record("x", "1")]).await[0]);
    assert_eq!(refusal(&publish(&other, &[record("x", "2")]).await[0]), Some(Refusal::NotPermitted));
    one.close().await;
    end(&publish(&other, &[record("x", "2")]).await[0]);
    assert_eq!(read(dir.path(), "x.jsonl"), "1\n2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sources_many_files_few_of_them_open() {
    let dir = tempfile::tempdir().unwrap();
    let settings = FileSettings { open_files: 3, ..FileSettings::new(dir.path()) };
    let sink = Arc::new(FileSink::open(settings).unwrap());
    let mut sources = tokio::task::JoinSet::new();
    for source in 0..8 {
        let sink = sink.clone();
        sources.spawn(async move {
            for round in 0..20 {
                let records: Vec<Record> =
                    (0..10).map(|file| record(&format!("f{file}"), format!("[{source},{round}]"))).collect();
                publish(&*sink, &records).await.iter().for_each(|outcome| assert!(end(outcome) > 0));
            }
        });
    }
    sources.join_all().await;
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open =
        open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|path| path.starts_with(dir.path()))).count();
    assert!(open <= 3, "{open} files are open");
    for file in 0..10 {
        let text = read(dir.path(), &format!("f{file}.jsonl"));
        for source in 0..8 {
            let own: Vec<&str> =
                text.lines().filter(|line| line.starts_with(&format!("[{source},"))).collect();
            let expected: Vec<String> = (0..20).map(|round| format!("[{source},{round}]")).collect();
            assert_eq!(own, expected);
        }
    }
}

/// Runs [`writes_until_refused_or_killed`] in a process of its own, started by a shell that may set limits first.
fn child(dir: &Path, limits: &str) -> std::process::Child {
    let script = format!("{limits} exec \"$0\" --ignored --exact --nocapture writes_until_refused_or_killed");
    Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("VIADUCT_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The numbers that the child says were confirmed, as they come.
fn confirmed(child: &mut std::process::Child) -> impl Iterator<Item = u64> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.filter_map(|line| line.strip_prefix("confirmed ").and_then(|number| number.parse().ok()))
}

#[tokio::test]
#[ignore = "the tests below run it as a process of its own"]
async fn writes_until_refused_or_killed() {
    let sink = open(Path::new(&std::env::var_os("VIADUCT_TEST_DIR").unwrap()));
    for number in 0.. {
        let records: Vec<Record> =
            (0..7).map(|part| record("x", format!("[{number},{part},\"{}\"]", "y".repeat(40)))).collect();
        let outcomes = publish(&sink, &records).await;
        if let Outcome::Retry(retry) = &outcomes[0] {
            assert_eq!(retry.refusal, Some(Refusal::Full));
            break;
        }
        outcomes.iter().for_each(|outcome| assert!(end(outcome) > 0));
        println!("confirmed {number}");
    }
}

/// Every line is whole, and everything confirmed is there.
fn assert_whole(dir: &Path, confirmed: &HashSet<u64>) -> String {
    let text = read(dir, "x.jsonl");
    for number in confirmed {
        for part in 0..7 {
            assert!(
                text.contains(&format!("[{number},{part},\"")),
                "{number} was confirmed and is not there"
            );
        }
    }
    text
}

#[tokio::test]
async fn a_write_that_stops_half_way_leaves_no_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    // A file size limit stops a write in the middle, which a full disk does only now and then.
    let mut child = child(dir.path(), "trap '' XFSZ; ulimit -f 8;");
    let confirmed: HashSet<u64> = confirmed(&mut child).collect();
    assert!(child.wait().unwrap().success());
    assert!(!confirmed.is_empty());
    let text = assert_whole(dir.path(), &confirmed);
    assert!(text.ends_with("\"]\n"));
    assert_eq!(text.lines().count(), confirmed.len() * 7, "the half-written batch was not cut off");
}

#[tokio::test]
async fn killed_at_random_moments_nothing_confirmed_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10_u64 {
        let mut child = child(dir.path(), "");
        let mut said = confirmed(&mut child);
        let mut confirmed: HashSet<u64> = said.by_ref().take(1 + round as usize * 3).collect();
        child.kill().unwrap();
        confirmed.extend(said);
        child.wait().unwrap();
        assert_whole(dir.path(), &confirmed);
        let sink = open(dir.path());
        end(&publish(&sink, &[record("x", "\"after\"")]).await[0]);
        sink.close().await;
        let text = read(dir.path(), "x.jsonl");
        assert!(text.ends_with("\n\"after\"\n"));
        assert!(
            text.lines().all(|line| line == "\"after\"" || (line.starts_with('[') && line.ends_with("\"]")))
        );
        fs::remove_file(dir.path().join("x.jsonl")).unwrap();
    }
}

/// A stream that fails as it is told.
#[derive(Clone, Default)]
struct Stream(Arc<std::sync::Mutex<(Vec<u8>, Option<std::io::ErrorKind>)>>);

impl std::io::Write for Stream {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        if let Some(kind) = state.1 {
            return Err(kind.into());
        }
        state.0.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.write(&[]).map(drop)
    }
}

#[tokio::test]
async fn standard_output_is_lines_and_its_end_is_fatal() {
    let stream = Stream::default();
    let sink = StdoutSink::over(stream.clone());
    let records = [record("any", "{\n}"), record("../thing", "2")];
    assert_eq!(publish(&sink, &records).await.iter().map(end).collect::<Vec<_>>(), [4, 6]);
    stream.0.lock().unwrap().1 = Some(std::io::ErrorKind::OutOfMemory);
    assert_eq!(refusal(&publish(&sink, &records).await[1]), None);
    assert!(!sink.health().borrow().up);
    stream.0.lock().unwrap().1 = None;
    publish(&sink, &records[1..]).await;
    assert!(sink.health().borrow().up);
    assert_eq!(stream.0.lock().unwrap().0, b"{ }\n2\n\n2\n");
    stream.0.lock().unwrap().1 = Some(std::io::ErrorKind::BrokenPipe);
    assert!(matches!(publish(&sink, &records).await[0], Outcome::Fatal(Fatal::Broken(_))));
}

#[tokio::test]
async fn an_abandoned_batch_leaves_the_sink_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let sink = open(dir.path());
    let abandoned = tokio::time::timeout(Duration::ZERO, publish(&sink, &[record("x", "1")])).await;
    drop(abandoned);
    assert!(end(&publish(&sink, &[record("x", "2")]).await[0]) >= 2);
}
