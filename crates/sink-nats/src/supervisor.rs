//! Keeps one epoch after the other alive, for ever, and says how it goes.
//!
//! ```text
//! connect to the next server ──▶ create / verify the stream ──▶ offer the epoch to batches ──▶ it breaks ─┐
//!      ▲                                                                                                   │
//!      └───────────────────────────── wait: with jitter, up to six seconds ◀──────────────────────────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::ServerAddr;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use viaduct_sink::{HealthReporter, Weakness};

use crate::epoch::Epoch;
use crate::settings::Checked;
use crate::stream::{self, InspectError, StreamReport};

/// How often a stream that is not as it should be is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// An epoch that lived this long, or over which a record was answered, was a good one: the next connection is tried
/// without much delay.
const GOOD_LIFE: Duration = Duration::from_secs(10);
/// Most servers that are remembered.
const MOST_SERVERS: usize = 64;

/// Atomic batches that this sink has open at a time. nats-server allows 50 per stream, for all that publish to it.
const OPEN_BATCHES: usize = 16;
/// Messages of an atomic batch, where the server is not configured otherwise.
const BATCH_LIMIT: usize = 1_000;

/// What the supervisor and the batches share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) checked: Checked,
    pub(crate) health: HealthReporter,
    /// The epoch to publish with; `None` while there is none.
    pub(crate) current: watch::Sender<Option<Arc<Epoch>>>,
    pub(crate) closing: CancellationToken,
    /// A record was refused or is unknown, or the stream could not be verified: send gated.
    careful: AtomicBool,
    /// No answer came in time. Being connected proves nothing any more until a record is confirmed.
    unproven: AtomicBool,
    /// What was last seen of the stream; the lock makes asking single-flight.
    seen: Mutex<Option<Seen>>,
    /// Atomic batches that may be open at a time, so that many sources stay below the server's limit.
    pub(crate) batches: Semaphore,
    /// Most messages of an atomic batch, as far as the server has said.
    pub(crate) batch_limit: AtomicUsize,
    /// The warning about the stream was given.
    warned: AtomicBool,
    /// Where the stream is less durable than the guarantee assumes, as it was last seen.
    pub(crate) weaknesses: std::sync::Mutex<Vec<Weakness>>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    what: Result<StreamReport, InspectError>,
}

impl Shared {
    pub(crate) fn new(checked: Checked) -> Self {
        Self {
            checked,
            health: HealthReporter::new("connecting"),
            current: watch::Sender::new(None),
            closing: CancellationToken::new(),
            careful: AtomicBool::new(true),
            unproven: AtomicBool::new(false),
            seen: Mutex::new(None),
            batches: Semaphore::new(OPEN_BATCHES),
            batch_limit: AtomicUsize::new(BATCH_LIMIT),
            warned: AtomicBool::new(false),
            weaknesses: std::sync::Mutex::default(),
        }
    }

    /// Whether two records of a lane must not be in flight together.
    pub(crate) fn gated(&self) -> bool {
        self.careful.load(Ordering::Acquire)
    }

    /// A whole batch went through.
    pub(crate) async fn all_well(&self) {
        let proven = self.unproven.swap(false, Ordering::AcqRel);
        if !proven && !self.careful.load(Ordering::Acquire) {
            return;
        }
        let seen = self.seen.lock().await;
        match seen.as_ref().map(|seen| &seen.what) {
            Some(Ok(report)) => {
                self.careful.store(report.may_refuse_one(), Ordering::Release);
                if report.problem(&self.checked.settings).is_none() {
                    self.health.up();
                }
            }
            Some(Err(InspectError::Refused(_))) => self.health.up(),
            Some(Err(_)) | None => {}
        }
    }

    /// A record was refused.
    pub(crate) fn refused(&self) {
        self.careful.store(true, Ordering::Release);
    }

    /// The server left records without an answer.
    pub(crate) fn no_answer(&self, epoch: &Epoch) {
        self.unproven.store(true, Ordering::Release);
        self.careful.store(true, Ordering::Release);
        epoch.end(format!(
            "the server left records without an answer for {:?}",
            self.checked.settings.ack_timeout
        ));
    }

