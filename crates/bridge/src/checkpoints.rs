//! One source and the exactly-once sinks it publishes to: who claims it, which session it goes on with, and what may be
//! forgotten.
//!
//! Before a source is polled, every required exactly-once sink has fenced other instances, has read what it holds of the
//! source, and has written this process down as its owner. The session of the owner before comes along, so that another
//! machine with an empty state directory goes on where the first one stopped.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::value::RawValue;
use tracing::{info, warn};
use viaduct_poller::{Identity, SavedSession, SessionStore};
use viaduct_sink::Fatal;

use crate::routing::event_name;
use crate::sinks::SinkHandle;
use crate::state::{FileSessionStore, OwnedSession};

/// How many events a checkpoint remembers at most, for a source that holds this many at a time. A process that dies leaves
/// that many unacknowledged, and a busy vendor delivers new events first: this is room for many deaths in a row.
pub(crate) fn remembered(max_in_flight: usize) -> usize {
    (16 * max_in_flight).max(1 << 17)
}

/// The exactly-once sinks of one source.
#[derive(Debug)]
pub(crate) struct SourceCheckpoints {
    source: Arc<str>,
    org: Arc<str>,
    sinks: Vec<Arc<SinkHandle>>,
    /// The sessions that claims have brought.
    claimed: Mutex<Vec<Box<RawValue>>>,
}

impl SourceCheckpoints {
    /// Those of `sinks` that keep checkpoints.
    pub(crate) fn new(source: &Arc<str>, org: &str, sinks: &[Arc<SinkHandle>]) -> Arc<Self> {
        let keeps = |sink: &&Arc<SinkHandle>| sink.sink.checkpoints().is_some();
        Arc::new(Self {
            source: source.clone(),
            org: org.into(),
            sinks: sinks.iter().filter(keeps).cloned().collect(),
            claimed: Mutex::default(),
        })
    }

    /// Claims the source in every required sink, one after the other, and waits for those that are away. A best-effort sink
    /// is claimed by its first publish.
    ///
    /// # Errors
    /// The sink that can never publish, and why.
    pub(crate) async fn claim(&self) -> Result<(), (Arc<str>, Fatal)> {
        for sink in self.sinks.iter().filter(|sink| sink.required) {
            let Some(checkpoints) = sink.sink.checkpoints() else { continue };
            let claim = checkpoints.claim(&self.source).await.map_err(|fatal| (sink.name.clone(), fatal))?;
            info!(source = %self.source, sink = %sink.name, remembered = claim.remembered,
                  "source claimed; what the sink remembers is not published again");
            lock(&self.claimed).extend(claim.session);
        }
        Ok(())
    }

    /// The event will not be delivered again.
    pub(crate) fn forget(&self, identity: &Identity) {
        if self.sinks.is_empty() {
            return;
        }
        let event = event_name(&self.org, identity.id(), identity.hash());
        for checkpoints in self.sinks.iter().filter_map(|sink| sink.sink.checkpoints()) {
            checkpoints.acknowledged(&self.source, &event);
        }
    }

    fn go_on_with(&self, session: Option<Box<RawValue>>) {
        for checkpoints in self.sinks.iter().filter_map(|sink| sink.sink.checkpoints()) {
            checkpoints.session(&self.source, session.clone());
        }
    }
}

/// Keeps the session of one source in its file and beside its checkpoints.
#[derive(Debug)]
pub(crate) struct KeptSession {
    file: FileSessionStore,
    checkpoints: Arc<SourceCheckpoints>,
}

impl KeptSession {
    /// In `file`, and in the sinks of `checkpoints`.
    pub(crate) fn new(file: FileSessionStore, checkpoints: Arc<SourceCheckpoints>) -> Self {
        Self { file, checkpoints }
    }

    fn tell(&self, session: Option<&SavedSession>) {
        let text = session.map(|session| serde_json::value::to_raw_value(&self.file.owned(session)));
        match text.transpose() {
            Ok(text) => self.checkpoints.go_on_with(text),
            Err(error) => {
                warn!(source = %self.checkpoints.source, %error, "the session cannot be written down")
            }
        }
    }
}

impl SessionStore for KeptSession {
    /// The youngest of those that the file and the claims brought.
    fn load(&mut self) -> io::Result<Option<SavedSession>> {
        let in_file = self.file.load()?;
        let claimed = lock(&self.checkpoints.claimed).clone();
        let claimed = claimed.iter().filter_map(|text| serde_json::from_str::<OwnedSession>(text.get()).ok());
        let youngest = claimed
            .filter_map(|saved| self.file.ours(saved))
            .chain(in_file.clone())
            .max_by_key(|session| session.created_at_ms);
        if let Some(session) = youngest.as_ref().filter(|session| Some(*session) != in_file.as_ref()) {
            info!(source = %self.checkpoints.source, session = session.session_id.short(),
                  "the session comes from a checkpoint");
            if let Err(error) = self.file.save(session) {
                warn!(source = %self.checkpoints.source, %error, "the session could not be saved");
            }
        }
        self.tell(youngest.as_ref());
        Ok(youngest)
    }

