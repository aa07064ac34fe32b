//! What the state machine has to tell becomes log lines, counters, and changes of the ledger and the saved session.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::{debug, info, warn};

use crate::client::GrantedSession;
use crate::ledger::Ledger;
use crate::observe::{Observation, Observer};
use crate::session::Notice;
use crate::settings::{ApiVersion, SourceSettings};
use crate::store::{SavedSession, SessionStore};

pub(crate) struct Teller {
    source: Arc<str>,
    api: ApiVersion,
    pub(crate) observer: Arc<dyn Observer>,
    store: Box<dyn SessionStore>,
    session: Option<SavedSession>,
    /// Why the session could not be saved.
    pub(crate) store_trouble: Option<String>,
}

impl Teller {
    /// With the session to resume, if there is one.
    pub(crate) fn new(
        settings: &SourceSettings,
        observer: Arc<dyn Observer>,
        mut store: Box<dyn SessionStore>,
    ) -> std::io::Result<Self> {
        let saved = if settings.session.resume { store.load()? } else { None };
        let session = saved.filter(|saved| saved.api == settings.api);
        let source: Arc<str> = settings.name.as_str().into();
        if let Some(session) = &session {
            info!(%source, session = session.session_id.short(), "resuming the saved session");
        }
        Ok(Self { source, api: settings.api, observer, store, session, store_trouble: None })
    }

    pub(crate) fn session(&self) -> Option<&SavedSession> {
        self.session.as_ref()
    }

    /// A session was granted; [`Notice::SessionCreated`] follows if it is taken.
    pub(crate) fn granted(&mut self, granted: &GrantedSession) {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.session = Some(SavedSession {
            session_id: granted.id.clone(),
            inactivity_delay_s: granted.inactivity_delay.as_secs(),
            created_at_ms: created.as_millis() as u64,
            api: self.api,
        });
        if self.api == ApiVersion::V3 && !granted.acknowledges {
            warn!(
                source = %self.source,
                "the vendor granted a session without acknowledgement: an event that is not published is lost"
            );
        }
    }

    pub(crate) fn token_refreshed(&self, lifetime: Duration) {
        info!(source = %self.source, lifetime_s = lifetime.as_secs(), "token refreshed");
        self.observer.observe(Observation::TokenRefreshed);
    }

    pub(crate) fn tell(&mut self, notice: Notice, ledger: &mut Ledger) {
        let source = self.source.clone();
        match notice {
            Notice::SessionCreated { cause } => {
                ledger.begin_session();
                let session =
                    self.session.as_ref().map(|session| session.session_id.short()).unwrap_or_default();
                info!(%source, session, cause = cause.as_str(), "session created");
                self.observer.observe(Observation::SessionCreated { cause });
                self.save();
            }
            Notice::SessionResumed => {
                info!(%source, "session resumed");
                self.observer.observe(Observation::SessionResumed);
            }
            Notice::SessionLost { session, cause } => {
                ledger.end_session();
                warn!(%source, session = session.short(), cause = cause.as_str(), "session lost; a new one will be created");
                self.observer.observe(Observation::SessionLost { cause });
                self.forget();
            }
            Notice::SessionDeleted => {
                ledger.end_session();
                info!(%source, "session deleted");
                self.observer.observe(Observation::SessionDeleted);
                self.forget();
            }
            Notice::SubscriptionsApplied { created, updated, deleted } => {
                info!(%source, created, updated, deleted, "subscriptions applied");
                self.observer.observe(Observation::SubscriptionsApplied { created, updated, deleted });
            }
            Notice::SubscriptionRefused { detail } => {
                warn!(%source, subscription = detail, "subscription refused; events flow without it, it is tried again later");
            }
            Notice::BackingOff { streak, wait, detail } => {
                let wait_ms = wait.as_millis() as u64;
                // The first failures, then ever fewer of them.
                if streak.is_power_of_two() {
                    warn!(%source, reason = detail, failures = streak, wait_ms, "backing off");
                } else {
                    debug!(%source, reason = detail, failures = streak, wait_ms, "backing off");
                }
            }
            Notice::Recovered { streak } => info!(%source, failures = streak, "polling again"),
            Notice::Serial => {
                debug!(%source, "the vendor repeats what is not acknowledged: polling serially");
            }
            Notice::Overlap => debug!(%source, "the vendor gives fresh events meanwhile: polling ahead"),
        }
    }

    /// One more try before the end, where the session could not be saved.
    pub(crate) fn finish(&mut self) {
        if self.store_trouble.is_some() {
            self.save();
        }
    }

    fn save(&mut self) {
        let Some(session) = &self.session else { return };
        let saved = self.store.save(session);
        self.stored(saved, "the session could not be saved, a restart will create a new one");
    }

    fn forget(&mut self) {
        self.session = None;
        let cleared = self.store.clear();
        self.stored(cleared, "the dead session could not be forgotten, a restart will try it once");
    }

    fn stored(&mut self, result: std::io::Result<()>, what: &str) {
        self.store_trouble = result.err().map(|error| format!("{what}: {error}"));
        if let Some(trouble) = &self.store_trouble {
            warn!(source = %self.source, reason = trouble, "state not saved");
        }
    }
}