    /// What is known of the stream, asked now unless somebody asked after `since`. Creates or completes it where
    /// the settings say so, and tells the health.
    pub(crate) async fn look(&self, epoch: &Epoch, since: Instant) -> Result<StreamReport, InspectError> {
        let settings = &self.checked.settings;
        let mut seen = self.seen.lock().await;
        if let Some(seen) = seen.as_ref().filter(|seen| seen.at > since) {
            return seen.what.clone();
        }
        let at = Instant::now();
        let what = tokio::select! {
            biased;
            what = stream::ensure(epoch.client(), settings) => what,
            () = epoch.api_denied() => Err(InspectError::Refused(
                "the server does not permit requests to JetStream's interface, so the stream cannot be verified".to_owned(),
            )),
            () = epoch.broken() => Err(InspectError::Unreachable(epoch.reason())),
        };
        if let Ok(report) = &what {
            self.warn(report);
            self.judge(report);
        }
        match &what {
            Ok(report) => match report.problem(settings) {
                None if self.unproven.load(Ordering::Acquire) => {}
                None => self.health.up(),
                Some(problem) => self.health.down(problem),
            },
            // Publishing may be permitted all the same: the answers will tell.
            Err(InspectError::Refused(_)) if !self.unproven.load(Ordering::Acquire) => self.health.up(),
            Err(error) => self.health.down(error.to_string()),
        }
        *seen = Some(Seen { at, what: what.clone() });
        what
    }
}

impl Shared {
    /// What was last seen of the stream; asked for where nothing good was.
    pub(crate) async fn known(&self, epoch: &Epoch) -> Result<StreamReport, InspectError> {
        let settings = &self.checked.settings;
        {
            let seen = self.seen.lock().await;
            if let Some(Seen { what: Ok(report), .. }) = &*seen
                && report.unfit(settings).is_none()
            {
                return Ok(report.clone());
            }
        }
        self.look(epoch, Instant::now()).await
    }

    /// Says once how the stream could lose a checkpoint.
    fn warn(&self, report: &StreamReport) {
        let dangers = report.dangers_to_checkpoints();
        if self.checked.settings.exactly_once.is_none() || dangers.is_empty() {
            return;
        }
        if !self.warned.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                stream = report.name,
                "the stream can lose checkpoints, and events may then be published twice: {}",
                dangers.join("; ")
            );
        }
    }
}

/// Runs until the sink closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    let work = async {
        let mut servers = shared.checked.servers.clone();
        let mut next = 0;
        let mut backoff = backoff();
        loop {
            let server = servers[next % servers.len()].clone();
            next += 1;
            let started = Instant::now();
            match open(&shared, &server).await {
                Ok(epoch) => {
                    remember(&mut servers, &epoch);
                    tracing::info!(host = server.host(), port = server.port(), "connected to NATS");
                    shared.current.send_replace(Some(epoch.clone()));
                    live(&shared, &epoch).await;
                    shared.current.send_replace(None);
                    shared.health.down(epoch.reason());
                    tracing::warn!(host = server.host(), reason = epoch.reason(), "connection to NATS lost");
                    if epoch.was_useful() || started.elapsed() > GOOD_LIFE {
                        backoff = self::backoff();
                    }
                }
                Err(reason) => shared.health.down(reason),
            }
            tokio::time::sleep(backoff.next().unwrap_or(LOOK_AGAIN)).await;
        }
    };
    tokio::select! {
        biased;
        () = shared.closing.cancelled() => {}
        () = work => {}
    }
}

/// From a twentieth of a second to three seconds, each plus up to as much again, without end.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(3))
        .with_jitter()
        .without_max_times()
        .build()
}

async fn open(shared: &Shared, server: &ServerAddr) -> Result<Arc<Epoch>, String> {
    let epoch = Epoch::open(&shared.checked, server).await?;
    shared.refused();
    match shared.look(&epoch, Instant::now()).await {
        Ok(report) if report.problem(&shared.checked.settings).is_none() && !epoch.is_broken() => {
            shared.careful.store(report.may_refuse_one(), Ordering::Release);
        }
        Err(InspectError::Unreachable(reason)) => return Err(reason),
        Ok(_) | Err(_) => {}
    }
    Ok(Arc::new(epoch))
}

/// Until the epoch is over; looks at the stream again and again where it is not as it should be.
async fn live(shared: &Shared, epoch: &Arc<Epoch>) {
    let mut health = shared.health.watch();
    loop {
        let wait = if health.borrow_and_update().up { Duration::MAX } else { LOOK_AGAIN };
        tokio::select! {
            () = epoch.broken() => return,
            _ = health.changed() => {}
            () = sleep(wait) => drop(shared.look(epoch, Instant::now()).await),
        }
    }
}

async fn sleep(time: Duration) {
    match time {
        Duration::MAX => std::future::pending().await,
        time => tokio::time::sleep(time).await,
    }
}

/// Adds the servers of the same cluster that this one tells of.
fn remember(servers: &mut Vec<ServerAddr>, epoch: &Epoch) {
    for url in epoch.client().server_info().connect_urls {
        if let Ok(server) = url.parse::<ServerAddr>()
            && !servers.iter().any(|known| known.host() == server.host() && known.port() == server.port())
            && servers.len() < MOST_SERVERS
        {
            servers.push(server);
        }
    }
}
