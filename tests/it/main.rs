//! What a user sees, against the real binary, a real Kafka and a real NATS.
//!
//! Brokers are looked for in this order: an address in the environment (`VIADUCT_TEST_KAFKA`, `VIADUCT_TEST_NATS`), a
//! container where a Docker engine answers, the real servers kept under `target/brokers/`. A broker that cannot be had
//! is a failure that says what to install.

// A test fails by panicking, in its helping functions too.
#![allow(clippy::unwrap_used)]

mod commands;
mod dead_letters;
mod dlq;
mod faults;
mod kit;
mod main_path;
mod online;
mod operating;
mod outage;
mod records;
mod reload;
mod routing;
mod schemas;
mod service;
mod session;
mod state;
mod subscriptions;
mod tap;
mod tls;
mod tracing;
mod v2;
