//! A Kafka broker in a container, where a Docker engine answers.

use std::sync::mpsc;

use anyhow::Result;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

use super::install::VERSION;
use crate::native::free_port;

/// Starts the broker and gives its address; an error where no Docker engine answers. The container belongs to the test
/// process and is shared by all its tests; it ends by itself after an hour, because a static is never dropped.
pub(super) fn start() -> Result<String> {
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new().name("kafka-container".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(send.send(Err(error.into()))),
        };
        runtime.block_on(async move {
            match run().await {
                Ok((container, bootstrap)) => {
                    let _ = send.send(Ok(bootstrap));
                    std::future::pending::<()>().await;
                    drop(container);
                }
                Err(error) => drop(send.send(Err(error))),
            }
        });
    })?;
    receive.recv()?
}

async fn run() -> Result<(testcontainers::ContainerAsync<GenericImage>, String)> {
    // A broker tells its clients its own address, so the port outside has to be known before it starts.
    let port = free_port()?;
    let bootstrap = format!("127.0.0.1:{port}");
    let container = GenericImage::new("apache/kafka", VERSION)
        .with_wait_for(WaitFor::message_on_stdout("Kafka Server started"))
        .with_mapped_port(port, port.tcp())
        .with_env_var("KAFKA_NODE_ID", "1")
        .with_env_var("KAFKA_PROCESS_ROLES", "broker,controller")
        .with_env_var("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093")
        .with_env_var("KAFKA_LISTENERS", format!("PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:9093"))
        .with_env_var("KAFKA_ADVERTISED_LISTENERS", format!("PLAINTEXT://{bootstrap}"))
        .with_env_var("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT")
        .with_env_var("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER")
        .with_env_var("KAFKA_INTER_BROKER_LISTENER_NAME", "PLAINTEXT")
        .with_env_var("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false")
        .with_env_var("KAFKA_LOG_RETENTION_MS", "-1")
        .with_env_var("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1")
        .with_env_var("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "1")
        .with_env_var("KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR", "1")
        .with_env_var("KAFKA_TRANSACTION_STATE_LOG_MIN_ISR", "1")
        .with_env_var("KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS", "1")
        .with_env_var("KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS", "0")
        .with_cmd(["timeout", "3600", "/etc/kafka/docker/run"])
        .start()
        .await?;
    Ok((container, bootstrap))
}
