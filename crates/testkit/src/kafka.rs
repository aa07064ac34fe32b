//! Kafka brokers for tests.
//!
//! [`KafkaBroker::shared`] gives the one broker that all tests of a binary may use at the same time, each with topics of
//! its own: the broker whose address stands in `VIADUCT_TEST_KAFKA`, or a container where a Docker engine answers, or
//! the real Apache Kafka from Maven Central, kept under `target/brokers/`. Where none of them can be had, the test
//! fails with one line that says what to install.
//!
//! [`KafkaBroker::start_own`] always starts the native broker: a test which stops, kills, freezes or restarts it, or
//! wants another configuration, has to hold the process itself. [`KafkaCluster`] is three of them, for tests in which
//! leaders and coordinators move.
//!
//! The native broker never creates a topic by itself (`auto.create.topics.enable=false`), so that a missing topic is
//! missing. What a test reads back it reads with [`read_topic`], a consumer that shares no code with the sink.

mod broker;
mod cluster;
mod container;
mod install;
mod process;
pub mod reader;
#[cfg(test)]
mod tests;
pub mod topics;

pub use broker::KafkaBroker;
pub use cluster::KafkaCluster;
pub use install::class_path;
pub use reader::{KafkaMessage, read_topic};
pub use topics::{create_replicated_topic, create_topic, delete_topic, topics};
