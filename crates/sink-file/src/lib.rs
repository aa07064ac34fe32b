//! Records to files and to standard output, as JSON Lines.
//!
//! **Guarantee.** [`FileSink`] confirms a record when its line, whole and with its line end, has been written and
//! `fdatasync` returned; after a file is created or renamed its directory is synced too. [`StdoutSink`] confirms when
//! everything written has been flushed; what is behind the pipe is not known.
//!
//! **Recovery.** A write that fails half-way is cut off again before anything else is written, so that no torn line
//! stays in the middle of a file. A line that a crash tore stands at the end, without a line end; it is cut off before
//! the file is written to again: its record was never confirmed. Lines which were written whole but not confirmed stay
//! and will stand twice. A directory or file that was removed or moved away meanwhile is made again.
//!
//! **Outages.** A full disk, a lack of permission and a file that cannot be one are refusals: somebody has to mend them,
//! and the bridge decides how long to wait. Every other error means that the directory or its disk is away: the publish
//! waits, tries twice a second, and the health says why.
//!
//! **Order.** One thread writes, job after job; the order of the calls is the order of the lines. It takes all calls
//! that wait and syncs each file once for them.
//!
//! One line per value: a value is JSON, in which a raw line break can only be insignificant whitespace, so each CR or
//! LF becomes a space. Keys and headers are not written. The file of a destination is `<dir>/<destination>.jsonl`;
//! rotated ones are `<dir>/<destination>.<NNNNNN>.jsonl`, the highest number being the newest.
//!
//! - [`settings`]: where, how large, how many at once
//! - `name`: which destinations can be files
//! - `line`: a value as a line
//! - `file`: one file: opened, repaired, appended to, rotated
//! - `writer`: the thread and its jobs
//! - [`stdout`]: standard output

mod archive;
mod file;
mod line;
mod name;
pub mod settings;
pub mod stdout;
mod writer;

use async_trait::async_trait;
use viaduct_sink::{Batch, HealthReporter, HealthWatch, Outcome, Sink};

pub use archive::FileArchive;
pub use settings::{FileSettings, FileSinkError};
pub use stdout::StdoutSink;

use writer::Writer;

/// Files in a directory, one per destination.
#[derive(Debug)]
pub struct FileSink {
    writer: Writer,
    health: HealthWatch,
}

impl FileSink {
    /// Checks the settings and prepares the directory. A directory that cannot be made is not an error: the health
    /// says so, and each publish tries again.
    ///
    /// Files are opened, and torn lines cut off, when something is written to them: whatever else lies in the
    /// directory is left alone.
    pub fn open(settings: FileSettings) -> Result<Self, FileSinkError> {
        let settings = settings.check()?;
        let reporter = HealthReporter::new("opening");
        let health = reporter.watch();
        let writer = Writer::start(settings, reporter).map_err(FileSinkError::Thread)?;
        Ok(Self { writer, health })
    }
}

#[async_trait]
impl Sink for FileSink {
    async fn publish(&self, batch: Batch<'_>) -> Vec<Outcome> {
        self.writer.write(batch.records).await
    }

    fn health(&self) -> HealthWatch {
        self.health.clone()
    }

    async fn close(&self) {
        self.writer.close().await;
    }
}
