//! A running bridge: every task of it, and its orderly end.
//!
//! Tasks live in one [`JoinSet`]; a panic in any of them ends the process with 70, none disappears silently. The end has
//! an order: stop polling → publishes under way are confirmed → acknowledgements go out → sessions are kept or deleted
//! → sinks close.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use viaduct_poller::{ApiVersion, Crowd, Finished, Parts, Poller, PollerError, Spool};
use viaduct_sink::{Fatal, Owner};

use crate::checkpoints::{KeptSession, SourceCheckpoints};
use crate::config::{self, Api, Config, DeadLetter, RefusedAfter};
use crate::durability::{self, Demands};
use crate::exit::{Exit, Failure};
use crate::pipeline::lane::Lane;
use crate::pipeline::repeats::Repeats;
use crate::pipeline::settle::MAX_SINKS;
use crate::pipeline::source::{Rules, SinkLane, Source};
use crate::routing::{DeadLetterRoute, Masks, Router};
use crate::sinks::{self, Destinations, SinkHandle};
use crate::source_settings::{self, Credentials};
use crate::state::StateDir;
use crate::telemetry::{SourceObserver, Telemetry};
use crate::validation::Validator;

/// A bridge that runs.
#[derive(Debug)]
pub(crate) struct Engine {
    tasks: JoinSet<TaskEnd>,
    /// Lanes of best-effort sinks: the end waits for them a moment only.
    best_effort: JoinSet<()>,
    /// They log the ups and downs of sinks, keep the time of the last minute, and never end by themselves.
    watchers: JoinSet<()>,
    stop: CancellationToken,
    telemetry: Arc<Telemetry>,
    sinks: Vec<Arc<SinkHandle>>,
    unacknowledged: usize,
    reloader: Reloader,
    demands: Arc<Demands>,
    masks: Option<Arc<Masks>>,
    crowd: Crowd,
    _state: StateDir,
}

/// Changes what can be changed in a running bridge.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reloader(Vec<SourceReload>);

#[derive(Debug, Clone)]
struct SourceReload {
    name: String,
    /// Boxed: a channel of tokio's keeps room for 32 of what it carries.
    rules: mpsc::UnboundedSender<Box<Rules>>,
    credentials: Credentials,
}

impl Reloader {
    /// Routes, masks and credentials are those of `config` from now on. Its sinks have to be those that run.
    ///
    /// # Errors
    /// The masks cannot be had; nothing is changed then.
    pub(crate) fn apply(&self, config: &Config) -> Result<(), Failure> {
        let masks = Masks::of(config)?;
        for running in &self.0 {
            let Some(source) = config.sources.iter().find(|source| source.name == running.name) else {
                continue;
            };
            running.credentials.replace(source);
            // A source that has ended routes nothing more.
            let _ =
                running.rules.send(Box::new(Rules { router: router(source, config), masks: masks.clone() }));
        }
        Ok(())
    }
}

fn router(source: &crate::config::Source, config: &Config) -> Router {
    let naming: Vec<_> = config.sinks.iter().map(|sink| sinks::naming(&sink.kind)).collect();
    Router::new(&source.name, &source.org_id, &source.source_uri, &config.routes, &naming)
}

/// How a task ended.
#[derive(Debug)]
enum TaskEnd {
    Poller(Arc<str>, Result<Finished, PollerError>),
    Source,
    Lane(Arc<str>, Result<(), Fatal>),
    /// The destinations are not what the configuration demands.
    Refused(Failure),
}

/// How a bridge ended that nothing went wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Events that were handed out and are not acknowledged: the vendor delivers them again.
    pub(crate) unacknowledged: usize,
}

