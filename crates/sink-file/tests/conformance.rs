//! The checks that every sink has to pass, for files and for standard output.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use viaduct_sink::Sink;
use viaduct_sink::conformance::{self, Abilities, Harness, Observed};
use viaduct_sink_file::{FileSettings, FileSink, StdoutSink};

const LINES: Abilities = Abilities { keys: false, headers: None, any_bytes: false, largest_value: 3_000_000 };

/// The values of a text of lines. A text that does not end with a line end has a torn line.
fn observed(text: &[u8]) -> Vec<Observed> {
    assert!(text.is_empty() || text.ends_with(b"\n"), "a torn line");
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| Observed { key: None, headers: Vec::new(), value: Bytes::copy_from_slice(line) })
        .collect()
}

struct Directory {
    root: TempDir,
    sink: Arc<FileSink>,
}

impl Directory {
    fn new(rotate_bytes: Option<u64>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let settings =
            FileSettings { rotate_bytes, open_files: 2, ..FileSettings::new(root.path().join("events")) };
        Self { sink: Arc::new(FileSink::open(settings).unwrap()), root }
    }

    fn dir(&self) -> PathBuf {
        self.root.path().join("events")
    }
}

#[async_trait]
impl Harness for Directory {
    fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    fn abilities(&self) -> Abilities {
        LINES
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        format!("destination-{n}").into()
    }

    async fn read(&self, destination: &str) -> Vec<Observed> {
        let start = format!("{destination}.");
        let entries = fs::read_dir(self.dir()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start)).collect();
        // `x.000001.jsonl` before `x.jsonl`: the file that is written to is the newest.
        files.sort();
        files.iter().flat_map(|file| observed(&fs::read(file).unwrap())).collect()
    }

    async fn break_destination(&self) -> bool {
        fs::rename(self.dir(), self.root.path().join("away")).unwrap();
        fs::write(self.dir(), "in the way").unwrap();
        true
    }

    async fn heal_destination(&self) {
        fs::remove_file(self.dir()).unwrap();
        fs::rename(self.root.path().join("away"), self.dir()).unwrap();
    }

    fn too_large(&self) -> Option<usize> {
        None
    }

    fn invalid_destination(&self) -> Option<Arc<str>> {
        Some("../events".into())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files() {
    conformance::run_all(&Directory::new(None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_files() {
    conformance::run_all(&Directory::new(Some(5_000))).await;
}

/// A stream has no destinations: everything stands in it.
#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Stream {
    captured: Captured,
    sink: Arc<StdoutSink>,
}

impl Stream {
    fn new() -> Self {
        let captured = Captured::default();
        Self { sink: Arc::new(StdoutSink::over(captured.clone())), captured }
    }
}

#[async_trait]
impl Harness for Stream {
    fn sink(&self) -> Arc<dyn Sink> {
        self.sink.clone()
    }

    fn abilities(&self) -> Abilities {
        LINES
    }

    async fn destination(&self, n: usize) -> Arc<str> {
        n.to_string().into()
    }

    async fn read(&self, _: &str) -> Vec<Observed> {
        observed(&self.captured.0.lock().unwrap())
    }

    async fn break_destination(&self) -> bool {
        false
    }

    async fn heal_destination(&self) {}

    fn too_large(&self) -> Option<usize> {
        None
    }

    fn invalid_destination(&self) -> Option<Arc<str>> {
        None
    }
}

/// Each check with a stream of its own, because one stream holds the lines of all destinations.
#[tokio::test(flavor = "multi_thread")]
async fn standard_output() {
    conformance::one_outcome_per_record(&Stream::new()).await;
    conformance::order_per_key(&Stream::new()).await;
    conformance::confirmed_is_readable(&Stream::new()).await;
    conformance::content_unchanged(&Stream::new()).await;
    conformance::rejected_record_holds_nobody_back(&Stream::new()).await;
    conformance::concurrent_sources(&Stream::new()).await;
    conformance::dropped_publish(&Stream::new()).await;
    conformance::outage(&Stream::new()).await;
    conformance::close(&Stream::new()).await;
}
