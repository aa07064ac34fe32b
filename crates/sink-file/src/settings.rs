//! Settings of the file sink.

use std::io;
use std::path::PathBuf;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// The directory; made when missing.
    pub dir: PathBuf,
    /// A file that would become larger than this many bytes is rotated before the next line; `None`: never. A single
    /// line larger than this stands in a file of its own.
    pub rotate_bytes: Option<u64>,
    /// How many files are kept open at a time.
    pub open_files: usize,
}

impl FileSettings {
    /// Files in `dir`, never rotated, 64 open at a time.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), rotate_bytes: None, open_files: 64 }
    }

    pub(crate) fn check(self) -> Result<Self, FileSinkError> {
        if self.dir.as_os_str().is_empty() {
            return Err(FileSinkError::NoDirectory);
        }
        if self.rotate_bytes == Some(0) || self.open_files == 0 {
            return Err(FileSinkError::Zero);
        }
        Ok(self)
    }
}

/// A mistake in the settings, or a process without threads to spare. A directory that cannot be used is neither.
#[derive(Debug, thiserror::Error)]
pub enum FileSinkError {
    /// No directory.
    #[error("no directory is given for the files")]
    NoDirectory,
    /// A size or number of nothing.
    #[error("the size at which files are rotated and the number of open files must be greater than 0")]
    Zero,
    /// The writing thread cannot be started.
    #[error("the thread that writes the files cannot be started: {0}")]
    Thread(io::Error),
}
