//! A running bridge: the real poller (without its network), source, lanes and backlogs, and a client per destination.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};
use std::{fs, io};

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use viaduct_poller::simulation::{Call, SimulatedPoller};
use viaduct_poller::{
    MemoryStore, NoObserver, Observation, Observer, SavedSession, SessionId, SessionStore, SourceSettings,
};
use viaduct_sink::{Batch, HealthReporter, HealthWatch, Outcome, Record, Sink};

use super::client::Client;
use super::vendor::ORG;
use crate::config::{Config, LoadInput, RefusedAfter, Template, load};
use crate::pipeline::backlog::Backlog;
use crate::pipeline::lane::{Lane, Tag};
use crate::pipeline::repeats::Repeats;
use crate::pipeline::source::{Categories, SinkLane, Slots, Source};
use crate::routing::{DeadLetterRoute, Naming, Router, event_name};
use crate::sinks::SinkHandle;
use crate::source_settings;
use crate::telemetry::Telemetry;

pub(super) const MAX_IN_FLIGHT: usize = 12;
pub(super) const MAX_EVENTS: u16 = 4;
/// The destinations: two brokers, and the local dead-letter file.
pub(super) const BROKERS: [&str; 3] = ["A", "B", "file"];
/// The lanes, each by its destination: the sinks, the dead letters, the last resort.
const LANES: [usize; 4] = [0, 1, 0, 2];
/// For how long a destination may be missing.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
[source.main]
api_url = "https://acme.example"
org_id = "acme"
max_events = 4
[source.main.auth]
token_url = "https://acme.example/token"
client_id = "id"
client_secret = "hunter2"
api_key = "key"
[[source.main.subscription]]
description = "all of it"
catalog_type = "changeNotification"
events = ["all"]
resource_type = "*"
[sink.A]
type = "kafka"
bootstrap_servers = "a:9092"
refused_after = "60s"
[sink.B]
type = "nats"
url = "nats://b:4222"
stream = "B"
refused_after = "never"
[[route]]
match = ["*"]
sink = "A"
to = "via.{category}"
key = ["interactionId"]
[[route]]
match = ["engagementCenter.*"]
sink = "B"
to = "bus.{category}"
key = ["interactionId"]
"#;

fn config() -> &'static Config {
    static LOADED: LazyLock<Config> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("viaduct.toml");
        fs::write(&file, CONFIG).expect("a file in it");
        let input = LoadInput { file: Some(file), ..LoadInput::default() };
        load(input).unwrap_or_else(|mistakes| panic!("{mistakes}")).config
    });
    &LOADED
}

/// A session on disk.
pub(super) type Disk = Arc<Mutex<Option<SavedSession>>>;

/// What the poller has told.
#[derive(Debug, Default)]
struct Told {
    forgotten: Vec<Arc<str>>,
    sessions: Vec<Option<Box<RawValue>>>,
}

#[derive(Debug, Clone)]
struct Ear {
    told: Arc<Mutex<Told>>,
    disk: Disk,
    claimed: Option<SavedSession>,
}

impl Ear {
    fn tell(&self, session: Option<&SavedSession>) {
        let text = session.map(|session| serde_json::value::to_raw_value(session).expect("it is JSON"));
        self.told.lock().expect("one thread").sessions.push(text);
    }
}

impl Observer for Ear {
    fn observe(&self, observation: Observation<'_>) {
        if let Observation::Forgotten { identity } = observation {
            let name = event_name(ORG, identity.id(), identity.hash());
            self.told.lock().expect("one thread").forgotten.push(name);
        }
    }
}

/// As the bridge's own store: the youngest session of those that the disk and the claims brought.
impl SessionStore for Ear {
    fn load(&mut self) -> io::Result<Option<SavedSession>> {
        let mut disk = self.disk.lock().expect("one thread");
        let on_disk = disk.clone();
        let youngest =
            self.claimed.clone().into_iter().chain(on_disk).max_by_key(|saved| saved.created_at_ms);
        disk.clone_from(&youngest);
        drop(disk);
        self.tell(youngest.as_ref());
        Ok(youngest)
    }

    fn save(&mut self, session: &SavedSession) -> io::Result<()> {
        // No clock but the world's: sessions are numbered.
        let number = session.session_id.as_str().trim_start_matches('s').parse().unwrap_or_default();
        let session = SavedSession { created_at_ms: number, ..session.clone() };
        self.tell(Some(&session));
        *self.disk.lock().expect("one thread") = Some(session);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.tell(None);
        *self.disk.lock().expect("one thread") = None;
        Ok(())
    }
}

