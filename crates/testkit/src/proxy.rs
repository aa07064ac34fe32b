//! A TCP proxy that a test puts between a client and a broker, to lose what the network would lose.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// They arrive.
    Fair,
    /// What the broker answers is swallowed; what the client sends arrives. The connection stays open.
    AnswersLost,
    /// Nothing arrives in either direction and nothing is lost: it waits for better weather.
    Stalled,
}

/// A proxy on loopback. Ends with its value.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    weather: watch::Sender<Weather>,
    /// Connections of an older number than this one are closed.
    cut: watch::Sender<u64>,
    accept: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and passes every connection on to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let weather = watch::Sender::new(Weather::Fair);
        let cut = watch::Sender::new(0);
        let accept = tokio::spawn(accept(listener, target, weather.subscribe(), cut.subscribe()));
        Ok(Self { port, weather, cut, accept })
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on the broker's answers are swallowed, on every connection.
    pub fn lose_answers(&self) {
        self.weather.send_replace(Weather::AnswersLost);
    }

    /// From now on nothing passes, and nothing is lost.
    pub fn stall(&self) {
        self.weather.send_replace(Weather::Stalled);
    }

    /// From now on everything passes.
    pub fn heal(&self) {
        self.weather.send_replace(Weather::Fair);
    }

    /// Closes every connection. New ones are accepted.
    pub fn cut(&self) {
        self.cut.send_modify(|number| *number += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    mut cut: watch::Receiver<u64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        cut.borrow_and_update();
        tokio::spawn(pass(client, target, weather.clone(), cut.clone()));
    }
}

async fn pass(
    client: TcpStream,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    mut cut: watch::Receiver<u64>,
) {
    let Ok(broker) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let (client_reads, client_writes) = client.into_split();
    let (broker_reads, broker_writes) = broker.into_split();
    let weather = Arc::new(weather);
    tokio::select! {
        () = copy(client_reads, broker_writes, Side::FromClient, &weather) => {}
        () = copy(broker_reads, client_writes, Side::FromBroker, &weather) => {}
        _ = cut.changed() => {}
    }
}

/// Which way a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    FromClient,
    FromBroker,
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    side: Side,
    weather: &watch::Receiver<Weather>,
) {
    let mut weather = weather.clone();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if weather.wait_for(|weather| *weather != Weather::Stalled).await.is_err() {
            return;
        }
        if side == Side::FromBroker && *weather.borrow() == Weather::AnswersLost {
            continue;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