    fn save(&mut self, session: &SavedSession) -> io::Result<()> {
        self.tell(Some(session));
        self.file.save(session)
    }

    fn clear(&mut self) -> io::Result<()> {
        self.tell(None);
        self.file.clear()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use viaduct_poller::{ApiVersion, ContentHash};
    use viaduct_sink::{Batch, Checkpoints, Claim, HealthReporter, HealthWatch, Outcome, Sink};

    use super::*;
    use crate::config::RefusedAfter;
    use crate::state::StateDir;

    /// A sink that only remembers what it is told about its checkpoints.
    #[derive(Default)]
    struct Told {
        claimed: Option<String>,
        session: Mutex<Option<String>>,
        forgotten: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Sink for Told {
        async fn publish(&self, _: Batch<'_>) -> Vec<Outcome> {
            Vec::new()
        }

        fn health(&self) -> HealthWatch {
            HealthReporter::new("a test").watch()
        }

        fn checkpoints(&self) -> Option<&dyn Checkpoints> {
            Some(self)
        }

        async fn close(&self) {}
    }

    #[async_trait]
    impl Checkpoints for Told {
        async fn claim(&self, _: &str) -> Result<Claim, Fatal> {
            let session = self.claimed.clone().map(|text| RawValue::from_string(text).unwrap());
            Ok(Claim { session, remembered: 0 })
        }

        fn acknowledged(&self, source: &str, event: &str) {
            lock(&self.forgotten).push(format!("{source}: {event}"));
        }

        fn session(&self, _: &str, session: Option<Box<RawValue>>) {
            *lock(&self.session) = session.map(|session| session.get().to_owned());
        }
    }

    fn saved(id: &str, created_at_ms: u64) -> SavedSession {
        SavedSession { session_id: id.into(), inactivity_delay_s: 120, created_at_ms, api: ApiVersion::V3 }
    }

    struct Place {
        _dir: tempfile::TempDir,
        state: StateDir,
        sink: Arc<Told>,
    }

    impl Place {
        fn new(claimed: Option<&str>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(dir.path()).unwrap();
            Self {
                _dir: dir,
                state,
                sink: Arc::new(Told { claimed: claimed.map(str::to_owned), ..Told::default() }),
            }
        }

        fn file(&self) -> FileSessionStore {
            self.state.session_store("main", "https://acme.example", "acme")
        }

        async fn store(&self) -> KeptSession {
            let handle = SinkHandle::new("lake", true, RefusedAfter::Never, self.sink.clone());
            let checkpoints = SourceCheckpoints::new(&"main".into(), "acme", &[handle]);
            checkpoints.claim().await.unwrap();
            KeptSession::new(self.file(), checkpoints)
        }
    }

    fn claimed(org: &str, session: &SavedSession) -> String {
        let session = serde_json::to_string(session).unwrap();
        format!(r#"{{"api_url":"https://acme.example","org":"{org}","session":{session}}}"#)
    }

    #[tokio::test]
    async fn the_youngest_session_is_resumed_wherever_it_is_known() {
        let place = Place::new(Some(&claimed("acme", &saved("claimed", 200))));
        assert_eq!(place.store().await.load().unwrap(), Some(saved("claimed", 200)), "an empty directory");
        assert_eq!(place.file().load().unwrap(), Some(saved("claimed", 200)), "the file has it now");

        place.file().save(&saved("older", 100)).unwrap();
        assert_eq!(place.store().await.load().unwrap(), Some(saved("claimed", 200)));
        place.file().save(&saved("younger", 300)).unwrap();
        assert_eq!(place.store().await.load().unwrap(), Some(saved("younger", 300)));
        assert_eq!(
            *lock(&place.sink.session),
            Some(claimed("acme", &saved("younger", 300))),
            "the sink learns of it"
        );
    }

    #[tokio::test]
    async fn a_session_of_another_organisation_is_not_ours() {
        for foreign in [&*claimed("other", &saved("foreign", 200)), r#"{"another":"form"}"#] {
            let place = Place::new(Some(foreign));
            assert_eq!(place.store().await.load().unwrap(), None);
        }
    }

    #[tokio::test]
    async fn sinks_learn_of_sessions_and_of_what_is_done() {
        let place = Place::new(None);
        let mut store = place.store().await;
        store.save(&saved("new", 5)).unwrap();
        assert_eq!(*lock(&place.sink.session), Some(claimed("acme", &saved("new", 5))));
        store.clear().unwrap();
        assert_eq!(*lock(&place.sink.session), None);

        let identity = Identity::new("7-0", ContentHash::from_u128(0xabc << 64));
        store.checkpoints.forget(&identity);
        assert_eq!(*lock(&place.sink.forgotten), ["main: acme.7-0.0000000000000abc"]);
    }
}
