//! The poller: made of settings and parts, run until it is stopped.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::calls::Calls;
use crate::client::VendorClient;
use crate::crowd::Crowd;
use crate::delivery::{Deliveries, DeliveryStream, Ends};
use crate::error::{BuildError, Finished, PollerError};
use crate::kernel::Kernel;
use crate::observe::Observer;
use crate::run::{Run, jitter};
use crate::settings::{ApiVersion, SourceSettings};
use crate::spool::Spool;
use crate::status::SourceStatus;
use crate::store::SessionStore;
use crate::tell::Teller;

/// What a poller is made of beside its settings.
pub struct Parts {
    /// Where the session is kept between runs; [`MemoryStore`](crate::MemoryStore) where nothing is resumed.
    pub store: Box<dyn SessionStore>,
    /// Is told what happens.
    pub observer: Arc<dyn Observer>,
    /// Where v2 responses are kept until they are durable elsewhere. v2 needs one, v3 has no use for it.
    pub spool: Option<Spool>,
    /// The sources that it shares its process with.
    pub crowd: Crowd,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("spool", &self.spool).finish_non_exhaustive()
    }
}

/// Keeps the session of one source alive, polls it, and acknowledges what is durable.
pub struct Poller {
    settings: Arc<SourceSettings>,
    parts: Parts,
    client: VendorClient,
    deliveries: mpsc::UnboundedSender<Box<Deliveries>>,
    status: watch::Sender<SourceStatus>,
}

impl Poller {
    /// A poller and the stream of what it will hand out. Nothing is called yet.
    ///
    /// # Errors
    /// Settings out of range, a v2 source without a spool, or no HTTP client can be set up.
    pub fn new(settings: SourceSettings, parts: Parts) -> Result<(Self, DeliveryStream), BuildError> {
        settings.check()?;
        if settings.api == ApiVersion::V2 && parts.spool.is_none() {
            return Err(BuildError::SpoolMissing);
        }
        let client = VendorClient::new(settings.clone(), parts.observer.clone())?;
        // Boxed: a channel of tokio's keeps room for 32 of what it carries.
        let (deliveries, receiver) = mpsc::unbounded_channel();
        let (status, _) = watch::channel(SourceStatus::default());
        let poller = Self { settings: Arc::new(settings), parts, client, deliveries, status };
        Ok((poller, DeliveryStream::new(receiver)))
    }

    /// What the poller is doing, kept up to date while it runs.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<SourceStatus> {
        self.status.subscribe()
    }

    /// Runs until `stop` is cancelled (or the [`DeliveryStream`] dropped, or an end event acknowledged).
    ///
    /// The end has an order: polling stops (a v3 GET is dropped, its events come again; a v2 GET comes to its end) → the
    /// stream ends behind what was handed out → every token is settled → acknowledgements go out → the session is kept
    /// or deleted. There is no time limit in it: dropping the future is the way to give up, and loses nothing but
    /// acknowledgements.
    ///
    /// # Errors
    /// The credentials are refused at the start, the saved session cannot be read, or (v2) a response that the vendor
    /// does not hold any more could not be written to the spool before the end. Everything else is waited out.
    pub async fn run(self, stop: CancellationToken) -> Result<Finished, PollerError> {
        let Self { settings, parts, client, deliveries, status } = self;
        let Parts { store, observer, spool, crowd } = parts;
        let spool = spool.filter(|_| settings.api == ApiVersion::V2).map(Arc::new);
        let teller =
            Teller::new(&settings, observer, store).map_err(|error| PollerError::State(error.to_string()))?;
        let ends = Arc::new(Ends::default());
        let waiting = spool.as_ref().map_or(&[][..], |spool| spool.waiting());
        let tokens = client.token_provider();
        let calls = Calls {
            client,
            declared: settings.subscriptions.clone().into(),
            prune: settings.prune,
            api: settings.api,
            spool: spool.clone(),
            pending: Arc::default(),
        };
        let run = Box::new(Run {
            kernel: Kernel::new(settings, teller, crowd, jitter(), deliveries, ends.clone(), waiting),
            calls,
            tokens,
            spool,
            ends,
            status,
            access: None,
            lane: None,
            acknowledging: None,
            refreshing: None,
            reading: None,
            removing: None,
            done: Vec::new(),
            spool_rest: None,
            stopping: false,
            gives_way: false,
        });
        run.run(stop).await
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("settings", &self.settings).finish_non_exhaustive()
    }
}
