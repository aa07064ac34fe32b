//! A TCP proxy that understands Kafka's frames, to lose the answer to one request of a kind.
//!
//! In answers to Metadata and FindCoordinator requests a broker names itself, so it has to name the proxy to those that came
//! through it ([`KafkaProxy::with_broker`]).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::kafka::{KafkaBroker, quiet_port};

/// A request's kind (`api_key` of the Kafka protocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Api {
    /// Records.
    Produce = 0,
    /// The end of a transaction.
    EndTxn = 26,
}

/// What happens to a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The broker gets the request; its answer never arrives, and the connection stays open.
    AnswerLost,
    /// The broker gets the request; its answer arrives so much later, and with it all answers behind it.
    AnswerDelayed(Duration),
    /// The broker gets the request; when it answers, the connection is closed.
    CutAtAnswer,
    /// The request never arrives, and the connection is closed.
    CutAtRequest,
}

/// What is to happen, and to how many more requests.
#[derive(Debug, Default)]
struct Plan {
    rule: Option<(Api, usize, Fate)>,
    /// How often a rule has been applied.
    applied: usize,
    /// How many requests of each kind have passed, by key.
    requests: HashMap<i16, usize>,
}

type Shared = Arc<Mutex<Plan>>;

/// A proxy on loopback. Ends with its value.
#[derive(Debug)]
pub struct KafkaProxy {
    port: u16,
    plan: Shared,
    cut: watch::Sender<u64>,
    accept: JoinHandle<()>,
}

impl KafkaProxy {
    /// A broker of the test's own, with a proxy that its clients stay behind once they have come through it. `properties` as
    /// for [`KafkaBroker::start_with`]. Panics with one line where it cannot be had.
    pub async fn with_broker(properties: &[(&str, &str)]) -> (KafkaBroker, Self) {
        let ports = quiet_port().and_then(|first| Ok((first, quiet_port()?)));
        let (behind, port) = ports.expect("free ports");
        let listeners = format!("{{listeners}},PROXIED://127.0.0.1:{behind}");
        let advertised = format!("{{listeners}},PROXIED://127.0.0.1:{port}");
        let protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT";
        let mut all = vec![
            ("listeners", listeners.as_str()),
            ("advertised.listeners", advertised.as_str()),
            ("listener.security.protocol.map", protocols),
        ];
        all.extend(properties);
        let broker = tokio::task::block_in_place(|| KafkaBroker::start_with(&all));
        let target = SocketAddr::from(([127, 0, 0, 1], behind));
        let proxy = Self::start(port, target).await.expect("a proxy on a free port");
        (broker, proxy)
    }

    /// Its address for clients, `HOST:PORT`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Listens on `port` and passes every connection on to `target`.
    async fn start(port: u16, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let plan = Shared::default();
        let cut = watch::Sender::new(0);
        let accept = tokio::spawn(accept(listener, target, Arc::clone(&plan), cut.subscribe()));
        Ok(Self { port, plan, cut, accept })
    }

    /// The `nth` request of this kind from now on (1: the next one) meets this fate; those around it pass.
    pub fn nth(&self, api: Api, nth: usize, fate: Fate) {
        lock(&self.plan).rule = Some((api, nth, fate));
    }

    /// How many requests have met a fate.
    pub fn applied(&self) -> usize {
        lock(&self.plan).applied
    }

    /// How many requests of this kind have come by.
    pub fn requests(&self, api: Api) -> usize {
        lock(&self.plan).requests.get(&(api as i16)).copied().unwrap_or(0)
    }

    /// Closes every connection. New ones are accepted.
    pub fn cut(&self) {
        self.cut.send_modify(|number| *number += 1);
    }
}

impl Drop for KafkaProxy {
    fn drop(&mut self) {
        self.accept.abort();
        self.cut();
    }
}

fn lock(plan: &Shared) -> std::sync::MutexGuard<'_, Plan> {
    plan.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, target: SocketAddr, plan: Shared, mut cut: watch::Receiver<u64>) {
    while let Ok((client, _)) = listener.accept().await {
        cut.borrow_and_update();
        tokio::spawn(pass(client, target, Arc::clone(&plan), cut.clone()));
    }
}

/// The fates of answers that are awaited on a connection, by correlation id.
type Awaited = Arc<Mutex<HashMap<i32, Fate>>>;

async fn pass(client: TcpStream, target: SocketAddr, plan: Shared, mut cut: watch::Receiver<u64>) {
    let Ok(broker) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let (client_reads, client_writes) = client.into_split();
    let (broker_reads, broker_writes) = broker.into_split();
    let awaited = Awaited::default();
    tokio::select! {
        () = requests(client_reads, broker_writes, &plan, &awaited) => {}
        () = answers(broker_reads, client_writes, &awaited) => {}
        _ = cut.changed() => {}
    }
}

/// One frame: its length (4 bytes, big endian) and what follows.
async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.resize(4 + usize::try_from(length).ok()?, 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

fn number(frame: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

/// A request begins with its kind (2 bytes), its version (2) and its correlation id (4).
async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, plan: &Shared, awaited: &Awaited) {
    while let Some(frame) = frame(&mut from).await {
        let (Some(head), Some(id)) = (number(&frame, 4), number(&frame, 8)) else { return };
        let api = i16::try_from(head >> 16).unwrap_or(-1);
        let fate = {
            let mut plan = lock(plan);
            *plan.requests.entry(api).or_default() += 1;
            match &mut plan.rule {
                Some((wanted, nth, fate)) if *wanted as i16 == api => {
                    *nth -= 1;
                    let met = (*nth == 0).then_some(*fate);
                    if met.is_some() {
                        plan.rule = None;
                        plan.applied += 1;
                    }
                    met
                }
                _ => None,
            }
        };
        match fate {
            Some(Fate::CutAtRequest) => return,
            Some(fate) => {
                awaited.lock().unwrap_or_else(PoisonError::into_inner).insert(id, fate);
            }
            None => {}
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

/// An answer begins with the correlation id of its request.
async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, awaited: &Awaited) {
    while let Some(frame) = frame(&mut from).await {
        let fate = number(&frame, 4)
            .and_then(|id| awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        match fate {
            Some(Fate::AnswerLost) => continue,
            Some(Fate::AnswerDelayed(pause)) => tokio::time::sleep(pause).await,
            Some(Fate::CutAtAnswer | Fate::CutAtRequest) => return,
            None => {}
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}
