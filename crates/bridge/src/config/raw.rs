//! The configuration as it is written: every key there is, none of them checked. Only [`super::checks`] looks inside.
//!
//! The fields' names are the keys; [`super::reader`] takes the list of known keys from here. Their docs are what
//! [`super::json_schema`] and [`super::reference`] tell users, defaults and limits included: a test holds those against
//! what the checks do. Where a default is no literal value, a last paragraph says "Default: …" or "Required.".

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::checked::{
    Api, CatalogType, ClientAuth, LogFormat, MaskAction, OnShutdown, RealmIn, RecordsShown, ResourceType,
    Validate,
};
use super::field::{Field, Named, Property, Secret};
use super::json_schema::{Size, Span};

/// The whole file.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Config {
    /// The deployment as a whole.
    pub(super) bridge: Field<Bridge>,
    /// The vendor organisations, by name: at least one. A source has exactly one streaming session at a time. The
    /// name is its identity in state, checkpoints and metrics.
    pub(super) source: Field<Named<Source>>,
    /// The destination systems, by name: at least one.
    pub(super) sink: Field<Named<Sink>>,
    /// Which events go where: all matching routes apply, the first match wins per sink. With no route at all every
    /// event goes to every sink.
    pub(super) route: Field<Vec<Field<Route>>>,
    /// Where events go that can never be published as routed. Without this table: a file under `state.dir`.
    pub(super) dead_letter: Field<DeadLetter>,
    /// What of an event nobody behind the bridge may see. Without this table nothing is masked.
    pub(super) mask: Field<Mask>,
    /// What is kept between runs.
    pub(super) state: Field<State>,
    /// The port for metrics, health and status. It is read-only, and has no authentication.
    pub(super) admin: Field<Admin>,
    /// What is logged to stderr, and how.
    pub(super) log: Field<Log>,
    /// Spans for OpenTelemetry; none without it.
    pub(super) tracing: Field<Tracing>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Bridge {
    /// Identity of this deployment: two running bridges of one name fence each other. Letters, digits, `_` and `-`.
    #[schemars(extend("default" = "viaduct"))]
    pub(super) name: Field<String>,
    /// How long a shutdown waits for publishes in flight and their acknowledgements.
    #[schemars(with = "Span<1_000, 3_600_000>", extend("default" = "25s"))]
    pub(super) shutdown_timeout: Field<String>,
    /// How many producers share the sources. Fixed for the life of a deployment.
    #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 64))]
    pub(super) shards: Field<i64>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Source {
    /// Scheme and host of the vendor's API, as in `"https://acme.via.aspect-cloud.net"`; the paths are added.
    ///
    /// Required.
    pub(super) api_url: Field<String>,
    /// The organisation in the vendor's paths.
    ///
    /// Required.
    pub(super) org_id: Field<String>,
    /// Version of the vendor's session API; the two cannot be mixed.
    #[schemars(extend("default" = "v3"))]
    pub(super) api: Field<Api>,
    /// `maxEvents` of a GET: the most events per response.
    #[schemars(extend("default" = 200, "minimum" = 1, "maximum" = 200))]
    pub(super) max_events: Field<i64>,
    /// The most events held in memory, which is all that are not yet acknowledged; at least `max_events` + 64. While more than
    /// four sources hold a full response each, they share four times this, but fetch two responses ahead at least.
    #[schemars(extend("default" = 2000, "minimum" = 65, "maximum" = 1_000_000))]
    pub(super) max_in_flight: Field<i64>,
    /// The CloudEvents `source` of its events.
    ///
    /// Default: `via://<org_id>`.
    pub(super) source_uri: Field<String>,
    /// OAuth2 client credentials. Required.
    pub(super) auth: Field<Auth>,
    /// PEM file of certificate authorities that are trusted beside the system's.
    ///
    /// Default: none.
    pub(super) ca_file: Field<String>,
    /// DANGER: whether every certificate is accepted, also one of an attacker between here and there.
    #[schemars(extend("default" = false))]
    pub(super) danger_accept_invalid_certificates: Field<bool>,
    /// The streaming session.
    pub(super) session: Field<Session>,
    /// Subscriptions that every session of this source gets before its first GET.
    pub(super) subscription: Field<Vec<Field<Subscription>>>,
    /// Waits between attempts of calls to the vendor: full jitter, growing; `Retry-After` counts as well.
    pub(super) retry: Field<Retry>,
    /// Whether subscriptions of the session that are not declared here are deleted.
    #[schemars(extend("default" = false))]
    pub(super) prune: Field<bool>,
    /// What becomes of events that are not as the vendor documents them.
    #[schemars(extend("default" = "off"))]
    pub(super) validate: Field<Validate>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Auth {
    /// The token endpoint.
    ///
    /// Required.
    pub(super) token_url: Field<String>,
    /// The client.
    ///
    /// Required.
    pub(super) client_id: Field<Secret>,
    /// The client's secret.
    ///
    /// Required.
    pub(super) client_secret: Field<Secret>,
    /// The vendor's `x-api-key`.
    ///
    /// Required.
    pub(super) api_key: Field<Secret>,
    /// The scope that is asked for.
    #[schemars(extend("default" = "streamingapi"))]
    pub(super) scope: Field<String>,
    /// The realm that is asked for.
    ///
    /// Default: not sent.
    pub(super) realm: Field<String>,
    /// Where the realm is written.
    #[schemars(extend("default" = "form"))]
    pub(super) realm_in: Field<RealmIn>,
    /// Where the client's id and secret are written.
    #[schemars(extend("default" = "basic"))]
    pub(super) client_auth: Field<ClientAuth>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Session {
    /// How long the vendor keeps a session without a GET. What counts is the smaller of asked and granted.
    #[schemars(with = "Span<60_000, 600_000>", extend("default" = "120s"))]
    pub(super) inactivity_delay: Field<String>,
    /// Whether a start tries the saved session first.
    #[schemars(extend("default" = true))]
    pub(super) resume: Field<bool>,
    /// What a clean shutdown does with the session.
    #[schemars(extend("default" = "keep"))]
    pub(super) on_shutdown: Field<OnShutdown>,
    /// How long the vendor holds a GET open; the client waits 10 s longer, and the sum is below `inactivity_delay`.
    #[schemars(with = "Span<1_000, 120_000>", extend("default" = "15s"))]
    pub(super) poll_timeout: Field<String>,
    /// Further properties of a v2 session, by name.
    ///
    /// Default: none.
    pub(super) properties: Field<BTreeMap<String, Field<String>>>,
    /// Event types, as in `["engagementCenter.Disconnected"]`, after whose acknowledgement the session is deleted and
    /// the source is done.
    #[schemars(extend("default" = []))]
    pub(super) end_events: Field<Vec<Field<String>>>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Subscription {
    /// By which a declared subscription and an actual one are matched; each has its own.
    ///
    /// Required.
    pub(super) description: Field<String>,
    /// The group of events.
    ///
    /// Required.
    pub(super) catalog_type: Field<CatalogType>,
    /// Names of events of the group, or `["all"]`.
    ///
    /// Required.
    pub(super) events: Field<Vec<Field<String>>>,
    /// The class of resources to filter on.
    #[schemars(extend("default" = "*"))]
    pub(super) resource_type: Field<ResourceType>,
    /// The resources; empty is all of the class.
    #[schemars(extend("default" = []))]
    pub(super) resource_ids: Field<Vec<Field<String>>>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Retry {
    /// Upper bound of the first wait; at most `max`.
    #[schemars(with = "Span<10, 60_000>", extend("default" = "200ms"))]
    pub(super) initial: Field<String>,
    /// Upper bound of every wait.
    #[schemars(with = "Span<10, 600_000>", extend("default" = "30s"))]
    pub(super) max: Field<String>,
}

/// A sink is what its `type` says.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Sink {
    Kafka(Box<Kafka>),
    Nats(Box<Nats>),
    File(File),
    Stdout(Stdout),
}

/// Topics of a Kafka cluster, by idempotent producers with acks=all.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Kafka {
    /// How often a record may arrive.
    #[schemars(extend("default" = "at_least_once"))]
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink. `false` is best effort: it may miss events, and never holds one
    /// back.
    #[schemars(extend("default" = true))]
    pub(super) required: Field<bool>,
    /// How long a refusal (topic or stream missing, not permitted) is retried before the record becomes a dead
    /// letter; or `"never"`. Being unreachable is no refusal, and always waits.
    #[schemars(with = "Span<1_000, 604_800_000>", extend("default" = "60s"))]
    pub(super) refused_after: Field<String>,
    /// Whether a destination that is less durable than the guarantee assumes is refused: one copy,
    /// storage in memory, unclean elections.
    #[schemars(extend("default" = false))]
    pub(super) require_durable: Field<bool>,
    /// `HOST:PORT`, comma-separated.
    ///
    /// Required.
    pub(super) bootstrap_servers: Field<String>,
    /// Whether missing topics are created. Not with SASL OAUTHBEARER.
    #[schemars(extend("default" = false))]
    pub(super) create_topics: Field<bool>,
    /// Partitions of created topics.
    ///
    /// Default: the broker's.
    #[schemars(extend("minimum" = 1, "maximum" = 10_000))]
    pub(super) partitions: Field<i64>,
    /// Replicas of created topics.
    ///
    /// Default: the broker's.
    #[schemars(extend("minimum" = 1, "maximum" = 100))]
    pub(super) replication_factor: Field<i64>,
    /// DANGER: whether every certificate is accepted, also one of an attacker between here and there.
    #[schemars(extend("default" = false))]
    pub(super) danger_accept_invalid_certificates: Field<bool>,
    /// Properties of librdkafka, such as `security.protocol`, `sasl.mechanism` or `ssl.ca.location`. Those that break
    /// the guarantee are refused.
    ///
    /// Default: none.
    pub(super) properties: Field<Named<Property>>,
}

/// Subjects of a NATS JetStream stream.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Nats {
    /// How often a record may arrive.
    #[schemars(extend("default" = "at_least_once"))]
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink. `false` is best effort: it may miss events, and never holds one
    /// back.
    #[schemars(extend("default" = true))]
    pub(super) required: Field<bool>,
    /// How long a refusal (topic or stream missing, not permitted) is retried before the record becomes a dead
    /// letter; or `"never"`. Being unreachable is no refusal, and always waits.
    #[schemars(with = "Span<1_000, 604_800_000>", extend("default" = "60s"))]
    pub(super) refused_after: Field<String>,
    /// Whether a destination that is less durable than the guarantee assumes is refused: one copy,
    /// storage in memory, unclean elections.
    #[schemars(extend("default" = false))]
    pub(super) require_durable: Field<bool>,
    /// `nats://HOST:PORT` or `tls://HOST:PORT`, comma-separated.
    ///
    /// Required.
    pub(super) url: Field<String>,
    /// A `.creds` file: `{ file = "bridge.creds" }`. One of `credentials`, `nkey`, `user` and `token` at most.
    ///
    /// Default: none.
    pub(super) credentials: Field<Secret>,
    /// The seed of an nkey.
    ///
    /// Default: none.
    pub(super) nkey: Field<Secret>,
    /// User name.
    ///
    /// Default: none.
    pub(super) user: Field<String>,
    /// Password of the user.
    ///
    /// Default: none; required with `user`.
    pub(super) password: Field<Secret>,
    /// Token.
    ///
    /// Default: none.
    pub(super) token: Field<Secret>,
    /// TLS of a sink of type `"nats"`. A `tls://` URL asks for it as well.
    pub(super) tls: Field<Tls>,
    /// The stream that holds every subject of this sink.
    ///
    /// Required.
    pub(super) stream: Field<String>,
    /// Whether a missing stream is created; otherwise it is verified.
    #[schemars(extend("default" = false))]
    pub(super) create_stream: Field<bool>,
    /// Replicas of a created stream.
    #[schemars(extend("default" = 1, "minimum" = 1, "maximum" = 5))]
    pub(super) replicas: Field<i64>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Tls {
    /// Whether a connection without TLS is refused.
    #[schemars(extend("default" = false))]
    pub(super) required: Field<bool>,
    /// Whether TLS starts before the server says anything, as its `handshake_first` wants it.
    #[schemars(extend("default" = false))]
    pub(super) first: Field<bool>,
    /// PEM file of further certificate authorities.
    ///
    /// Default: the system's alone.
    pub(super) ca: Field<String>,
    /// PEM file of the client's certificate chain.
    ///
    /// Default: none; required with `key`.
    pub(super) certificate: Field<String>,
    /// PEM file of the client's private key.
    ///
    /// Default: none; required with `certificate`.
    pub(super) key: Field<String>,
    /// DANGER: whether every certificate is accepted, also one of an attacker between here and there.
    #[schemars(extend("default" = false))]
    pub(super) danger_accept_invalid_certificates: Field<bool>,
}

/// JSON Lines, one file per destination (`<dir>/<destination>.jsonl`), synced before anything counts as published.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct File {
    /// How often a record may arrive; `"exactly_once"` is refused here.
    #[schemars(extend("default" = "at_least_once"))]
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink. `false` is best effort: it may miss events, and never holds one
    /// back.
    #[schemars(extend("default" = true))]
    pub(super) required: Field<bool>,
    /// How long a refusal (topic or stream missing, not permitted) is retried before the record becomes a dead
    /// letter; or `"never"`. Being unreachable is no refusal, and always waits.
    #[schemars(with = "Span<1_000, 604_800_000>", extend("default" = "60s"))]
    pub(super) refused_after: Field<String>,
    /// Whether a destination that is less durable than the guarantee assumes is refused. Files are synced always.
    #[schemars(extend("default" = false))]
    pub(super) require_durable: Field<bool>,
    /// The directory; created where it is missing.
    ///
    /// Required.
    pub(super) dir: Field<String>,
    /// A file is rotated before it grows above this.
    #[schemars(with = "Size<1_024, 1_099_511_627_776>", extend("default" = "64MiB"))]
    pub(super) rotate_size: Field<String>,
}

/// One value per line on standard output, to try things out: it keeps nothing.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Stdout {
    /// How often a record may arrive; `"exactly_once"` is refused here.
    #[schemars(extend("default" = "at_least_once"))]
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink. `false` is best effort: it may miss events, and never holds one
    /// back.
    #[schemars(extend("default" = true))]
    pub(super) required: Field<bool>,
    /// How long a refusal (topic or stream missing, not permitted) is retried before the record becomes a dead
    /// letter; or `"never"`. Being unreachable is no refusal, and always waits.
    #[schemars(with = "Span<1_000, 604_800_000>", extend("default" = "60s"))]
    pub(super) refused_after: Field<String>,
    /// `true` is refused: standard output keeps nothing.
    #[schemars(extend("default" = false))]
    pub(super) require_durable: Field<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    /// After a crash, what was published and not yet acknowledged is published again.
    AtLeastOnce,
    /// Not after a crash either: records and the memory of them are stored in one step.
    ExactlyOnce,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Route {
    /// Patterns on `eventType`; `*` stands for any characters, and `!` before a pattern excludes.
    ///
    /// Required.
    #[serde(rename = "match")]
    pub(super) patterns: Field<Vec<Field<String>>>,
    /// Where to: the name of a sink, or `"none"`, which says that what matches nothing else may be dropped.
    ///
    /// Required.
    pub(super) sink: Field<String>,
    /// Topic, subject or file name, with `{field}` in it.
    ///
    /// Default: Kafka `via.{category}`, NATS `via.{org}.{category}.{name}`, file and stdout `{category}`.
    pub(super) to: Field<String>,
    /// Fields, templates and constants of which the first usable one is the key; `[]`: no key.
    #[schemars(extend("default" = ["interactionId", "sessionId", "userId", "ehubSessionId", "correlationId"]))]
    pub(super) key: Field<Vec<Field<String>>>,
    /// Form of the record's value.
    #[schemars(extend("default" = "unwrapped"))]
    pub(super) format: Field<Format>,
    /// Further headers of the record, by name; values are templates.
    ///
    /// Default: none.
    pub(super) headers: Field<Named<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// The vendor's event with the payload as JSON.
    Unwrapped,
    /// The vendor's event, byte for byte.
    Raw,
    /// The payload alone.
    Payload,
    /// Structured CloudEvents JSON.
    CloudEvents,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct DeadLetter {
    /// The name of a kafka, nats or file sink.
    ///
    /// Required.
    pub(super) sink: Field<String>,
    /// Topic, subject or file name.
    ///
    /// Default: `via.dead-letter`, in a file sink `dead-letter`.
    pub(super) to: Field<String>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Mask {
    /// What becomes of the values of fields, by their names or paths; `*` stands for any characters.
    ///
    /// Default: none.
    pub(super) fields: Field<Named<MaskAction>>,
    /// Whether values that the vendor marks with `isMasked` are masked.
    #[schemars(extend("default" = true))]
    pub(super) honour_is_masked: Field<bool>,
    /// The key of `"hash"`: a long random text, 16 characters at least.
    ///
    /// Default: none; required where a field is hashed.
    pub(super) hash_key: Field<Secret>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct State {
    /// The directory: session ids, the v2 spool, local dead letters. One process at a time.
    #[schemars(extend("default" = "./viaduct-state"))]
    pub(super) dir: Field<String>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Admin {
    /// IP address and port, or `"off"`.
    #[schemars(extend("default" = "127.0.0.1:9464"))]
    pub(super) listen: Field<String>,
    /// What `tap --records` sees. The port has no authentication: "clear" shows customers' data to all who reach it.
    #[schemars(extend("default" = "masked"))]
    pub(super) records: Field<RecordsShown>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Log {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or `target=level` pairs, comma-separated.
    #[schemars(extend("default" = "info"))]
    pub(super) level: Field<String>,
    /// Text or JSON.
    #[schemars(extend("default" = "auto"))]
    pub(super) format: Field<LogFormat>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Tracing {
    /// The collector's address for OTLP over HTTP, or `"off"`.
    ///
    /// Required.
    pub(super) otlp_endpoint: Field<String>,
    /// The part of the polls that are traced.
    #[schemars(extend("default" = 1.0, "minimum" = 0.0, "maximum" = 1.0))]
    pub(super) sample_ratio: Field<f64>,
    /// `service.name` of the spans.
    ///
    /// Default: `viaduct`.
    pub(super) service_name: Field<String>,
    /// Headers of the exports, by name.
    ///
    /// Default: none.
    pub(super) headers: Field<Named<Secret>>,
}
