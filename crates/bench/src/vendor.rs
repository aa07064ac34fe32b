//! The simulator alone: how many events per second it gives to clients that only read.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::floor::Session;
use crate::job::VendorAddress;
use crate::scene::{self, Case};

/// Events per second that so many sessions are given.
pub(crate) async fn run(case: &Case) -> Result<f64> {
    let vendor = scene::vendor(case).await?;
    let address = VendorAddress { api_url: vendor.url(), token_url: vendor.token_url() };
    let end = Instant::now() + Duration::from_secs_f64(case.seconds);
    let mut readers = tokio::task::JoinSet::new();
    let started = Instant::now();
    for _ in 0..case.sources {
        let session = Session::create(&address).await?;
        readers.spawn(read(vendor.addr(), session.raw_get(case.batch), end));
    }
    while let Some(read) = readers.join_next().await {
        read??;
    }
    let given = vendor.report().emitted;
    Ok(given as f64 / started.elapsed().as_secs_f64())
}

/// Asks again and again, and looks at the length of each answer alone.
async fn read(address: std::net::SocketAddr, request: String, end: Instant) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 1 << 20];
    while Instant::now() < end {
        stream.write_all(request.as_bytes()).await?;
        let mut filled = 0;
        let (head, length) = loop {
            filled += stream.read(&mut buffer[filled..]).await?;
            if let Some(head) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") {
                let text = std::str::from_utf8(&buffer[..head])?;
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                break (head + 4, length.context("no content-length")?.parse::<usize>()?);
            }
        };
        let mut left = (head + length).saturating_sub(filled);
        while left > 0 {
            let most = left.min(buffer.len());
            left -= stream.read(&mut buffer[..most]).await?;
        }
    }
    Ok(())
}
