//! The configuration as it is written: every key there is, none of them checked. Only [`super::checks`] looks inside.
//!
//! The fields' names are the keys; [`super::reader`] takes the list of known keys from here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::checked::{
    Api, CatalogType, ClientAuth, LogFormat, MaskAction, OnShutdown, RealmIn, RecordsShown, ResourceType,
    Validate,
};
use super::field::{Field, Named, Property, Secret};

/// The whole file.
#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Config {
    /// The deployment as a whole.
    pub(super) bridge: Field<Bridge>,
    /// The vendor organisations, by name. A source has exactly one streaming session at a time.
    pub(super) source: Field<Named<Source>>,
    /// The destination systems, by name.
    pub(super) sink: Field<Named<Sink>>,
    /// Which events go where: all matching routes apply, the first match wins per sink. None: everything to every sink.
    pub(super) route: Field<Vec<Field<Route>>>,
    /// Where events go that can never be published as routed. By default a file under `state.dir`.
    pub(super) dead_letter: Field<DeadLetter>,
    /// What of an event nobody may see.
    pub(super) mask: Field<Mask>,
    /// What is kept between runs.
    pub(super) state: Field<State>,
    /// The port for metrics, health and status.
    pub(super) admin: Field<Admin>,
    /// What is logged, and how.
    pub(super) log: Field<Log>,
    /// Spans for OpenTelemetry; none without it.
    pub(super) tracing: Field<Tracing>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Bridge {
    /// Identity of this deployment.
    pub(super) name: Field<String>,
    /// How long a shutdown waits for publishes in flight and their acknowledgements, as in "25s".
    pub(super) shutdown_timeout: Field<String>,
    /// How many producers share the sources.
    pub(super) shards: Field<i64>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Source {
    /// Scheme and host of the vendor's API.
    pub(super) api_url: Field<String>,
    /// The organisation in the vendor's paths.
    pub(super) org_id: Field<String>,
    /// Version of the vendor's session API.
    pub(super) api: Field<Api>,
    /// `maxEvents` of a GET, 1 to 200.
    pub(super) max_events: Field<i64>,
    /// The most events held in memory for this source.
    pub(super) max_in_flight: Field<i64>,
    /// The CloudEvents `source`; `via://<org_id>` by default.
    pub(super) source_uri: Field<String>,
    /// OAuth2 client credentials.
    pub(super) auth: Field<Auth>,
    /// PEM file of certificate authorities that are trusted beside the system's.
    pub(super) ca_file: Field<String>,
    /// DANGER: whether every certificate is accepted, also one of an attacker between here and there.
    pub(super) danger_accept_invalid_certificates: Field<bool>,
    /// The streaming session.
    pub(super) session: Field<Session>,
    /// Subscriptions that every session of this source gets before its first GET.
    pub(super) subscription: Field<Vec<Field<Subscription>>>,
    /// Backoff of the calls to the vendor.
    pub(super) retry: Field<Retry>,
    /// Whether subscriptions of the session that are not declared here are deleted.
    pub(super) prune: Field<bool>,
    /// What becomes of events that are not as the vendor documents them.
    pub(super) validate: Field<Validate>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Auth {
    /// The token endpoint.
    pub(super) token_url: Field<String>,
    /// The client.
    pub(super) client_id: Field<Secret>,
    /// The client's secret.
    pub(super) client_secret: Field<Secret>,
    /// The vendor's `x-api-key`.
    pub(super) api_key: Field<Secret>,
    /// The scope that is asked for.
    pub(super) scope: Field<String>,
    /// The realm that is asked for; none by default.
    pub(super) realm: Field<String>,
    /// Where the realm is written.
    pub(super) realm_in: Field<RealmIn>,
    /// Where the client's id and secret are written.
    pub(super) client_auth: Field<ClientAuth>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Session {
    /// How long the vendor keeps a session without a GET, "60s" to "600s".
    pub(super) inactivity_delay: Field<String>,
    /// Whether a start tries the saved session first.
    pub(super) resume: Field<bool>,
    /// What a clean shutdown does with the session.
    pub(super) on_shutdown: Field<OnShutdown>,
    /// How long the vendor holds a GET open.
    pub(super) poll_timeout: Field<String>,
    /// Further properties of a v2 session.
    pub(super) properties: Field<BTreeMap<String, Field<String>>>,
    /// Event types after whose acknowledgement the session is deleted and the source is done.
    pub(super) end_events: Field<Vec<Field<String>>>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Subscription {
    /// By which a declared subscription and an actual one are matched.
    pub(super) description: Field<String>,
    /// The group of events.
    pub(super) catalog_type: Field<CatalogType>,
    /// Names of events of the group, or "all".
    pub(super) events: Field<Vec<Field<String>>>,
    /// The class of resources to filter on; all of them by default.
    pub(super) resource_type: Field<ResourceType>,
    /// The resources; empty is all of the class.
    pub(super) resource_ids: Field<Vec<Field<String>>>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Retry {
    /// Upper bound of the first wait.
    pub(super) initial: Field<String>,
    /// Upper bound of every wait.
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

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Kafka {
    /// How often a record may arrive.
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink.
    pub(super) required: Field<bool>,
    /// How long a refusal is retried before the record becomes a dead letter, or "never".
    pub(super) refused_after: Field<String>,
    /// Whether a destination that is less durable than the guarantee assumes is refused.
    pub(super) require_durable: Field<bool>,
    /// HOST:PORT, comma-separated.
    pub(super) bootstrap_servers: Field<String>,
    /// Whether missing topics are created.
    pub(super) create_topics: Field<bool>,
    /// Partitions of created topics.
    pub(super) partitions: Field<i64>,
    /// Replicas of created topics.
    pub(super) replication_factor: Field<i64>,
    /// DANGER: whether every certificate is accepted, also one of an attacker between here and there.
    pub(super) danger_accept_invalid_certificates: Field<bool>,
    /// librdkafka properties.
    pub(super) properties: Field<Named<Property>>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Nats {
    /// How often a record may arrive.
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink.
    pub(super) required: Field<bool>,
    /// How long a refusal is retried before the record becomes a dead letter, or "never".
    pub(super) refused_after: Field<String>,
    /// Whether a destination that is less durable than the guarantee assumes is refused.
    pub(super) require_durable: Field<bool>,
    /// nats://HOST:PORT, comma-separated.
    pub(super) url: Field<String>,
    /// A .creds file or its text.
    pub(super) credentials: Field<Secret>,
    /// An nkey seed.
    pub(super) nkey: Field<Secret>,
    /// User name.
    pub(super) user: Field<String>,
    /// Password of the user.
    pub(super) password: Field<Secret>,
    /// Token.
    pub(super) token: Field<Secret>,
    /// TLS.
    pub(super) tls: Field<Tls>,
    /// The stream.
    pub(super) stream: Field<String>,
    /// Whether a missing stream is created.
    pub(super) create_stream: Field<bool>,
    /// Replicas of a created stream.
    pub(super) replicas: Field<i64>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Tls {
    /// Whether a connection without TLS is refused.
    pub(super) required: Field<bool>,
    /// TLS before the server says anything.
    pub(super) first: Field<bool>,
    /// File of the certificate authorities.
    pub(super) ca: Field<String>,
    /// File of the client's certificate.
    pub(super) certificate: Field<String>,
    /// File of the client's key.
    pub(super) key: Field<String>,
    /// DANGER: whether every certificate is accepted, also one of an attacker between here and there.
    pub(super) danger_accept_invalid_certificates: Field<bool>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct File {
    /// How often a record may arrive.
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink.
    pub(super) required: Field<bool>,
    /// How long a refusal is retried before the record becomes a dead letter, or "never".
    pub(super) refused_after: Field<String>,
    /// Whether a destination that is less durable than the guarantee assumes is refused.
    pub(super) require_durable: Field<bool>,
    /// The directory.
    pub(super) dir: Field<String>,
    /// Size at which a file is rotated, as in "64MiB".
    pub(super) rotate_size: Field<String>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Stdout {
    /// How often a record may arrive.
    pub(super) delivery: Field<Delivery>,
    /// Whether acknowledgements wait for this sink.
    pub(super) required: Field<bool>,
    /// How long a refusal is retried before the record becomes a dead letter, or "never".
    pub(super) refused_after: Field<String>,
    /// Whether a destination that is less durable than the guarantee assumes is refused.
    pub(super) require_durable: Field<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Route {
    /// Patterns on `eventType`; `*` stands for any characters.
    #[serde(rename = "match")]
    pub(super) patterns: Field<Vec<Field<String>>>,
    /// Where to: the name of a sink, or "none".
    pub(super) sink: Field<String>,
    /// Topic, subject or file name, with `{field}` in it.
    pub(super) to: Field<String>,
    /// Fields of which the first usable one is the key; empty: no key.
    pub(super) key: Field<Vec<Field<String>>>,
    /// Form of the record's value.
    pub(super) format: Field<Format>,
    /// Further headers of the record; values are templates.
    pub(super) headers: Field<Named<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Unwrapped,
    Raw,
    Payload,
    CloudEvents,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct DeadLetter {
    /// The name of a sink.
    pub(super) sink: Field<String>,
    /// Topic, subject or file name.
    pub(super) to: Field<String>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Mask {
    /// What becomes of the values of fields, by their names or paths; `*` stands for any member.
    pub(super) fields: Field<Named<MaskAction>>,
    /// Whether values that the vendor marks with `isMasked` are masked.
    pub(super) honour_is_masked: Field<bool>,
    /// The key of `hash`.
    pub(super) hash_key: Field<Secret>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct State {
    /// The directory: session ids, the v2 spool, local dead letters. One process at a time.
    pub(super) dir: Field<String>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Admin {
    /// IP address and port, or "off".
    pub(super) listen: Field<String>,
    /// What `tap --records` sees. The port has no authentication: "clear" shows customers' data to all who reach it.
    pub(super) records: Field<RecordsShown>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Log {
    /// A level, or target=level pairs.
    pub(super) level: Field<String>,
    /// Text, JSON, or text on a terminal and JSON elsewhere.
    pub(super) format: Field<LogFormat>,
}

#[derive(Clone, Default, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct Tracing {
    /// The collector's address for OTLP over HTTP, or "off".
    pub(super) otlp_endpoint: Field<String>,
    /// The part of the polls that are traced, 0 to 1.
    pub(super) sample_ratio: Field<f64>,
    /// `service.name` of the spans.
    pub(super) service_name: Field<String>,
    /// Headers of the exports, by name.
    pub(super) headers: Field<Named<Secret>>,
}
