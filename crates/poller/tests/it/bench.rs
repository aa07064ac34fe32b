//! A simulator, a poller on it, and a consumer that remembers everything.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use viaduct_poller::{
    AckToken, ApiVersion, AuthSettings, ClientAuth, Crowd, DeliveryStream, DurabilityProof, Entry, Finished,
    MemoryStore, Observation, Observer, OnShutdown, Parts, Poller, PollerError, RealmIn, RetrySettings,
    SavedSession, Secret, SessionSettings, SessionStore, SourceSettings, SourceStatus, Spool, Subscription,
    TlsSettings,
};
use viaduct_simulator::{Rate, Running, Settings, Simulator};

/// Every wait of the tests ends here: far beyond what is needed, short enough to see what hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

/// The consumer's word that it has kept an event.
pub(crate) struct Kept;
impl DurabilityProof for Kept {}

/// A simulator with everything in its queue from the start.
pub(crate) fn simulated(total: u64) -> Settings {
    Settings {
        rate: Rate::Unlimited,
        total: Some(total),
        hold: Duration::from_millis(300),
        redelivery_delay: Duration::from_millis(100),
        ..Settings::default()
    }
}

/// Settings that fit a simulator.
pub(crate) fn settings(simulator: &Running) -> SourceSettings {
    SourceSettings {
        name: "test".to_owned(),
        api_url: simulator.url().parse().unwrap(),
        org_id: "acme".to_owned(),
        api: ApiVersion::V3,
        max_events: 50,
        max_in_flight: 500,
        auth: AuthSettings {
            token_url: simulator.token_url().parse().unwrap(),
            client_id: Secret::literal("client"),
            client_secret: Secret::literal("canary-secret"),
            api_key: Secret::literal("canary-key"),
            scope: "streamingapi".to_owned(),
            realm: None,
            realm_in: RealmIn::Form,
            client_auth: ClientAuth::Basic,
        },
        tls: TlsSettings::default(),
        session: SessionSettings {
            inactivity_delay: Duration::from_secs(60),
            resume: true,
            on_shutdown: OnShutdown::Keep,
            poll_timeout: Duration::from_millis(300),
            properties: BTreeMap::new(),
            end_events: vec![],
        },
        subscriptions: vec![],
        prune: false,
        retry: RetrySettings { initial: Duration::from_millis(5), max: Duration::from_millis(50) },
    }
}

pub(crate) fn subscription(description: &str, catalog_type: &str, events: &[&str]) -> Subscription {
    Subscription {
        description: description.to_owned(),
        catalog_type: catalog_type.to_owned(),
        events: events.iter().map(ToString::to_string).collect(),
        resource_type: "users".to_owned(),
        resource_ids: vec![],
    }
}

/// Counts observations by their `Debug` name, and checks that times are sane.
#[derive(Debug, Default)]
pub(crate) struct Counts(Mutex<HashMap<String, usize>>);

impl Counts {
    pub(crate) fn get(&self, name: &str) -> usize {
        self.0.lock().unwrap().get(name).copied().unwrap_or(0)
    }
}

impl Observer for Counts {
    fn observe(&self, observation: Observation<'_>) {
        let (name, count) = match observation {
            Observation::Request { operation, .. } => (format!("request {}", operation.as_str()), 1),
            Observation::SessionCreated { cause } => (format!("created {}", cause.as_str()), 1),
            Observation::Received { redelivered, count, .. } => (format!("received {redelivered}"), count),
            Observation::AcknowledgeNotFound { count } => ("not found".to_owned(), count),
            Observation::Acknowledged { count, .. } => ("acknowledged".to_owned(), count),
            other => (format!("{other:?}"), 1),
        };
        *self.0.lock().unwrap().entry(name).or_default() += count;
    }
}

/// A store that survives its poller.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStore(Arc<Mutex<MemoryStore>>);

impl SessionStore for SharedStore {
    fn load(&mut self) -> std::io::Result<Option<SavedSession>> {
        self.0.lock().unwrap().load()
    }
    fn save(&mut self, session: &SavedSession) -> std::io::Result<()> {
        self.0.lock().unwrap().save(session)
    }
    fn clear(&mut self) -> std::io::Result<()> {
        self.0.lock().unwrap().clear()
    }
}