/// How long best-effort sinks may go on publishing when everything else is done.
const BEST_EFFORT_GRACE: Duration = Duration::from_secs(1);
/// How long closing the sinks may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Engine {
    /// Opens the state directory and the sinks, and starts a poller and a pipeline per source.
    ///
    /// # Errors
    /// What keeps a bridge from starting: the state directory, a sink's settings. An unreachable system is none: it is
    /// waited for.
    pub(crate) async fn start(config: &Config) -> Result<Self, Failure> {
        let state = StateDir::open(&config.state_dir)?;
        if config.sinks.len() > MAX_SINKS {
            return Err(Failure::new(
                Exit::Config,
                format!("{} sinks are configured, the most is {MAX_SINKS}", config.sinks.len()),
                "split the deployment",
            ));
        }
        let masks = Masks::of(config)?;
        let telemetry = Telemetry::of(config)?;
        let owner = Owner::random();
        let mut sinks = Vec::with_capacity(config.sinks.len());
        for index in config.sink_indices() {
            let handle = sinks::open(config, index, &owner).await?;
            telemetry.add_sink(handle.clone());
            sinks.push(handle);
        }
        let demands = Demands::of(config, &sinks);
        let looked_at = config.sink_indices().zip(&sinks);
        let looked_at =
            looked_at.map(|(index, sink)| (sink.clone(), Destinations::of(config, index).names()));
        let looked_at = looked_at.collect();
        let mut engine = Self {
            tasks: JoinSet::new(),
            best_effort: JoinSet::new(),
            watchers: JoinSet::new(),
            stop: CancellationToken::new(),
            telemetry,
            sinks,
            unacknowledged: 0,
            reloader: Reloader::default(),
            demands,
            masks,
            crowd: Crowd::default(),
            _state: state,
        };
        let last_resort = sinks::local_dead_letters(&engine._state.dead_letters(), RefusedAfter::Never)?;
        // A disk that is full holds acknowledgements back like any other sink that takes nothing.
        engine.telemetry.add_sink(last_resort.clone());
        for sink in engine.sinks.iter().chain([&last_resort]) {
            engine.watchers.spawn(sink.clone().watch());
        }
        engine.watchers.spawn(engine.telemetry.clone().remind_of_dangers());
        engine.watchers.spawn(engine.telemetry.clone().keep_time());
        engine.watchers.spawn(durability::look_at_all(looked_at));
        for source in &config.sources {
            engine.start_source(source, config, &last_resort)?;
        }
        engine.sinks.push(last_resort);
        Ok(engine)
    }

    fn start_source(
        &mut self,
        source: &crate::config::Source,
        config: &Config,
        last_resort: &Arc<SinkHandle>,
    ) -> Result<(), Failure> {
        let name: Arc<str> = source.name.as_str().into();
        let state = &self._state;
        let spool = spool(source, &state.spool(&source.name))?;
        let checkpoints = SourceCheckpoints::new(&name, &source.org_id, &self.sinks);
        let file = state.session_store(&source.name, source.api_url.as_str(), &source.org_id);
        let parts = Parts {
            store: Box::new(KeptSession::new(file, checkpoints.clone())),
            observer: Arc::new(SourceObserver::new(
                name.clone(),
                self.telemetry.clone(),
                checkpoints.clone(),
            )),
            spool,
            crowd: self.crowd.clone(),
        };
        let credentials = Credentials::of(source);
        let mut settings = source_settings::of(source);
        credentials.put_into(&mut settings.auth);
        let (poller, deliveries) = Poller::new(settings, parts).map_err(|error| {
            Failure::new(
                Exit::Config,
                format!("source {name} cannot be started: {error}"),
                format!("correct [source.{name}] in the configuration"),
            )
        })?;
        self.telemetry.add_source(name.clone(), poller.status());

        let (reports, reports_of_lanes) = mpsc::unbounded_channel();
        let (rules, reloads) = mpsc::unbounded_channel();
        self.reloader.0.push(SourceReload { name: source.name.clone(), rules, credentials });
        let mut lanes = Vec::with_capacity(config.sinks.len());
        for sink in &self.sinks {
            let capacity = (!sink.required).then_some(source.max_in_flight);
            let (sender, lane) =
                Lane::new(name.clone(), sink.clone(), capacity, reports.clone(), self.telemetry.clone());
            lanes.push(SinkLane { sender, required: sink.required, sink: sink.name.clone() });
            spawn_lane(&mut self.tasks, &mut self.best_effort, sink, lane);
        }
        let (last_resort_sender, lane) =
            Lane::new(name.clone(), last_resort.clone(), None, reports.clone(), self.telemetry.clone());
        spawn_lane(&mut self.tasks, &mut self.best_effort, last_resort, lane);
        let last_resort_route = DeadLetterRoute::local(&name, &source.org_id);
        let (dead_letters, dead_letter_route) = match &config.dead_letter {
            DeadLetter::LocalFile => (last_resort_sender.clone(), last_resort_route.clone()),
            DeadLetter::Sink { sink, to } => {
                let handle = &self.sinks[sink.get()];
                let (sender, lane) =
                    Lane::new(name.clone(), handle.clone(), None, reports.clone(), self.telemetry.clone());
                let name = name.clone();
                self.tasks.spawn(async move { TaskEnd::Lane(name, lane.run().await) });
                (
                    sender,
                    DeadLetterRoute::sink(
                        &source.name,
                        &source.org_id,
                        to,
                        sinks::naming(&config.sink(*sink).kind),
                    ),
                )
            }
        };
        let pipeline = Source {
            name: name.clone(),
            deliveries,
            router: router(source, config),
            reloads,
            validator: Validator::new(name.clone(), source.validate, self.telemetry.clone()),
            masks: self.masks.clone(),
            lanes,
            dead_letters,
            dead_letter_route,
            last_resort: last_resort_sender,
            last_resort_route,
            reports: reports_of_lanes,
            telemetry: self.telemetry.clone(),
            repeats: Repeats::default(),
        };
        self.tasks.spawn(async move {
            pipeline.run().await;
            TaskEnd::Source
        });
        let stop = self.stop.clone();
        let demands = self.demands.clone();
        self.tasks.spawn(async move {
            // Nothing is polled before every sink knows what it holds of the source, and knows whose it is; and nothing is
            // claimed in a destination that is not to be published to.
            let claimed = tokio::select! {
                claimed = async {
                    demands.met().await.map_err(TaskEnd::Refused)?;
                    checkpoints.claim().await.map_err(|(sink, fatal)| TaskEnd::Lane(sink, Err(fatal)))
                } => claimed,
                () = stop.cancelled() => return TaskEnd::Poller(name, Ok(Finished::Stopped { unacknowledged: 0 })),
            };
            match claimed {
                Ok(()) => TaskEnd::Poller(name, poller.run(stop).await),
                Err(end) => end,
            }
        });
        Ok(())
    }

    /// Counters and states.
    pub(crate) fn telemetry(&self) -> Arc<Telemetry> {
        self.telemetry.clone()
    }

    /// Changes what a reloaded configuration may change.
    pub(crate) fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Cancelled, it stops the polling, and [`Engine::run`] comes to its end.
    pub(crate) fn stopper(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs until every source has ended: because it was stopped, or because its session's end event came.
    ///
    /// # Errors
    /// What ends a bridge: refused credentials at the start, a sink that can never publish again, our bug.
    pub(crate) async fn run(&mut self) -> Result<Summary, Failure> {
        let ended = self.run_tasks().await;
        if let Some(traces) = &self.telemetry.traces {
            traces.close().await;
        }
        ended
    }

    async fn run_tasks(&mut self) -> Result<Summary, Failure> {
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.map_err(|error| {
                Failure::new(
                    Exit::Software,
                    format!("a task of the bridge broke: {error}"),
                    "please report this",
                )
            })?;
            match ended {
                TaskEnd::Source | TaskEnd::Lane(_, Ok(())) => {}
                TaskEnd::Refused(failure) => return Err(failure),
                TaskEnd::Poller(source, Ok(Finished::Stopped { unacknowledged })) => {
                    info!(%source, unacknowledged, "source stopped");
                    self.unacknowledged += unacknowledged;
                }
                TaskEnd::Poller(source, Ok(Finished::Ended)) => info!(%source, "source ended"),
                TaskEnd::Poller(source, Err(error)) => return Err(poller_failure(&source, &error)),
                TaskEnd::Lane(sink, Err(fatal)) => {
                    error!(%sink, %fatal, "a sink can never publish again in this process");
                    let hint = match fatal {
                        Fatal::Fenced(_) => {
                            "another bridge of this name runs: stop one of the two, or give it another bridge.name"
                        }
                        Fatal::Broken(_) => "unacknowledged events will be delivered again after a restart",
                    };
                    let message = format!("sink {sink} stopped for good: {fatal}");
                    return Err(Failure::new(Exit::TempFail, message, hint));
                }
            }
        }
        self.close().await;
        Ok(Summary { unacknowledged: self.unacknowledged })
    }

    async fn close(&mut self) {
        let best_effort = &mut self.best_effort;
        let drained = async { while best_effort.join_next().await.is_some() {} };
        if tokio::time::timeout(BEST_EFFORT_GRACE, drained).await.is_err() {
            warn!("best-effort sinks are behind; what they lack is not published there");
        }
        self.best_effort.shutdown().await;
        // From here on "down" is no news.
        self.watchers.shutdown().await;
        for sink in &self.sinks {
            if tokio::time::timeout(CLOSE_TIMEOUT, sink.sink.close()).await.is_err() {
                warn!(sink = %sink.name, "closing the sink takes too long; left as it is");
            }
        }
    }
}

