//! The resumable session: a small value that is kept between runs.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::settings::ApiVersion;

/// The vendor's identifier of a streaming session (`via-client-sessionid`).
///
/// Together with a token it gives access to the event stream, so logs show only [`SessionId::short`].
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// The identifier as the vendor gave it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first eight characters: enough to tell sessions apart in a log.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.char_indices().nth(8).map_or(&*self.0, |(end, _)| &self.0[..end])
    }
}

impl From<&str> for SessionId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.short())
    }
}

/// A session that a later run may go on with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSession {
    /// The vendor's identifier.
    pub session_id: SessionId,
    /// The `inactivityDelay` that the vendor granted, in seconds.
    pub inactivity_delay_s: u64,
    /// When it was created, in milliseconds of Unix time by this machine's clock.
    pub created_at_ms: u64,
    /// The API it was created with; a session of one version is never used with the other.
    pub api: ApiVersion,
}

impl SavedSession {
    /// The granted inactivity delay.
    #[must_use]
    pub fn inactivity_delay(&self) -> Duration {
        Duration::from_secs(self.inactivity_delay_s)
    }

    /// When the session was created.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.created_at_ms)
    }
}

/// Where the session is kept between runs. The calls are rare (a session begins or ends) and may block shortly.
pub trait SessionStore: Send {
    /// The session of the last run, if one is known. Something unreadable should be set aside and be `None`.
    ///
    /// # Errors
    /// The store cannot be used at all; the poller then does not start.
    fn load(&mut self) -> io::Result<Option<SavedSession>>;
    /// Keeps `session` in place of any other.
    ///
    /// # Errors
    /// It could not be kept; the poller logs it and goes on, only resuming is lost.
    fn save(&mut self, session: &SavedSession) -> io::Result<()>;
    /// Forgets the session; it is dead.
    ///
    /// # Errors
    /// It could not be forgotten; the poller logs it and goes on.
    fn clear(&mut self) -> io::Result<()>;
}

/// A store that lives as long as the process: for tests and for programs that need no resume.
#[derive(Debug, Default)]
pub struct MemoryStore(Option<SavedSession>);

impl SessionStore for MemoryStore {
    fn load(&mut self) -> io::Result<Option<SavedSession>> {
        Ok(self.0.clone())
    }

    fn save(&mut self, session: &SavedSession) -> io::Result<()> {
        self.0 = Some(session.clone());
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.0 = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_is_shortened_at_a_character_boundary() {
        assert_eq!(SessionId::from("ab7dbcbc-c041").short(), "ab7dbcbc");
        assert_eq!(SessionId::from("äöüäöüäöüä").short(), "äöüäöüäö");
        assert_eq!(SessionId::from("s").short(), "s");
        assert!(!format!("{:?}", SessionId::from("ab7dbcbc-c041")).contains("c041"));
    }

    #[test]
    fn a_saved_session_survives_json() {
        let saved = SavedSession {
            session_id: "s-1".into(),
            inactivity_delay_s: 120,
            created_at_ms: 1_517_321_060_539,
            api: ApiVersion::V3,
        };
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<SavedSession>(&text).unwrap(), saved);
    }
}
