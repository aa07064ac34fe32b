//! Lines read back, rotated files first, and the marks of those that were replayed.
//!
//! **Ids.** `<destination>.<number>:<line>`: the file that is being written to counts under the number that it gets when it
//! is rotated, so rotation changes no id. Where files are never rotated the caller gives the name before the colon.
//!
//! **Marks** stand in `<destination>.replayed` beside the files, JSON Lines with the fsync of each. They name a file by the
//! hash of its first line: a file that somebody puts in the place of another one is not taken for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use viaduct_sink::archive::READ_AHEAD;
use viaduct_sink::{Archive, ArchiveError, Kept, Mark, Marks, Names, Numbers, Place, Reading};
use xxhash_rust::xxh3::xxh3_64;

use crate::file::sync_dir;
use crate::name;

/// What stands behind a destination in the name of the file of its marks.
const MARKS: &str = ".replayed";

/// The files of some destinations in a directory.
#[derive(Debug)]
pub struct FileArchive {
    dir: PathBuf,
    names: Names,
    /// What stands before the colon in ids, where there is one file only.
    label: Option<&'static str>,
    /// The open files of marks, locked.
    marks: Mutex<HashMap<String, File>>,
}

/// A line of the file of marks.
#[derive(Debug, Serialize, Deserialize)]
struct MarkLine {
    /// The file: the hash of its first line, in hexadecimal.
    file: String,
    /// Which of its lines.
    lines: String,
}

/// One file of a destination.
#[derive(Debug)]
struct Part {
    destination: String,
    /// The number that it has, or gets when it is rotated.
    number: u64,
    path: PathBuf,
    /// The file that is being written to, with its size: its name may be another one's soon.
    active: Option<(File, u64)>,
}

impl FileArchive {
    /// The files of these destinations in `dir`. `label`: what ids start with, where there is one destination and its file
    /// is never rotated.
    pub fn new(dir: impl Into<PathBuf>, names: Names, label: Option<&'static str>) -> Self {
        Self { dir: dir.into(), names, label, marks: Mutex::default() }
    }

    /// The files, by destination, oldest first. A directory that is not there has none.
    fn parts(&self) -> Result<Vec<Part>, ArchiveError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.dir, &error)),
        };
        let mut parts = Vec::new();
        let mut active = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&self.dir, &error))?;
            let Ok(file) = entry.file_name().into_string() else { continue };
            match name::split_rotated(&file) {
                Some((destination, number)) if self.names.matches(destination) => {
                    let destination = destination.to_owned();
                    parts.push(Part { destination, number, path: entry.path(), active: None });
                }
                _ => match file.strip_suffix(name::SUFFIX) {
                    Some(destination) if self.names.matches(destination) => {
                        active.push((destination.to_owned(), entry.path()));
                    }
                    _ => {}
                },
            }
        }
        for (destination, path) in active {
            let file = match File::open(&path) {
                Ok(file) => file,
                // Rotated or removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(&path, &error)),
            };
            let size = file.metadata().map_err(|error| unreadable(&path, &error))?.len();
            let others = parts.iter().filter(|part| part.destination == destination);
            let number = others.map(|part| part.number).max().unwrap_or(0) + 1;
            parts.push(Part { destination, number, path, active: Some((file, size)) });
        }
        parts.sort_by(|one, other| (&one.destination, one.number).cmp(&(&other.destination, other.number)));
        Ok(parts)
    }

    fn id(&self, part: &Part, line: u64) -> String {
        match self.label {
            Some(label) => format!("{label}:{line}"),
            None => format!("{}.{:06}:{line}", part.destination, part.number),
        }
    }

    /// Calls `each` with the whole lines that the file had when it was listed, until it says no.
    fn lines(&self, part: Part, mut each: impl FnMut(Kept) -> bool) -> Result<bool, ArchiveError> {
        let (id, path) = (|line| self.id(&part, line), &part.path);
        let failed = |error: io::Error| unreadable(path, &error);
        let (file, size) = match &part.active {
            Some((file, size)) => (file, *size),
            None => (&File::open(path).map_err(failed)?, u64::MAX),
        };
        let mut file = BufReader::new(file.take(size));
        let mut log: Option<Arc<str>> = None;
        let mut number = 0;
        loop {
            let mut line = Vec::new();
            file.read_until(b'\n', &mut line).map_err(failed)?;
            if line.pop() != Some(b'\n') {
                // The end, or a line that is being written.
                return Ok(true);
            }
            number += 1;
            let log =
                log.get_or_insert_with(|| format!("{}/{:016x}", part.destination, xxh3_64(&line)).into());
            let place = Place { id: id(number), log: log.clone(), number };
            let kept = Kept { place, time_ms: None, headers: Vec::new(), value: Bytes::from(line) };
            if !each(kept) {
                return Ok(false);
            }
        }
    }

    fn read_marks(&self) -> Result<Marks, ArchiveError> {
        let mut marks = Marks::new();
        for destination in self.destinations()? {
            let path = self.marks_path(&destination);
            let text = match fs::read(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(unreadable(&path, &error)),
            };
            for line in text.split(|byte| *byte == b'\n') {
                // A line that a crash tore says nothing.
                let Ok(mark) = serde_json::from_slice::<MarkLine>(line) else { continue };
                let Ok(numbers) = mark.lines.parse::<Numbers>() else { continue };
                marks.entry(format!("{destination}/{}", mark.file).into()).or_default().extend(&numbers);
            }
        }
        Ok(marks)
    }

    fn destinations(&self) -> Result<Vec<String>, ArchiveError> {
        let mut destinations: Vec<String> = self.parts()?.into_iter().map(|part| part.destination).collect();
        destinations.dedup();
        Ok(destinations)
    }

    fn marks_path(&self, destination: &str) -> PathBuf {
        self.dir.join(format!("{destination}{MARKS}"))
    }

    /// Opens and locks a file of marks, and ends a torn last line.
    fn open_marks(&self, destination: &str) -> Result<File, ArchiveError> {
        let path = self.marks_path(destination);
        let failed = |error: io::Error| {
            ArchiveError::Refused(format!("{} cannot be written: {error}", path.display()))
        };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ArchiveError::Refused(format!(
                    "another replay is under way: it writes to {}",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let size = file.metadata().map_err(failed)?.len();
        if size > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(size - 1)).map_err(failed)?;
            file.read_exact(&mut last).map_err(failed)?;
            if last != *b"\n" {
                file.write_all(b"\n").map_err(failed)?;
            }
        }
        sync_dir(&self.dir).map_err(failed)?;
        Ok(file)
    }

    fn prepare_all(&self) -> Result<(), ArchiveError> {
        let mut open = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        for destination in self.destinations()? {
            if let Entry::Vacant(vacant) = open.entry(destination) {
                let file = self.open_marks(vacant.key())?;
                vacant.insert(file);
            }
        }
        Ok(())
    }

    fn write_marks(&self, marks: &[Mark]) -> Result<(), ArchiveError> {
        let mut open = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        for mark in marks {
            let Some((destination, identity)) = mark.log.rsplit_once('/') else { continue };
            let file = match open.entry(destination.to_owned()) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(vacant) => vacant.insert(self.open_marks(destination)?),
            };
            let line = MarkLine { file: identity.to_owned(), lines: mark.numbers.to_string() };
            let mut text = serde_json::to_vec(&line).unwrap_or_default();
            text.push(b'\n');
            file.write_all(&text).and_then(|()| file.sync_data()).map_err(|error| {
                let path = self.marks_path(destination);
                ArchiveError::Refused(format!("{} cannot be written: {error}", path.display()))
            })?;
        }
        Ok(())
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ArchiveError {
    ArchiveError::Refused(format!("{} cannot be read: {error}", path.display()))
}

