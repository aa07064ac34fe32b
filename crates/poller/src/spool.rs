//! The v2 spool: every response is on disk before anything of it is handed out.
//!
//! v2 has no acknowledgement: what a GET returned is gone from the vendor. So a response goes into a [redb] file with a
//! committed (fsync'd) transaction first, and leaves it when every entry of it is durable elsewhere. After a crash the
//! spool is replayed before anything is polled, oldest response first. The one loss that nobody can prevent is a crash
//! between the arrival of a response and its commit.
//!
//! A file that is damaged is never trusted: it is renamed to `<name>.corrupt-<unix seconds>` and a new one begun.

use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use tracing::error;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::Entry;
use crate::parse::{Completeness, parse};
use crate::settings::ApiVersion;
use crate::store::SessionId;

/// Sequence number → session, entries, whole or torn, hash of the body, body.
const RESPONSES: TableDefinition<'_, u64, (&str, u32, bool, u64, &[u8])> = TableDefinition::new("responses");

/// What is wrong with a spool file.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process (or poller) has it open.
    #[error("the spool {0} is in use by another process")]
    InUse(PathBuf),
    /// It cannot be opened, read or written.
    #[error("the spool {path} cannot be used: {reason}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the system or the database says.
        reason: String,
    },
}

/// A response as it was spooled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spooled {
    pub(crate) session: SessionId,
    pub(crate) torn: bool,
    pub(crate) body: Vec<u8>,
}

impl Spooled {
    /// The entries of the response.
    pub(crate) fn entries(self, api: ApiVersion) -> Option<Vec<Entry>> {
        let completeness = if self.torn { Completeness::Cut } else { Completeness::Whole };
        parse(self.body, api, Instant::now(), completeness).ok()
    }
}

/// A response that waits in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) number: u64,
    /// Entries in it.
    pub(crate) entries: usize,
}

/// The responses of one v2 source that are not yet durable elsewhere.
#[derive(Debug)]
pub struct Spool {
    inner: Arc<Inner>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    database: Database,
    next: Mutex<u64>,
}

impl Spool {
    /// Opens the spool file at `path`, or begins one; reads it once to see that it can be trusted. Blocks.
    ///
    /// # Errors
    /// It is in use, or the disk cannot be read or written. Damage is no error: the file is set aside.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        match Self::try_open(path) {
            Ok(spool) => Ok(spool),
            Err(Trouble::Other(error)) => Err(error),
            Err(Trouble::Damaged(reason)) => {
                let aside = set_aside(path).map_err(|error| unusable(path, error))?;
                error!(
                    file = %path.display(), aside = %aside.display(), reason,
                    "the spool is damaged; it is set aside and a new one is begun, events in it may not be published"
                );
                Self::try_open(path).map_err(|trouble| match trouble {
                    Trouble::Other(error) => error,
                    Trouble::Damaged(reason) => unusable(path, reason),
                })
            }
        }
    }

    fn try_open(path: &Path) -> Result<Self, Trouble> {
        let opened = guarded(|| Database::create(path))?;
        let database = opened.map_err(|error| Trouble::of_opening(path, error))?;
        let waiting = guarded(|| check(&database))?.map_err(|error| Trouble::of(path, error))?;
        let next = waiting.last().map_or(1, |last| last.number + 1);
        let inner = Arc::new(Inner { path: path.to_owned(), database, next: Mutex::new(next) });
        Ok(Self { inner, waiting })
    }

    /// The entries that wait, oldest first, for people and tests who want to look. Blocks.
    #[must_use]
    pub fn entries(&self, api: ApiVersion) -> Vec<Entry> {
        let responses = self.waiting.iter().filter_map(|waiting| self.inner.read(waiting.number).ok()?);
        responses.filter_map(|spooled| spooled.entries(api)).flatten().collect()
    }

    /// The responses that an earlier run left, oldest first.
    pub(crate) fn waiting(&self) -> &[Waiting] {
        &self.waiting
    }

    /// Commits a response; it is on disk when this returns.
    pub(crate) async fn append(
        &self,
        session: SessionId,
        entries: usize,
        torn: bool,
        body: Arc<Vec<u8>>,
    ) -> Result<Waiting, SpoolError> {
        let inner = self.inner.clone();
        blocking(move || {
            let mut next = inner.next.lock().unwrap_or_else(PoisonError::into_inner);
            let number = *next;
            let value = (session.as_str(), entries as u32, torn, xxh3_64(&body), body.as_slice());
            inner.write(|table| table.insert(number, value).map(|_| ()))?;
            *next += 1;
            Ok(Waiting { number, entries })
        })
        .await
    }

    /// Reads a response; `None` where its content is not what was written.
    pub(crate) async fn read(&self, number: u64) -> Result<Option<Spooled>, SpoolError> {
        let inner = self.inner.clone();
        blocking(move || inner.read(number)).await
    }

    /// Lets go of responses.
    pub(crate) async fn remove(&self, numbers: Vec<u64>) -> Result<(), SpoolError> {
        let inner = self.inner.clone();
        blocking(move || {
            inner.write(|table| {
                for number in &numbers {
                    table.remove(number)?;
                }
                Ok(())
            })
        })
        .await
    }
}

type Responses<'txn> = redb::Table<'txn, u64, (&'static str, u32, bool, u64, &'static [u8])>;