fn spawn_lane(
    tasks: &mut JoinSet<TaskEnd>,
    best_effort: &mut JoinSet<()>,
    sink: &Arc<SinkHandle>,
    lane: Lane,
) {
    let name = sink.name.clone();
    if sink.required {
        tasks.spawn(async move { TaskEnd::Lane(name, lane.run().await) });
    } else {
        best_effort.spawn(async move {
            if let Err(fatal) = lane.run().await {
                error!(sink = %name, %fatal, "a best-effort sink can never publish again in this process");
            }
        });
    }
}

/// Why a bridge ends when a poller did.
pub(crate) fn poller_failure(source: &str, error: &PollerError) -> Failure {
    match error {
        PollerError::CredentialsRefused(_) => Failure::new(
            Exit::NoPerm,
            format!("source {source}: {error}"),
            "check client_id, client_secret, api_key and scope in [source.*.auth]",
        ),
        PollerError::Spool(_) | PollerError::State(_) => Failure::new(
            Exit::CantCreate,
            format!("source {source}: {error}"),
            "check the disk and the permissions of state.dir",
        ),
    }
}

/// The spool of a v2 source. What a v2 run has left in it exists nowhere else, and a v3 source does not look there.
///
/// # Errors
/// 73 where it cannot be opened, 78 for a v3 source that has left something in it.
fn spool(source: &config::Source, file: &Path) -> Result<Option<Spool>, Failure> {
    if source.api == Api::V3 && !file.exists() {
        return Ok(None);
    }
    let name = &source.name;
    let spool = Spool::open(file).map_err(|error| {
        Failure::new(
            Exit::CantCreate,
            format!("the spool of source {name} cannot be opened: {error}"),
            "check the disk of state.dir",
        )
    })?;
    if source.api == Api::V2 {
        return Ok(Some(spool));
    }
    match spool.entries(ApiVersion::V2).len() {
        0 => Ok(None),
        waiting => Err(Failure::new(
            Exit::Config,
            format!(
                "source {name} is of API v3 now, and {waiting} events of v2 wait in {} to be published",
                file.display()
            ),
            "run with api = \"v2\" until it is empty (docs/migration-v2-to-v3.md), or remove the file",
        )),
    }
}
