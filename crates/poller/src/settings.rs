//! What one source is told: values that somebody (the bridge's configuration) has already checked.
//!
//! Past this module nothing is optional or stringly: a [`SourceSettings`] describes a source that can be run. The two
//! rules that a type cannot carry are checked once, by [`SourceSettings::check`], when a poller is made.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::ServerCertVerifier;
use url::Url;

use crate::error::BuildError;
use crate::secret::Secret;

/// Which generation of the vendor's streaming API a source speaks. The two are never mixed for events and sessions
/// (vendor document, section "Migration"); subscriptions exist under the v2 paths only and are used by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiVersion {
    /// With acknowledgement: an event stays at the vendor until it is acknowledged.
    V3,
    /// Deprecated, without acknowledgement: what a GET returned is gone from the vendor.
    V2,
}

impl ApiVersion {
    /// The path segment of this version.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V3 => "v3",
            Self::V2 => "v2",
        }
    }
}

/// One vendor organisation, its credential, and how it is polled.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// The source's identity: it stands in every log line of the poller.
    pub name: String,
    /// Base address of the API, e.g. `https://acme.via.aspect-cloud.net`.
    pub api_url: Url,
    /// `{orgId}` of the API's paths.
    pub org_id: String,
    /// The API's generation.
    pub api: ApiVersion,
    /// `maxEvents` of a GET, 1 to 200 (vendor document, "Retrieve Events").
    pub max_events: u16,
    /// Most events that are held (handed out or awaiting their acknowledgement) at any moment.
    pub max_in_flight: usize,
    /// OAuth2 client credentials and the API key.
    pub auth: AuthSettings,
    /// Whose certificates are trusted, of the API and of the token endpoint.
    pub tls: TlsSettings,
    /// The streaming session.
    pub session: SessionSettings,
    /// Declared subscriptions; every session gets them before its first GET.
    pub subscriptions: Vec<Subscription>,
    /// Whether a session's subscriptions that are not declared are deleted.
    pub prune: bool,
    /// Backoff of calls that failed.
    pub retry: RetrySettings,
}

/// OAuth2 client credentials (vendor document, "Authentication"; RFC 6749, section 4.4).
#[derive(Debug, Clone)]
pub struct AuthSettings {
    /// The token endpoint.
    pub token_url: Url,
    /// OAuth2 `client_id`.
    pub client_id: Secret,
    /// OAuth2 `client_secret`.
    pub client_secret: Secret,
    /// Value of the `x-api-key` header of every API call (not of the token call).
    pub api_key: Secret,
    /// OAuth2 `scope`, `streamingapi` at the vendor.
    pub scope: String,
    /// The identity provider's realm, where it needs one.
    pub realm: Option<String>,
    /// Where the realm is put.
    pub realm_in: RealmIn,
    /// How the client authenticates at the token endpoint.
    pub client_auth: ClientAuth,
}

/// Where the token request carries its `realm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RealmIn {
    /// In the form body.
    #[default]
    Form,
    /// In the query of the token URL.
    Query,
}

/// How the client authenticates at the token endpoint (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// `Authorization: Basic`, identifier and secret form-encoded as the RFC asks.
    #[default]
    Basic,
    /// `client_id` and `client_secret` in the form body.
    Post,
}

/// The streaming session of a source.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// Asked `inactivityDelay`: without a GET for this long the vendor drops the session (60 to 600 s). The vendor may
    /// grant another; the smaller of the two counts.
    pub inactivity_delay: Duration,
    /// Whether the saved session is used again after a restart.
    pub resume: bool,
    /// What becomes of the session when the poller is stopped.
    pub on_shutdown: OnShutdown,
    /// How long the vendor holds a GET; the client waits this and 10 s more.
    pub poll_timeout: Duration,
    /// Extra session properties, sent with v2 sessions only.
    pub properties: BTreeMap<String, String>,
    /// Event types whose acknowledgement ends the session and the source.
    pub end_events: Vec<String>,
}

/// What becomes of the session when the poller is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnShutdown {
    /// It stays, saved, for the next start.
    #[default]
    Keep,
    /// It is deleted at the vendor.
    Delete,
}

/// A declared subscription (vendor document, "Subscription"); matched with the session's by its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The name it is recognised by.
    pub description: String,
    /// `engagementCenterThirdParty` or `changeNotification`.
    pub catalog_type: String,
    /// Event names of the catalog, or `all`.
    pub events: Vec<String>,
    /// `users`, `teams` or `*`.
    pub resource_type: String,
    /// Resource ids; empty means every one.
    pub resource_ids: Vec<String>,
}

/// Exponential backoff with full jitter: the n-th wait is uniform between zero and `min(max, initial * 2^n)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySettings {
    /// Upper end of the first wait.
    pub initial: Duration,
    /// Upper end of every wait.
    pub max: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { initial: Duration::from_millis(200), max: Duration::from_secs(30) }
    }
}

/// Whose certificates are trusted.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// PEM file of authorities that are trusted beside the system's. Read when a client is made.
    pub ca_file: Option<PathBuf>,
    /// Judges certificates in place of those authorities, if there is one.
    pub verifier: Option<Arc<dyn ServerCertVerifier>>,
}

impl SourceSettings {
    /// Checks what the types do not carry: `max_events` within 1 to 200, a positive `max_in_flight`, an address that
    /// paths can be put behind.
    ///
    /// # Errors
    /// The first of those rules that does not hold.
    pub fn check(&self) -> Result<(), BuildError> {
        if !(1..=200).contains(&self.max_events) {
            return Err(BuildError::Settings(format!(
                "max_events is {}, it must be 1 to 200",
                self.max_events
            )));
        }
        if self.max_in_flight == 0 {
            return Err(BuildError::Settings("max_in_flight is 0, nothing could ever be polled".to_owned()));
        }
        if self.api_url.cannot_be_a_base() {
            return Err(BuildError::Settings(format!("api_url {} is not an http(s) address", self.api_url)));
        }
        Ok(())
    }
}
