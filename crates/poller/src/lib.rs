//! Keeps one Alvaria Cloud streaming session alive, long-polls it, and acknowledges what is durable.
//!
//! A [`Poller`] looks after one source: one vendor organisation with its credential and exactly one streaming session.
//! It hands out what the vendor delivers through a [`DeliveryStream`], each entry with an [`AckToken`], and acknowledges
//! an entry to the vendor only when its token was given proof that the entry is durable.
//!
//! # The guarantee
//! - **Nothing is acknowledged before it is durable.** A token needs a [`DurabilityProof`]; dropping it acknowledges
//!   nothing and lets the entry be delivered again.
//! - **Nothing is lost here.** What is not acknowledged stays at the vendor (v3) or in the [`Spool`] (v2) and is handed
//!   out again after a crash. With v2, a crash between the arrival of a response and its commit to the spool is the one
//!   loss that nobody can prevent.
//! - **Nothing is handed out twice while it is remembered.** Entries are recognised by id and content; the memory is
//!   bounded (four times `max_in_flight`, at least 4096, of what the vendor confirmed, and as many of what a lost session
//!   left unconfirmed: that comes again, perhaps behind everything that is newer).
//! - **The session lives.** While a consumer is stalled, a GET with `maxEvents=1` goes out after half of the inactivity
//!   delay. A session that the vendor calls invalid or expired is replaced, its id is never used again, and the declared
//!   subscriptions stand in every session before its first GET.
//! - **Never two GETs at once**, and no call at all before a `Retry-After` is over.
//! - **Bounded memory**: at most `max_in_flight` entries are held, fewer where many sources of a [`Crowd`] have much to give,
//!   and a response body is at most 256 MiB.
//!
//! Calls that fail are repeated with full-jitter backoff, for ever; all of them are safe to repeat. What goes on is in
//! [`Poller::status`], in the log (`tracing`, field `source`; never a payload, never a secret), and at the [`Observer`].
//!
//! # Example
//! `examples/print_events.rs` is a whole program. The heart of a consumer:
//!
//! ```
//! use viaduct_poller::{DeliveryStream, DurabilityProof, Entry};
//!
//! struct Synced(());
//! impl DurabilityProof for Synced {}
//!
//! async fn consume(mut stream: DeliveryStream, file: &mut std::fs::File) -> std::io::Result<()> {
//!     use std::io::Write;
//!     while let Some(deliveries) = stream.next().await {
//!         for delivery in &deliveries.items {
//!             writeln!(file, "{}", delivery.entry.raw())?;
//!         }
//!         file.sync_all()?;
//!         for delivery in deliveries.items {
//!             delivery.token.acknowledge(Synced(()));
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Inside
//! ```text
//!  settings ─▶ Poller::run ─▶ the loop (run) ◀──▶ kernel: the state machine (session): pure, decides
//!                               │   │   └───────▶ calls: one HTTP request each (client, token)
//!            spool (v2) ◀───────┤   └───────────▶ parse: response → entries
//!                               ▼
//!          kernel: hand-out + ledger: pure, knows identities ──▶ DeliveryStream ──▶ consumer
//!                               ▲                                                      │
//!                               └──────────────────── AckToken ────────────────────────┘
//! ```

mod backoff;
mod calls;
mod client;
pub mod connect;
mod crowd;
mod delivery;
mod error;
mod event;
mod failure;
mod handout;
mod http;
mod json_text;
mod kernel;
mod ledger;
mod observe;
mod parse;
mod poller;
mod run;
mod scan;
mod secret;
mod session;
mod settings;
#[cfg(feature = "simulation")]
pub mod simulation;
mod split;
mod spool;
mod status;
mod store;
mod subscriptions;
mod tell;
mod token;

pub use client::{AcknowledgeAnswer, GrantedSession, VendorClient};
pub use crowd::Crowd;
pub use delivery::{AckToken, Deliveries, Delivery, DeliveryStream, DurabilityProof};
pub use error::{BuildError, Finished, PollerError};
pub use event::{ContentHash, Entry, Event, Identity, Malformed, MalformedReason, Payload};
pub use failure::{CallError, FailureKind};
pub use observe::{Cause, NoObserver, Observation, Observer, Operation};
pub use parse::{Unreadable, parse_entry, parse_response};
pub use poller::{Parts, Poller};
pub use scan::Scanner;
pub use secret::Secret;
pub use settings::{
    ApiVersion, AuthSettings, ClientAuth, OnShutdown, RealmIn, RetrySettings, SessionSettings,
    SourceSettings, Subscription, TlsSettings,
};
pub use spool::{Spool, SpoolError};
pub use status::{Phase, SourceStatus};
pub use store::{MemoryStore, SavedSession, SessionId, SessionStore};
pub use subscriptions::{ActualSubscription, SubscriptionChange, plan_subscriptions};
pub use token::{Access, TokenProvider};
