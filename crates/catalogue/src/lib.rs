//! The events of the vendor's document: which types there are, which fields their payloads have, and an example of each.
//!
//! `events.toml` is the table, to be read beside the document; everything else is made from it:
//!
//! - [`events`], [`find`]: the types with their fields, for whoever needs their names
//! - [`payload_schema`], [`record_schema`], [`bundle`]: JSON Schemas (2020-12)
//! - [`EventType::drift`]: where a payload is not as documented
//! - [`markdown()`], which is `docs/events.md`
//!
//! ```
//! let idle = viaduct_catalogue::find("engagementCenter.Idle").expect("the document lists it");
//! assert_eq!((idle.category(), idle.name()), ("engagementCenter", "Idle"));
//! let payload = serde_json::json!({"userId": "5aa0b645c2b3e80", "payload": {"interactionId": [1030]}});
//! let drift = idle.drift(&payload);
//! assert_eq!(drift[0].to_string(), "payload.interactionId: wrong_type");
//! ```
//!
//! The document contradicts itself here and there (a field that is an integer in its table and a string in its example).
//! A field then has both types, so that every example of the document fits its schema.

mod drift;
mod event;
mod markdown;
mod schema;
mod table;

pub use drift::{Drift, Problem};
pub use event::{EventType, Field, JsonType};
pub use markdown::markdown;
pub use schema::{Form, bundle, payload_schema, record_schema};
pub use table::{envelope, events, find, listed, third_party_events};

/// `catalogTypeEvents` of the catalog type `changeNotification` (vendor document, FilterCriteria).
pub const CHANGE_NOTIFICATION_EVENTS: [&str; 2] = ["user", "team"];
