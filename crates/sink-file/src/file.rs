//! One file of lines: opened, repaired, appended to durably, rotated.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use viaduct_faults::{Moment, crash_point};

use crate::name;

/// How much of a file's end is read at a time to find its last line end.
const BLOCK: u64 = 64 * 1024;

/// A file that ends with a line end, locked against other writers.
#[derive(Debug)]
pub(crate) struct LineFile {
    file: File,
    path: PathBuf,
    size: u64,
}

impl LineFile {
    /// Opens or makes the destination's file in `dir`, and cuts a torn last line off.
    pub(crate) fn open(dir: &Path, destination: &str) -> io::Result<Self> {
        let path = dir.join(name::active(destination));
        if !dir.is_dir() {
            make_dir(dir)?;
        }
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "another process writes to this file",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let size = repair(&mut file, &path)?;
        // Also where the file was there already: whoever made it may have died before its name was durable.
        sync_dir(dir)?;
        Ok(Self { file, path, size })
    }

    /// The size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Whether it still stands under its name: somebody may have removed or moved it, or its directory.
    pub(crate) fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(own), Ok(named)) => {
                own.dev() == named.dev() && own.ino() == named.ino() && own.len() == self.size
            }
            _ => false,
        }
    }

    /// Appends whole lines and waits until they are on disk. Where that fails nothing of them stays, as far as the
    /// file system lets us; the file has to be opened anew in any case, which repairs whatever was left.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let before = self.size;
        crash_point(Moment::MidPublish);
        let written = self.file.write_all(lines);
        crash_point(Moment::AfterPublish);
        let written = written.and_then(|()| self.file.sync_data());
        crash_point(Moment::AfterCommit);
        match written {
            Ok(()) => self.size += lines.len() as u64,
            Err(_) => {
                if let Err(error) = self.file.set_len(before).and_then(|()| self.file.sync_data()) {
                    tracing::warn!(file = %self.path.display(), %error, "cannot cut a half-written batch off");
                }
            }
        }
        written
    }

    /// Moves the file to the next free number. The destination's file has to be opened anew then.
    pub(crate) fn rotate(self, dir: &Path, destination: &str) -> io::Result<()> {
        let mut last = 0;
        for entry in fs::read_dir(dir)? {
            let number = entry?.file_name().to_str().and_then(|file| name::rotation(file, destination));
            last = last.max(number.unwrap_or(0));
        }
        let target = dir.join(name::rotated(destination, last + 1));
        fs::rename(&self.path, &target)?;
        sync_dir(dir)
    }
}

impl Drop for LineFile {
    /// Closing alone would leave the lock with a child process that was forked a moment ago.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Cuts a last line without a line end off and gives the size.
fn repair(file: &mut File, path: &Path) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut end = size;
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(start))?;
        Read::by_ref(file).take(end - start).read_to_end(&mut block)?;
        if let Some(at) = memchr::memrchr(b'\n', &block) {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < size {
        tracing::warn!(file = %path.display(), bytes = size - end, "a torn last line is cut off");
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(end)
}

/// Makes a directory with its parents, and makes their names durable.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|part| !part.as_os_str().is_empty() && !part.exists()).collect();
    fs::create_dir_all(dir)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_dir(parent)?;
    }
    Ok(())
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(content: &[u8]) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("x.jsonl");
        fs::write(&path, content).expect("written");
        let file = LineFile::open(dir.path(), "x").expect("opened");
        let left = fs::read(&path).expect("read");
        assert_eq!(file.size(), left.len() as u64);
        left
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        assert_eq!(repaired(b""), b"");
        assert_eq!(repaired(b"{}\n"), b"{}\n");
        assert_eq!(repaired(b"{}\n{\"a\""), b"{}\n");
        assert_eq!(repaired(b"{\"a\""), b"");
        let long = [b"{}\n".to_vec(), vec![b'x'; 3 * BLOCK as usize + 17]].concat();
        assert_eq!(repaired(&long), b"{}\n");
        let mut whole = vec![b'x'; 2 * BLOCK as usize - 1];
        whole.push(b'\n');
        assert_eq!(repaired(&whole), whole);
    }

    #[test]
    fn a_second_writer_is_told_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = LineFile::open(dir.path(), "x").expect("opened");
        let error = LineFile::open(dir.path(), "x").expect_err("locked");
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        drop(first);
        LineFile::open(dir.path(), "x").expect("free again");
    }

    #[test]
    fn rotation_takes_the_next_free_number() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("x.000041.jsonl"), "old\n").expect("written");
        let mut file = LineFile::open(dir.path(), "x").expect("opened");
        file.append(b"1\n").expect("appended");
        file.rotate(dir.path(), "x").expect("rotated");
        assert_eq!(fs::read(dir.path().join("x.000042.jsonl")).expect("there"), b"1\n");
        assert!(!dir.path().join("x.jsonl").exists());
    }
}
