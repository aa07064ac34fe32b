//! The simulator, asked over HTTP by a client that behaves and misbehaves on purpose.

#![allow(clippy::unwrap_used, reason = "these are tests, but clippy sees only functions marked so")]

mod client;
mod conduct;
mod content;
mod endpoints;
mod events;
mod faults;
mod queue;
mod saturated;
mod steering;
