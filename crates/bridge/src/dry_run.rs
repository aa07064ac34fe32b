//! `viaduct run --dry-run`: what the bridge would publish, on standard output. Nothing is published or acknowledged.
//!
//! It is the bridge's own way from poller to router, with the session that a run would use; only the sinks are never
//! opened. Every event stays unacknowledged, so the vendor (v2: the spool) delivers it again to the next run.

mod show;

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;
use viaduct_poller::{
    AckToken, Crowd, Delivery, DeliveryStream, NoObserver, OnShutdown, Parts, Poller, Spool,
};

pub(crate) use self::show::Shower;
use crate::config::{Api, Config, KEEP_ALIVE_SLOTS, Source};
use crate::engine::poller_failure;
use crate::exit::{Exit, Failure};
use crate::routing::Masks;
use crate::signals::Signals;
use crate::source_settings;
use crate::state::StateDir;

/// How a task ended.
enum TaskEnd {
    Poller,
    /// So many events were shown.
    Source(usize),
}

/// Polls and shows until a signal, or until every source has shown what it may hold.
///
/// # Errors
/// What keeps a bridge from starting, and a standard output that cannot be written.
pub(crate) async fn dry_run(config: &Config) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let state = StateDir::open(&config.state_dir)?;
    let masks = Masks::of(config)?;
    let stop = CancellationToken::new();
    let mut tasks: JoinSet<Result<TaskEnd, Failure>> = JoinSet::new();
    for source in &config.sources {
        let (poller, deliveries) = poller(source, &state)?;
        let stop = stop.child_token();
        let shower = Shower::new(config, source, masks.clone());
        let room = source.max_in_flight.saturating_sub(KEEP_ALIVE_SLOTS).max(1);
        let showing = show(deliveries, shower, room, stop.clone());
        tasks.spawn(async move { showing.await.map(TaskEnd::Source) });
        let name = source.name.clone();
        tasks.spawn(async move {
            let ended = poller.run(stop).await;
            ended.map(|_| TaskEnd::Poller).map_err(|error| poller_failure(&name, &error))
        });
    }
    let mut shown = 0;
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(Ok(Ok(TaskEnd::Source(count)))) => shown += count,
                Some(Ok(Ok(TaskEnd::Poller))) => {}
                Some(Ok(Err(failure))) => return Err(failure),
                Some(Err(error)) => {
                    let message = format!("a task of the dry run broke: {error}");
                    return Err(Failure::new(Exit::Software, message, "please report this"));
                }
            },
            signal = signals.next() => {
                if stop.is_cancelled() {
                    return Ok(());
                }
                info!(signal, "stopping");
                stop.cancel();
            }
        }
    }
    match print(&format!("{shown} events; nothing is published or acknowledged: all of them come again\n")) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(unwritable(&error)),
        _ => Ok(()),
    }
}

/// The poller of a source. It leaves the session as it is: somebody has to deliver the events again.
fn poller(source: &Source, state: &StateDir) -> Result<(Poller, DeliveryStream), Failure> {
    let spool = match source.api {
        Api::V3 => None,
        Api::V2 => Some(Spool::open(&state.spool(&source.name)).map_err(|error| {
            Failure::new(
                Exit::CantCreate,
                format!("the spool of source {} cannot be opened: {error}", source.name),
                "check the disk of state.dir",
            )
        })?),
    };
    let mut settings = source_settings::of(source);
    settings.session.on_shutdown = OnShutdown::Keep;
    let store = state.session_store(&source.name, source.api_url.as_str(), &source.org_id);
    let parts =
        Parts { store: Box::new(store), observer: Arc::new(NoObserver), spool, crowd: Crowd::default() };
    Poller::new(settings, parts).map_err(|error| {
        Failure::new(
            Exit::Config,
            format!("source {} cannot be started: {error}", source.name),
            format!("correct [source.{}] in the configuration", source.name),
        )
    })
}

/// Shows up to `room` events. Their tokens are kept until polling ends, so that the vendor delivers none of them twice,
/// and dropped then, which acknowledges nothing.
async fn show(
    mut deliveries: DeliveryStream,
    mut shower: Shower,
    room: usize,
    stop: CancellationToken,
) -> Result<usize, Failure> {
    let mut held: Vec<AckToken> = Vec::new();
    while let Some(delivered) = deliveries.next().await {
        for Delivery { entry, token } in delivered.items {
            if held.len() < room {
                let text = shower.show(entry, delivered.session.as_str(), Timestamp::now());
                match print(&text) {
                    Ok(()) => {}
                    // Whoever was reading has seen enough.
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(held.len()),
                    Err(error) => return Err(unwritable(&error)),
                }
                held.push(token);
            }
        }
        if held.len() >= room {
            info!(events = held.len(), "as many events are shown as may be held unacknowledged");
            stop.cancel();
        }
    }
    Ok(held.len())
}

/// Standard output, whole events at a time.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::output("the records", error)
}
