//! The state directory: session ids for resuming, the v2 spools, the local dead letters. One process at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fs4::FileExt;
use tracing::warn;
use viaduct_poller::{SavedSession, SessionStore};

use crate::exit::{Exit, Failure};

/// An owned state directory. The lock goes with this value, and with the process.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Creates the directory where it is missing, locks it, and makes sure that it can be written.
    ///
    /// # Errors
    /// 75 where another process holds it, 73 where it cannot be created or written.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unusable = |error: io::Error| {
            Failure::new(
                Exit::CantCreate,
                format!("the state directory {} cannot be used: {error}", path.display()),
                "make it writable for this user, or set state.dir to another directory",
            )
        };
        for directory in
            [path.to_owned(), path.join("sessions"), path.join("spool"), path.join("dead-letters")]
        {
            create_private_dir(&directory).map_err(unusable)?;
        }
        let lock_path = path.join("lock");
        let mut lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(lock_path).map_err(unusable)?;
        match FileExt::try_lock(&lock) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => {
                return Err(Failure::new(
                    Exit::TempFail,
                    format!("another process uses the state directory {}", path.display()),
                    "stop the other viaduct, or give this one a state.dir of its own",
                ));
            }
            Err(fs4::TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // A full disk takes the lock and nothing else: find out now, not at the first session.
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(unusable)?;
        lock.sync_all().map_err(unusable)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where the session of a source is kept.
    pub(crate) fn session_store(&self, source: &str, api_url: &str, org: &str) -> FileSessionStore {
        FileSessionStore::new(&self.path, source, api_url, org)
    }

    /// Where the responses of a v2 source are kept until they are published.
    pub(crate) fn spool(&self, source: &str) -> PathBuf {
        self.path.join("spool").join(format!("{source}.redb"))
    }

    /// The directory of the local dead-letter files.
    pub(crate) fn dead_letters(&self) -> PathBuf {
        self.path.join("dead-letters")
    }
}

/// The saved session of a source, read without owning the directory; what cannot be understood counts as none.
///
/// # Errors
/// The file exists and cannot be read.
pub(crate) fn saved_session(
    state_dir: &Path,
    source: &str,
    api_url: &str,
    org: &str,
) -> io::Result<Option<SavedSession>> {
    let store = FileSessionStore::new(state_dir, source, api_url, org);
    let text = match fs::read_to_string(&store.path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(serde_json::from_str(&text).ok().and_then(|saved| store.ours(saved)))
}

/// Keeps the session of one source in a file.
#[derive(Debug)]
pub(crate) struct FileSessionStore {
    path: PathBuf,
    api_url: String,
    org: String,
}

/// A session as it is written down: it belongs to an organisation at an address.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct OwnedSession {
    api_url: String,
    org: String,
    session: SavedSession,
}

impl FileSessionStore {
    fn new(state_dir: &Path, source: &str, api_url: &str, org: &str) -> Self {
        Self {
            path: state_dir.join("sessions").join(format!("{source}.json")),
            api_url: api_url.to_owned(),
            org: org.to_owned(),
        }
    }

    /// The session with its organisation and address.
    pub(crate) fn owned(&self, session: &SavedSession) -> OwnedSession {
        OwnedSession { api_url: self.api_url.clone(), org: self.org.clone(), session: session.clone() }
    }

    /// The session, where it belongs to the organisation and the address of this source.
    pub(crate) fn ours(&self, saved: OwnedSession) -> Option<SavedSession> {
        (saved.api_url == self.api_url && saved.org == self.org).then_some(saved.session)
    }
}

impl SessionStore for FileSessionStore {
    fn load(&mut self) -> io::Result<Option<SavedSession>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(error),
        };
        match serde_json::from_str::<OwnedSession>(&text) {
            Ok(saved) => Ok(self.ours(saved)),
            Err(error) => {
                let aside = set_aside(&self.path)?;
                warn!(file = %self.path.display(), aside = %aside.display(), %error,
                      "the saved session is not readable; it is set aside and a new session will be created");
                Ok(None)
            }
        }
    }

    fn save(&mut self, session: &SavedSession) -> io::Result<()> {
        let text = serde_json::to_vec(&self.owned(session)).map_err(io::Error::other)?;
        let temporary = self.path.with_extension("json.tmp");
        let mut file = create_private(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        sync_parent(&self.path)
    }

    fn clear(&mut self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Ok(()) => sync_parent(&self.path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Spool and dead letters hold personal data, so nobody else reads what is in a directory that is made here. One that is
/// there already keeps its mode: somebody has chosen it.
fn create_private_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

/// A session id gives access to the event stream, so nobody else reads the file.
fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Renames a file that cannot be trusted, so that a person can look at it.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = path.with_extension(format!("corrupt-{seconds}"));
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_here_is_private_and_what_was_there_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = folder.path().join("deep/state");
        let state = StateDir::open(&made).expect("it can be made");
        assert_eq!([mode(&made), mode(&state.dead_letters()), mode(&made.join("spool"))], [0o700; 3]);

        let chosen = folder.path().join("chosen");
        fs::create_dir(&chosen).expect("made");
        fs::set_permissions(&chosen, fs::Permissions::from_mode(0o750)).expect("changed");
        let _state = StateDir::open(&chosen).expect("it can be used");
        assert_eq!(mode(&chosen), 0o750);
    }
}