/// The clients take the sinks' place: nothing is ever published here.
struct Elsewhere(HealthReporter);

#[async_trait]
impl Sink for Elsewhere {
    async fn publish(&self, _: Batch<'_>) -> Vec<Outcome> {
        unreachable!("the world publishes through its clients")
    }

    fn health(&self) -> HealthWatch {
        self.0.watch()
    }

    async fn close(&self) {}
}

/// A lane with what it keeps between two batches.
#[derive(Debug)]
struct Running {
    lane: Lane,
    backlog: Backlog,
    under_way: Option<(Vec<Tag>, Vec<Record>)>,
}

/// A call of the session lane that is under way.
#[derive(Debug)]
pub(super) struct CallUnderWay {
    pub(super) call: Call,
    pub(super) sent: Instant,
    pub(super) answer: Option<CallAnswer>,
}

/// How it was answered; nobody has heard yet.
#[derive(Debug)]
pub(super) enum CallAnswer {
    Expired,
    Created(SessionId),
    Subscribed(bool),
    Events(Vec<usize>),
    Done,
}

/// An acknowledgement that is under way.
#[derive(Debug)]
pub(super) struct AckUnderWay {
    pub(super) session: SessionId,
    pub(super) ids: Vec<Arc<str>>,
    /// What had come when it was sent.
    pub(super) known: HashSet<usize>,
    pub(super) answer: Option<Result<viaduct_poller::AcknowledgeAnswer, super::vendor::Expired>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) number: usize,
    /// `None` until the sources are claimed.
    pub(super) poller: Option<SimulatedPoller>,
    source: Source,
    slots: Slots,
    categories: Categories,
    lanes: Vec<Running>,
    pub(super) clients: Vec<Client>,
    ear: Ear,
    pub(super) call: Option<CallUnderWay>,
    pub(super) ack: Option<AckUnderWay>,
    pub(super) refreshing: Option<Instant>,
    pub(super) hold_until: Option<Instant>,
    pub(super) dead: HashSet<SessionId>,
    /// Events that have come, and the order in which they were handed out.
    pub(super) received: HashSet<usize>,
    pub(super) order: HashMap<Arc<str>, usize>,
    pub(super) frozen: bool,
    pub(super) stopping: bool,
    pub(super) wake: Option<Instant>,
}

/// What came of a look at everything that may go on.
pub(super) enum Progressed {
    Nothing,
    Something,
    /// A sink can never publish again: the process ends.
    Fenced,
}

impl Instance {
    pub(super) fn new(number: usize, disk: Disk, clients: Vec<Client>, letters_to_a: bool) -> Self {
        let config = config();
        let telemetry = Telemetry::new("viaduct");
        let name: Arc<str> = "main".into();
        let naming = [Naming::Kafka, Naming::Nats];
        let (reports, reports_of_lanes) = mpsc::unbounded_channel();
        let mut senders = Vec::new();
        let mut lanes = Vec::new();
        for broker in LANES {
            let refused_after = if broker == 0 { RefusedAfter::After(PATIENCE) } else { RefusedAfter::Never };
            let sink = Arc::new(Elsewhere(HealthReporter::new("a world of its own")));
            let sink = SinkHandle::new(BROKERS[broker], true, refused_after, sink);
            let (sender, lane) = Lane::new(name.clone(), sink, None, reports.clone(), telemetry.clone());
            senders.push(sender);
            lanes.push(Running { lane, backlog: Backlog::new(refused_after), under_way: None });
        }
        let local = DeadLetterRoute::local(&name, ORG);
        let letters = Template::parse("via.dead-letter").expect("a template");
        let (dead_letters, dead_letter_route) = if letters_to_a {
            (senders[2].clone(), DeadLetterRoute::sink(&name, ORG, &letters, Naming::Kafka))
        } else {
            (senders[3].clone(), local.clone())
        };
        let sink_lane = |sink: usize| SinkLane {
            sender: senders[sink].clone(),
            required: true,
            sink: BROKERS[sink].into(),
        };
        let ear = Ear { told: Arc::default(), disk, claimed: None };
        // Replaced by the poller's own when that starts.
        let store = Box::new(MemoryStore::default());
        let (_, deliveries) =
            SimulatedPoller::new(settings(), Arc::new(NoObserver), store, || 0.5).expect("it is memory");
        let source = Source {
            name: name.clone(),
            deliveries,
            router: Router::new(&name, ORG, "via://acme", &config.routes, &naming),
            lanes: vec![sink_lane(0), sink_lane(1)],
            dead_letters,
            dead_letter_route,
            last_resort: senders[3].clone(),
            last_resort_route: local,
            reports: reports_of_lanes,
            telemetry,
            masks: None,
            reloads: mpsc::unbounded_channel().1,
            validator: None,
            repeats: Repeats::default(),
        };
        Self {
            number,
            poller: None,
            source,
            slots: Slots::default(),
            categories: Categories::default(),
            lanes,
            clients,
            ear,
            call: None,
            ack: None,
            refreshing: None,
            hold_until: None,
            dead: HashSet::new(),
            received: HashSet::new(),
            order: HashMap::new(),
            frozen: false,
            stopping: false,
            wake: None,
        }
    }

