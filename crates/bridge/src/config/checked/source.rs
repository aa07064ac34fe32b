//! A source after every check.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::config::secret::SecretRef;

/// `[source.<name>]`: one vendor organisation and credential.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The table's name: the identity of the source in state, checkpoints and metrics.
    pub(crate) name: String,
    /// Scheme and host of the vendor's API, without the `/via/…` path; never with credentials in it.
    pub(crate) api_url: Url,
    /// `orgId` of the vendor's paths.
    pub(crate) org_id: String,
    /// Which of the vendor's two session APIs; they cannot be mixed.
    pub(crate) api: Api,
    /// `maxEvents` of a GET, 1..=200.
    pub(crate) max_events: u16,
    /// The most events held in memory for this source; at least `max_events` + [`KEEP_ALIVE_SLOTS`].
    pub(crate) max_in_flight: usize,
    /// The CloudEvents `source` of this source's events.
    pub(crate) source_uri: String,
    /// `[source.<name>.auth]`
    pub(crate) auth: Auth,
    /// Whose certificates are trusted.
    pub(crate) tls: VendorTls,
    /// `[source.<name>.session]`
    pub(crate) session: Session,
    /// `[[source.<name>.subscription]]`; their descriptions are unique.
    pub(crate) subscriptions: Vec<Subscription>,
    /// Whether subscriptions that are not declared are deleted from the session.
    pub(crate) prune: bool,
    /// What becomes of events that are not as the vendor documents them.
    pub(crate) validate: Validate,
    /// `[source.<name>.retry]`
    pub(crate) retry: Backoff,
}

/// Slots of `max_in_flight` that stay free for the polls which keep a session alive while a sink is away.
pub(crate) const KEEP_ALIVE_SLOTS: usize = 64;

/// Version of the vendor's session, events and acknowledge paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Api {
    /// No acknowledgement: responses go through a local spool.
    V2,
    /// With acknowledgement.
    V3,
}

/// What becomes of an event whose payload is not as the vendor's document has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Validate {
    /// Nobody looks.
    Off,
    /// It is counted and published.
    Report,
    /// It is counted, and becomes a dead letter if its JSON Schema refuses it.
    DeadLetter,
}

/// Whose certificates are trusted, of the vendor's API and its token endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VendorTls {
    /// PEM file of authorities beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Everybody's, whoever they are.
    pub(crate) accept_invalid_certificates: bool,
}

/// OAuth2 client credentials of a source.
#[derive(Debug, Clone)]
pub(crate) struct Auth {
    /// The token endpoint; never with credentials in it.
    pub(crate) token_url: Url,
    /// `client_id`
    pub(crate) client_id: SecretRef,
    /// `client_secret`
    pub(crate) client_secret: SecretRef,
    /// The vendor's `x-api-key` header.
    pub(crate) api_key: SecretRef,
    /// `scope`
    pub(crate) scope: String,
    /// `realm`; `None`: not sent.
    pub(crate) realm: Option<String>,
    /// Where the realm goes.
    pub(crate) realm_in: RealmIn,
    /// Where the client's id and secret go.
    pub(crate) client_auth: ClientAuth,
}

/// Where the realm of a token request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RealmIn {
    /// A field of the form body.
    Form,
    /// A query parameter of the token URL.
    Query,
}

/// How a token request proves the client (RFC 6749, section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientAuth {
    /// HTTP Basic.
    Basic,
    /// Fields of the form body.
    Post,
}

/// `[source.<name>.session]`
#[derive(Debug, Clone)]
pub(crate) struct Session {
    /// How long the vendor keeps a session without a GET of its events; 60 s..=600 s.
    pub(crate) inactivity_delay: Duration,
    /// Whether a start tries the saved session id first.
    pub(crate) resume: bool,
    /// What a clean shutdown does with the session.
    pub(crate) on_shutdown: OnShutdown,
    /// How long the vendor holds a GET open; less than `inactivity_delay`.
    pub(crate) poll_timeout: Duration,
    /// Further properties of a v2 session, by `propertyName`; empty for v3.
    pub(crate) properties: BTreeMap<String, String>,
    /// Event types after whose acknowledgement the session is deleted, and the source done.
    pub(crate) end_events: Vec<String>,
}

/// What a clean shutdown does with the streaming session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnShutdown {
    /// Leaves it for the next start to resume.
    Keep,
    /// Deletes it.
    Delete,
}

/// One declared subscription (vendor document, "Subscription").
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// By which a declared subscription and the vendor's are matched.
    pub(crate) description: String,
    /// The catalogue its events come from.
    pub(crate) catalog_type: CatalogType,
    /// `catalogTypeEvents`; `["all"]` is everything. Never empty.
    pub(crate) events: Vec<String>,
    /// The class of resources to filter on.
    pub(crate) resource_type: ResourceType,
    /// `resourceIds`; empty is all of them.
    pub(crate) resource_ids: Vec<String>,
}

/// `catalogType` of the vendor's filter criteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) enum CatalogType {
    /// `changeNotification`
    ChangeNotification,
    /// `engagementCenterThirdParty`
    EngagementCenterThirdParty,
}

impl CatalogType {
    /// The vendor's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::ChangeNotification => "changeNotification",
            Self::EngagementCenterThirdParty => "engagementCenterThirdParty",
        }
    }
}

/// `resourceType` of the vendor's filter criteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ResourceType {
    /// `users`
    Users,
    /// `teams`; only with [`CatalogType::ChangeNotification`].
    Teams,
    /// `*`
    #[serde(rename = "*")]
    Any,
}

impl ResourceType {
    /// The vendor's word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Teams => "teams",
            Self::Any => "*",
        }
    }
}

/// Full-jitter exponential backoff of the vendor calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// The upper bound of the first wait.
    pub(crate) initial: Duration,
    /// The upper bound of every wait; at least `initial`.
    pub(crate) max: Duration,
}