/// What the consumer has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Ids and hashes in the order of delivery.
    pub(crate) entries: Vec<(String, u128)>,
    pub(crate) malformed: Vec<(Option<String>, String)>,
    pub(crate) unsettled: usize,
    pub(crate) most_unsettled: usize,
}

/// A poller that runs.
pub(crate) struct Polling {
    pub(crate) stop: CancellationToken,
    pub(crate) status: watch::Receiver<SourceStatus>,
    pub(crate) seen: Arc<Mutex<Seen>>,
    pub(crate) counts: Arc<Counts>,
    run: JoinHandle<Result<Finished, PollerError>>,
    consumer: JoinHandle<()>,
}

/// How the consumer settles: it is called with every token and decides.
pub(crate) type Settle = Box<dyn FnMut(&Entry, AckToken) + Send>;

/// Acknowledges at once.
pub(crate) fn at_once() -> Settle {
    Box::new(|_, token| token.acknowledge(Kept))
}

impl Polling {
    pub(crate) fn start(settings: SourceSettings) -> Self {
        Self::with(settings, SharedStore::default(), None, at_once())
    }

    pub(crate) fn with(
        settings: SourceSettings,
        store: SharedStore,
        spool: Option<Spool>,
        settle: Settle,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        let parts =
            Parts { store: Box::new(store), observer: counts.clone(), spool, crowd: Crowd::default() };
        let (poller, stream) = Poller::new(settings, parts).unwrap();
        let (stop, status) = (CancellationToken::new(), poller.status());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let run = tokio::spawn(poller.run(stop.clone()));
        let consumer = tokio::spawn(consume(stream, seen.clone(), settle));
        Self { stop, status, seen, counts, run, consumer }
    }

    pub(crate) fn received(&self) -> usize {
        self.seen.lock().unwrap().entries.len()
    }

    /// Ids in the order of delivery.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.seen.lock().unwrap().entries.iter().map(|(id, _)| id.clone()).collect()
    }

    pub(crate) async fn stop(self) -> Result<Finished, PollerError> {
        self.stop.cancel();
        self.end().await
    }

    pub(crate) async fn end(self) -> Result<Finished, PollerError> {
        let ended = tokio::time::timeout(DEADLINE, self.run).await.expect("it never ends").unwrap();
        tokio::time::timeout(DEADLINE, self.consumer).await.expect("its stream never ends").unwrap();
        ended
    }

    /// Ends as kill -9 does: nothing is finished, nobody is asked.
    pub(crate) async fn kill(self) {
        self.run.abort();
        self.consumer.abort();
        let _ = self.run.await;
        let _ = self.consumer.await;
    }
}

async fn consume(mut stream: DeliveryStream, seen: Arc<Mutex<Seen>>, mut settle: Settle) {
    while let Some(deliveries) = stream.next().await {
        assert!(!deliveries.items.is_empty());
        for delivery in deliveries.items {
            {
                let mut seen = seen.lock().unwrap();
                seen.unsettled += 1;
                seen.most_unsettled = seen.most_unsettled.max(seen.unsettled);
                match &delivery.entry {
                    Entry::Event(event) => {
                        seen.entries.push((event.id().to_owned(), event.content_hash().as_u128()));
                    }
                    Entry::Malformed(malformed) => {
                        seen.malformed
                            .push((malformed.id().map(str::to_owned), malformed.detail().to_owned()));
                    }
                }
            }
            settle(&delivery.entry, delivery.token);
            seen.lock().unwrap().unsettled -= 1;
        }
    }
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until the vendor holds nothing any more.
pub(crate) async fn until_acknowledged(simulator: &Running, total: u64) {
    let control = simulator.control();
    until(&format!("{total} acknowledged"), || {
        let report = control.report();
        report.acknowledged + report.lost >= total
    })
    .await;
}

pub(crate) async fn start(settings: Settings) -> Running {
    Simulator::start(settings).await.unwrap()
}

/// The order of delivery is the order in which the vendor first gave the events out.
pub(crate) fn assert_vendor_order(simulator: &Running, ids: &[String]) {
    let mut journal: Vec<_> = simulator
        .control()
        .events(0, usize::MAX)
        .into_iter()
        .filter_map(|event| Some((event.first_delivery?.order, event.event_id?)))
        .collect();
    journal.sort();
    let first: Vec<_> = journal.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, first);
}