    /// Whether the client may claim now: one sink after the other.
    pub(super) fn may_ask(&self, client: usize) -> bool {
        self.clients[..client].iter().all(|before| before.claimed().is_some())
    }

    /// Starts the poller once all sinks are claimed.
    pub(super) fn start(&mut self) -> bool {
        if self.poller.is_some() || self.clients.iter().any(|client| client.claimed().is_none()) {
            return false;
        }
        let claimed = self.clients.iter().filter_map(|client| client.claimed().flatten());
        let claimed = claimed.map(|text| serde_json::from_str::<SavedSession>(text.get()).expect("its own"));
        self.ear.claimed = claimed.max_by_key(|saved| saved.created_at_ms);
        let mut jitter = 0.3;
        let jitter = move || {
            jitter = (jitter * 7.3) % 1.0;
            jitter
        };
        let (observer, store) = (Arc::new(self.ear.clone()), Box::new(self.ear.clone()));
        let (poller, deliveries) =
            SimulatedPoller::new(settings(), observer, store, jitter).expect("the disk is memory");
        self.poller = Some(poller);
        self.source.deliveries = deliveries;
        true
    }

    /// Lets everything go on that needs nobody else: deliveries to the source, records to the lanes and the clients,
    /// outcomes back to the lanes, reports to the source.
    pub(super) fn work(&mut self, now: Instant) -> Progressed {
        let mut something = false;
        while let Some(deliveries) = self.source.deliveries.try_next() {
            for delivery in &deliveries.items {
                let identity = delivery.entry.identity();
                let place = self.order.len();
                self.order.entry(event_name(ORG, identity.id(), identity.hash())).or_insert(place);
            }
            self.source.dispatch(deliveries, &mut self.slots, &mut self.categories);
            something = true;
        }
        for (number, running) in self.lanes.iter_mut().enumerate() {
            if running.under_way.is_some() {
                continue;
            }
            let (batch, _) = running.lane.next_batch(&mut running.backlog, now);
            if !batch.is_empty() {
                let (tags, records): (Vec<_>, Vec<_>) = batch.into_iter().map(Tag::split).unzip();
                self.clients[LANES[number]].publish(number, records.clone());
                running.under_way = Some((tags, records));
                something = true;
            }
        }
        for client in &mut self.clients {
            for (lane, outcomes) in client.take_done() {
                let running = &mut self.lanes[lane];
                let Some((tags, records)) = running.under_way.take() else { panic!("nothing was published") };
                let settled = running.lane.settle(tags, records, outcomes, &mut running.backlog, now, 0.5);
                if settled.is_err() {
                    return Progressed::Fenced;
                }
                something = true;
            }
        }
        while let Ok(reports) = self.source.reports.try_recv() {
            self.source.account(reports, &mut self.slots);
            something = true;
        }
        let mut told = self.ear.told.lock().expect("one thread");
        for name in told.forgotten.drain(..) {
            self.clients.iter_mut().for_each(|client| client.forget(&name));
        }
        for session in told.sessions.drain(..) {
            self.clients.iter_mut().for_each(|client| client.set_session(session.clone()));
        }
        if something { Progressed::Something } else { Progressed::Nothing }
    }

    /// When a lane wants to try again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|running| running.backlog.next_try()).min()
    }

    /// Records in memory.
    pub(super) fn records(&self) -> usize {
        let count = |running: &Running| {
            running.backlog.len() + running.under_way.as_ref().map_or(0, |(tags, _)| tags.len())
        };
        self.lanes.iter().map(count).sum()
    }
}

fn settings() -> SourceSettings {
    // Less than a configuration may say, so that it is full soon.
    SourceSettings { max_in_flight: MAX_IN_FLIGHT, ..source_settings::of(&config().sources[0]) }
}
