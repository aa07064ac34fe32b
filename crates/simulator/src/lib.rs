//! A simulator of the Alvaria Cloud Streaming Client REST API, for developing and breaking its consumers.
//!
//! It answers as the vendor's document says: the token endpoint, sessions, events and acknowledgements of v2 and v3,
//! subscriptions, inactivity, statuses and error bodies, with all 67 event types. Where the document leaves a question
//! open (what comes again, what survives a lost session) there is a setting for each answer. It makes faults on request
//! ([`FaultPlan`]), and keeps a journal of every event and of everything that the client does wrong ([`Report`]).
//!
//! It shares no code with Viaduct's own client: the two sides must be able to disagree.
//!
//! ```
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use viaduct_simulator::{Rate, Settings, Simulator};
//!
//! let settings = Settings { rate: Rate::Unlimited, total: Some(1_000), ..Settings::default() };
//! let simulator = Simulator::start(settings).await?;
//! println!("{} {}", simulator.url(), simulator.token_url());
//! simulator.control().set_faults("events:503:5% acknowledge:reset-after:@3".parse()?);
//! let report = simulator.stop().await;
//! assert!(report.misbehaviour.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # What is deliberately simple
//! One organisation has one queue. Each event goes to one session: whichever asks first. Subscriptions are kept, checked
//! and reported, but do not filter. Roles and permissions of the credentials are not modelled; 403 comes from faults only.

mod acknowledging;
mod answer;
mod args;
mod call;
mod catalogue;
mod clock;
mod conduct;
mod connection;
mod control;
mod control_http;
mod duration;
mod emission;
mod fault;
mod fault_picker;
mod fault_text;
mod generator;
mod journal;
mod lifecycle;
mod operations;
mod organisation;
mod polling;
mod report;
mod route;
mod server;
mod serving;
mod session;
mod settings;
mod shape;
mod simulation;
mod stock;
mod subscription;
mod tokens;

pub use args::SimulateArgs;
pub use catalogue::event_types;
pub use control::{Control, NotJson};
pub use fault::{ErrorStatus, Fault, FaultPlan, FaultRule, Malformed, Operation, RetryAfter, When};
pub use fault_text::FaultTextError;
pub use report::{
    CategoryReport, EventReport, Misbehaviour, MisbehaviourKind, Moment, Report, SessionReport, payload_hash,
};
pub use server::{Running, Simulator, StartError};
pub use settings::{CatalogType, EmptyPoll, Rate, Redelivery, Requeue, Settings, SettingsError, Types};
