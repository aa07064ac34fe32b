//! The sink against real NATS servers.

#![allow(clippy::unwrap_used, reason = "a failed expectation ends the test")]

mod access;
mod archive;
mod conforms;
mod delivery;
mod exactly_once;
mod outages;
mod refusals;
mod support;