impl Inner {
    fn write(
        &self,
        change: impl FnOnce(&mut Responses<'_>) -> Result<(), StorageError>,
    ) -> Result<(), SpoolError> {
        let written = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(RESPONSES)?;
                change(&mut table)?;
            }
            transaction.commit()?;
            Ok(())
        };
        written().map_err(|error| unusable(&self.path, error))
    }

    fn read(&self, number: u64) -> Result<Option<Spooled>, SpoolError> {
        let found = || -> Result<Option<Spooled>, redb::Error> {
            let table = self.database.begin_read()?.open_table(RESPONSES)?;
            let Some(value) = table.get(number)? else { return Ok(None) };
            let (session, _, torn, hash, body) = value.value();
            let whole = xxh3_64(body) == hash;
            Ok(whole.then(|| Spooled { session: session.into(), torn, body: body.to_vec() }))
        };
        found().map_err(|error| unusable(&self.path, error))
    }
}

/// Reads every response once.
fn check(database: &Database) -> Result<Vec<Waiting>, redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(RESPONSES)?;
    transaction.commit()?;
    let table = database.begin_read()?.open_table(RESPONSES)?;
    let mut waiting = Vec::new();
    for response in table.iter()? {
        let (number, value) = response?;
        let (_, entries, _, hash, body) = value.value();
        if xxh3_64(body) != hash {
            return Err(redb::Error::Corrupted("a response is not what was written".to_owned()));
        }
        waiting.push(Waiting { number: number.value(), entries: entries as usize });
    }
    Ok(waiting)
}

enum Trouble {
    Damaged(String),
    Other(SpoolError),
}

impl Trouble {
    fn of_opening(path: &Path, error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
                Self::Other(SpoolError::InUse(path.to_owned()))
            }
            DatabaseError::RepairAborted => Self::Damaged("it cannot be repaired".to_owned()),
            error => Self::of(path, error.into()),
        }
    }

    fn of(path: &Path, error: redb::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, UnexpectedEof};
        match error {
            redb::Error::Corrupted(reason) => Self::Damaged(reason),
            redb::Error::Io(error) if matches!(error.kind(), InvalidData | UnexpectedEof) => {
                Self::Damaged(error.to_string())
            }
            error @ (redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }) => Self::Damaged(error.to_string()),
            error => Self::Other(unusable(path, error)),
        }
    }
}

/// Damage that the database only notices by a panic is damage all the same.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Trouble> {
    panic::catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| Trouble::Damaged("reading it broke the database".to_owned()))
}

fn unusable(path: &Path, error: impl ToString) -> SpoolError {
    SpoolError::Unusable { path: path.to_owned(), reason: error.to_string() }
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".corrupt-{seconds}"));
    let aside = PathBuf::from(name);
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(broken) => Err(unusable(Path::new("task"), broken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn filled(path: &Path, count: usize) {
        let spool = Spool::open(path).unwrap();
        for n in 0..count {
            let body = Arc::new(format!("body {n}").repeat(200).into_bytes());
            spool.append("s".into(), n, n == 1, body).await.unwrap();
        }
    }

    #[tokio::test]
    async fn responses_survive_and_leave_in_any_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool.redb");
        filled(&path, 3).await;
        let spool = Spool::open(&path).unwrap();
        assert_eq!(
            spool.waiting().iter().map(|w| (w.number, w.entries)).collect::<Vec<_>>(),
            [(1, 0), (2, 1), (3, 2)]
        );
        let second = spool.read(2).await.unwrap().unwrap();
        assert_eq!(
            (second.session, second.torn, second.body),
            ("s".into(), true, "body 1".repeat(200).into_bytes())
        );
        spool.remove(vec![2, 1]).await.unwrap();
        assert_eq!(spool.read(1).await.unwrap(), None);
        assert!(matches!(Spool::open(&path), Err(SpoolError::InUse(_))));
        drop(spool);
        let spool = Spool::open(&path).unwrap();
        assert_eq!(spool.waiting().len(), 1);
        assert_eq!(spool.append("s".into(), 7, false, Arc::default()).await.unwrap().number, 4);
    }

    #[tokio::test]
    async fn a_damaged_file_is_set_aside_and_never_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let intact = dir.path().join("intact.redb");
        filled(&intact, 20).await;
        let bytes = std::fs::read(&intact).unwrap();
        let mut damaged: Vec<Vec<u8>> =
            vec![b"garbage".to_vec(), vec![0xff; 100_000], bytes[..bytes.len() / 2].to_vec()];
        for at in (0..bytes.len()).step_by(bytes.len() / 40) {
            let mut flipped = bytes.clone();
            for byte in &mut flipped[at..(at + 64).min(bytes.len())] {
                *byte ^= 0x5a;
            }
            damaged.push(flipped);
        }
        let mut set_aside = 0;
        for (n, content) in damaged.into_iter().enumerate() {
            let path = dir.path().join(format!("{n}.redb"));
            std::fs::write(&path, content).unwrap();
            let spool = Spool::open(&path).unwrap();
            let aside = std::fs::read_dir(dir.path()).unwrap().any(|file| {
                file.unwrap().file_name().to_string_lossy().starts_with(&format!("{n}.redb.corrupt-"))
            });
            set_aside += usize::from(aside);
            assert_eq!(spool.waiting().is_empty(), aside, "set aside, or as it was written");
            for waiting in spool.waiting() {
                let expected = format!("body {}", waiting.number - 1).repeat(200).into_bytes();
                assert_eq!(spool.read(waiting.number).await.unwrap().unwrap().body, expected);
            }
            spool.append("s".into(), 1, false, Arc::new(b"x".to_vec())).await.unwrap();
        }
        assert!(set_aside >= 4, "{set_aside}");
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Spool::open(&dir.path().join("no/spool.redb")), Err(SpoolError::Unusable { .. })));
    }
}
