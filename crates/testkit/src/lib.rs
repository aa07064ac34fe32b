//! Real brokers for tests: found in the environment, started in a container, or started natively.

pub mod kafka;
pub mod native;
pub mod nats;
pub mod proxy;
pub mod proxy_kafka;
