//! A server's monitoring port: whether it is healthy, and who is connected.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// GET `path` of the monitoring port, as JSON.
pub fn get(port: u16, path: &str) -> Result<serde_json::Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.split(' ').nth(1) == Some("200"), "{path}: {}", head.lines().next().unwrap_or_default());
    Ok(serde_json::from_str(body)?)
}

/// Whether the server and its JetStream take requests.
pub(super) fn healthy(port: u16) -> Result<()> {
    let health = get(port, "/healthz")?;
    ensure!(health["status"] == "ok", "health is {health}");
    Ok(())
}
