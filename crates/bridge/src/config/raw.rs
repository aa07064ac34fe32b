//! The configuration as it is written: every key there is, none of them checked. Only [`super::checks`] looks inside.
//!
//! The fields' names are the keys; [`super::reader`] takes the list of known keys from here.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::checked::{
    Api, CatalogType, ClientAuth, LogFormat, MaskAction, OnShutdown, RealmIn, ResourceType,
};
use super::field::{Field, Named, Property, Secret};

/// The whole file.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
    pub(super) bridge: Field<Bridge>,
    pub(super) source: Field<Named<Source>>,
    pub(super) sink: Field<Named<Sink>>,
    pub(super) route: Field<Vec<Field<Route>>>,
    pub(super) dead_letter: Field<DeadLetter>,
    pub(super) mask: Field<Mask>,
    pub(super) state: Field<State>,
    pub(super) admin: Field<Admin>,
    pub(super) log: Field<Log>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Bridge {
    pub(super) name: Field<String>,
    pub(super) shutdown_timeout: Field<String>,
    pub(super) shards: Field<i64>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Source {
    pub(super) api_url: Field<String>,
    pub(super) org_id: Field<String>,
    pub(super) api: Field<Api>,
    pub(super) max_events: Field<i64>,
    pub(super) max_in_flight: Field<i64>,
    pub(super) source_uri: Field<String>,
    pub(super) auth: Field<Auth>,
    pub(super) session: Field<Session>,
    pub(super) subscription: Field<Vec<Field<Subscription>>>,
    pub(super) retry: Field<Retry>,
    /// Known, not available in this version.
    pub(super) prune: Field<IgnoredAny>,
    /// Known, not available in this version.
    pub(super) validate: Field<IgnoredAny>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Auth {
    pub(super) token_url: Field<String>,
    pub(super) client_id: Field<Secret>,
    pub(super) client_secret: Field<Secret>,
    pub(super) api_key: Field<Secret>,
    pub(super) scope: Field<String>,
    pub(super) realm: Field<String>,
    pub(super) realm_in: Field<RealmIn>,
    pub(super) client_auth: Field<ClientAuth>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Session {
    pub(super) inactivity_delay: Field<String>,
    pub(super) resume: Field<bool>,
    pub(super) on_shutdown: Field<OnShutdown>,
    pub(super) poll_timeout: Field<String>,
    pub(super) properties: Field<BTreeMap<String, Field<String>>>,
    pub(super) end_events: Field<Vec<Field<String>>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Subscription {
    pub(super) description: Field<String>,
    pub(super) catalog_type: Field<CatalogType>,
    pub(super) events: Field<Vec<Field<String>>>,
    pub(super) resource_type: Field<ResourceType>,
    pub(super) resource_ids: Field<Vec<Field<String>>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Retry {
    pub(super) initial: Field<String>,
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

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kafka {
    pub(super) delivery: Field<Delivery>,
    pub(super) required: Field<bool>,
    pub(super) refused_after: Field<String>,
    pub(super) require_durable: Field<bool>,
    pub(super) bootstrap_servers: Field<String>,
    pub(super) create_topics: Field<bool>,
    pub(super) partitions: Field<i64>,
    pub(super) replication_factor: Field<i64>,
    pub(super) properties: Field<Named<Property>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Nats {
    pub(super) delivery: Field<Delivery>,
    pub(super) required: Field<bool>,
    pub(super) refused_after: Field<String>,
    pub(super) require_durable: Field<bool>,
    pub(super) url: Field<String>,
    pub(super) credentials: Field<Secret>,
    pub(super) nkey: Field<Secret>,
    pub(super) user: Field<String>,
    pub(super) password: Field<Secret>,
    pub(super) token: Field<Secret>,
    pub(super) tls: Field<Tls>,
    pub(super) stream: Field<String>,
    pub(super) create_stream: Field<bool>,
    pub(super) replicas: Field<i64>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tls {
    pub(super) required: Field<bool>,
    pub(super) first: Field<bool>,
    pub(super) ca: Field<String>,
    pub(super) certificate: Field<String>,
    pub(super) key: Field<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    pub(super) delivery: Field<Delivery>,
    pub(super) required: Field<bool>,
    pub(super) refused_after: Field<String>,
    pub(super) require_durable: Field<bool>,
    pub(super) dir: Field<String>,
    pub(super) rotate_size: Field<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stdout {
    pub(super) delivery: Field<Delivery>,
    pub(super) required: Field<bool>,
    pub(super) refused_after: Field<String>,
    pub(super) require_durable: Field<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Delivery {
    AtLeastOnce,
    ExactlyOnce,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Route {
    #[serde(rename = "match")]
    pub(super) patterns: Field<Vec<Field<String>>>,
    pub(super) sink: Field<String>,
    pub(super) to: Field<String>,
    pub(super) key: Field<Vec<Field<String>>>,
    pub(super) format: Field<Format>,
    pub(super) headers: Field<Named<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    Unwrapped,
    Raw,
    Payload,
    CloudEvents,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct DeadLetter {
    pub(super) sink: Field<String>,
    pub(super) to: Field<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mask {
    pub(super) fields: Field<Named<MaskAction>>,
    pub(super) honour_is_masked: Field<bool>,
    pub(super) hash_key: Field<Secret>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) dir: Field<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Admin {
    pub(super) listen: Field<String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    pub(super) level: Field<String>,
    pub(super) format: Field<LogFormat>,
}
