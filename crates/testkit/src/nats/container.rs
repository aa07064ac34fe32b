//! A NATS server in a container, where a Docker engine answers.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{GenericImage, ImageExt};

/// Whether a Docker engine really answers (a socket file alone says nothing).
pub(super) fn docker_answers() -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut socket = UnixStream::connect("/var/run/docker.sock")?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.write_all(b"GET /_ping HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer.split(' ').nth(1) == Some("200"))
    };
    ask().unwrap_or(false)
}

/// Starts the server and gives its URL. The container belongs to the test process and is shared by all its tests; it
/// ends by itself after an hour, because a static is never dropped.
pub(super) fn start() -> Result<String> {
    let (send, receive) = mpsc::channel();
    std::thread::Builder::new().name("nats-container".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(send.send(Err(error.into()))),
        };
        runtime.block_on(async move {
            let started = async {
                let container = GenericImage::new("nats", "2.15-alpine")
                    .with_exposed_port(4222.tcp())
                    .with_wait_for(WaitFor::message_on_stderr("Server is ready"))
                    .with_cmd(["timeout", "3600", "nats-server", "-js"])
                    .start()
                    .await?;
                let port = container.get_host_port_ipv4(4222).await?;
                Ok((container, format!("nats://127.0.0.1:{port}")))
            };
            match started.await {
                Ok((container, url)) => {
                    let _ = send.send(Ok(url));
                    std::future::pending::<()>().await;
                    drop(container);
                }
                Err(error) => drop(send.send(Err(error))),
            }
        });
    })?;
    receive.recv()?
}
