//! What really stands in a stream, read by a client of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::stream::ConsumerError;
use bytes::Bytes;
use futures_util::StreamExt;

/// One message of a stream.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its headers, sorted by name; a repeated header stands here once per value.
    pub headers: Vec<(String, String)>,
    /// Its payload.
    pub payload: Bytes,
}

impl StoredMessage {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// How long a cluster may take to find a leader before reading fails.
const ELECTION: Duration = Duration::from_secs(20);

/// Reads everything that stands in `stream` now, in the stream's order, over a new connection without credentials.
pub async fn read_stream(url: &str, stream: &str) -> Result<Vec<StoredMessage>> {
    let client = async_nats::connect(url).await.context("the reader cannot connect")?;
    let deadline = Instant::now() + ELECTION;
    loop {
        match read_stream_with(&client, stream).await {
            Err(error) if Instant::now() < deadline && error.is::<ConsumerError>() => {}
            answer => return answer,
        }
    }
}

/// The same over a connection of the caller's, for servers that ask for credentials.
pub async fn read_stream_with(client: &async_nats::Client, stream: &str) -> Result<Vec<StoredMessage>> {
    let handle = jetstream::new(client.clone()).get_stream(stream).await?;
    let state = handle.cached_info().state.clone();
    let mut found = Vec::new();
    if state.messages == 0 {
        return Ok(found);
    }
    let consumer = handle.create_consumer(OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?;
    loop {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next())
            .await
            .context("the stream gives fewer messages than it says it holds")?
            .context("the reader's consumer ended")??;
        let sequence = message.info().map_err(|error| anyhow::anyhow!("{error}"))?.stream_sequence;
        let mut headers: Vec<(String, String)> = message
            .headers
            .iter()
            .flat_map(|map| map.iter())
            .flat_map(|(name, values)| {
                values.iter().map(move |value| (name.to_string(), value.as_str().to_owned()))
            })
            .collect();
        headers.sort();
        found.push(StoredMessage {
            sequence,
            subject: message.subject.to_string(),
            headers,
            payload: message.payload.clone(),
        });
        if sequence >= state.last_sequence {
            return Ok(found);
        }
    }
}