/// The files of an archive are on disks that may be slow.
fn blocking<T: Send>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        tokio::runtime::RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[async_trait]
impl Archive for FileArchive {
    async fn marks(&self) -> Result<Marks, ArchiveError> {
        blocking(|| self.read_marks())
    }

    async fn read(&self, _since_ms: Option<i64>) -> Result<Reading, ArchiveError> {
        let parts = blocking(|| self.parts())?;
        let (send, reading) = mpsc::channel(READ_AHEAD);
        let again = Self::new(&self.dir, self.names.clone(), self.label);
        tokio::task::spawn_blocking(move || {
            for part in parts {
                match again.lines(part, |kept| send.blocking_send(Ok(kept)).is_ok()) {
                    Ok(true) => {}
                    // Nobody listens any more.
                    Ok(false) => return,
                    Err(error) => return drop(send.blocking_send(Err(error))),
                }
            }
        });
        Ok(reading)
    }

    fn knows(&self, id: &str) -> bool {
        parse(id).is_some_and(|(file, _)| match self.label {
            Some(label) => file == label,
            None => name::split_rotated(&format!("{file}{}", name::SUFFIX)).is_some(),
        })
    }

    async fn find(&self, id: &str) -> Result<Option<Kept>, ArchiveError> {
        let Some((_, line)) = parse(id) else { return Ok(None) };
        blocking(|| {
            let mut found = None;
            for part in self.parts()?.into_iter().filter(|part| self.id(part, line) == id) {
                self.lines(part, |kept| {
                    let is_it = kept.place.number == line;
                    found = is_it.then_some(kept);
                    !is_it
                })?;
            }
            Ok(found)
        })
    }

    async fn prepare(&self) -> Result<(), ArchiveError> {
        blocking(|| self.prepare_all())
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), ArchiveError> {
        blocking(|| self.write_marks(marks))
    }
}

/// File and line of an id.
fn parse(id: &str) -> Option<(&str, u64)> {
    let (file, line) = id.rsplit_once(':')?;
    Some((file, line.parse().ok().filter(|line| *line > 0)?))
}
