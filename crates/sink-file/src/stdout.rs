//! Standard output, or any other writer, as a sink: one value per line, flushed before it is confirmed.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::spawn_blocking;
use viaduct_sink::outcome::Position;
use viaduct_sink::{Batch, Fatal, HealthReporter, HealthWatch, Outcome, Receipt, Retry, Sink};

use crate::line;

/// Writes lines to one stream, whatever the destinations are called.
///
/// A stream whose reader is gone is gone for good: [`Fatal::Broken`]. After any other error it is not known how much
/// arrived, and the batch is offered again.
pub struct StdoutSink {
    out: Arc<Mutex<Out>>,
    health: HealthReporter,
}

struct Out {
    stream: Box<dyn Write + Send>,
    /// Bytes written so far.
    written: u64,
    /// An error may have left a line without its end.
    torn: bool,
}

impl StdoutSink {
    /// The process's standard output.
    pub fn new() -> Self {
        Self::over(io::stdout())
    }

    /// Any other stream.
    pub fn over(stream: impl Write + Send + 'static) -> Self {
        let health = HealthReporter::new("opening");
        health.up();
        Self { out: Arc::new(Mutex::new(Out { stream: Box::new(stream), written: 0, torn: false })), health }
    }
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for StdoutSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdoutSink").finish_non_exhaustive()
    }
}

impl Out {
    /// Writes and flushes; gives the number of bytes before.
    fn write(&mut self, lines: &[u8]) -> io::Result<u64> {
        let before = self.written + u64::from(self.torn);
        if self.torn {
            self.stream.write_all(b"\n")?;
        }
        self.torn = true;
        self.stream.write_all(lines)?;
        self.stream.flush()?;
        self.torn = false;
        self.written = before + lines.len() as u64;
        Ok(before)
    }
}

#[async_trait]
impl Sink for StdoutSink {
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        let (mut lines, mut ends) = (Vec::new(), Vec::with_capacity(batch.records.len()));
        for record in batch.records {
            line::push(&mut lines, &record.value);
            ends.push(lines.len() as u64);
        }
        let out = self.out.clone();
        let written =
            spawn_blocking(move || out.lock().expect("no panic while the lock is held").write(&lines)).await;
        let outcome = match written {
            Ok(Ok(before)) => {
                self.health.up();
                let receipt = |end| Receipt::attest(Position::File { end: before + end });
                return ends.into_iter().map(|end| Outcome::Confirmed(receipt(end))).collect();
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.health.down("standard output is closed: nobody reads it any more");
                Outcome::Fatal(Fatal::Broken("standard output is closed".to_owned()))
            }
            Ok(Err(error)) => {
                let detail = format!("cannot write to standard output: {error}");
                self.health.down(detail.clone());
                Outcome::Retry(Retry {
                    reason: "io",
                    detail,
                    after: Duration::from_millis(500),
                    refusal: None,
                })
            }
            Err(_) => Outcome::Fatal(Fatal::Broken("writing to standard output failed".to_owned())),
        };
        vec![outcome; batch.records.len()]
    }

    fn health(&self) -> HealthWatch {
        self.health.watch()
    }

    async fn close(&self) {
        self.health.down("closed");
    }
}
