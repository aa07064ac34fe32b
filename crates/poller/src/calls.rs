//! The calls that the state machine asks for, as futures with owned parts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{AcknowledgeAnswer, GrantedSession, VendorClient};
use crate::event::Entry;
use crate::failure::{CallError, FailureKind};
use crate::observe::Operation;
use crate::parse::{Completeness, parse};
use crate::settings::ApiVersion;
use crate::spool::{Spool, SpoolError, Spooled, Waiting};
use crate::store::SessionId;
use crate::subscriptions::{SubscriptionChange, plan_subscriptions};
use crate::token::Access;

pub(crate) type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The end of a call of the session lane.
pub(crate) enum Outcome {
    Created(Result<GrantedSession, CallError>),
    Listed(Result<Vec<SubscriptionChange>, CallError>),
    Changed(Result<(), CallError>),
    Polled(Result<Response, CallError>),
    Deleted(Result<(), CallError>),
}

/// What a GET brought.
pub(crate) struct Response {
    pub(crate) session: SessionId,
    pub(crate) entries: Vec<Entry>,
    /// Where it stands in the spool (v2, unless it is empty).
    pub(crate) spooled: Option<Waiting>,
    pub(crate) took: Duration,
}

/// A v2 response that came and could not be spooled yet. It exists nowhere else.
#[derive(Clone)]
pub(crate) struct Unspooled {
    session: SessionId,
    body: Arc<Vec<u8>>,
    torn: bool,
    entries: usize,
}

/// Shared with the poll under way, so that what it received survives its failure.
pub(crate) type Pending = Arc<std::sync::Mutex<Option<Unspooled>>>;

/// What calls are made of.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) client: VendorClient,
    pub(crate) declared: Arc<[crate::settings::Subscription]>,
    pub(crate) prune: bool,
    pub(crate) api: ApiVersion,
    pub(crate) spool: Option<Arc<Spool>>,
    pub(crate) pending: Pending,
}

impl Calls {
    pub(crate) fn create(&self, access: Access) -> Call<Outcome> {
        let client = self.client.clone();
        Box::pin(async move { Outcome::Created(client.create_session(&access).await) })
    }

    pub(crate) fn list(&self, access: Access, session: SessionId) -> Call<Outcome> {
        let (client, declared, prune) = (self.client.clone(), self.declared.clone(), self.prune);
        Box::pin(async move {
            let listed = client.list_subscriptions(&access, &session).await;
            Outcome::Listed(listed.map(|actual| plan_subscriptions(&declared, &actual, prune)))
        })
    }

    pub(crate) fn change(
        &self,
        access: Access,
        session: SessionId,
        change: SubscriptionChange,
    ) -> Call<Outcome> {
        let (client, declared) = (self.client.clone(), self.declared.clone());
        Box::pin(async move {
            Outcome::Changed(client.change_subscription(&access, &session, &declared, &change).await)
        })
    }

    pub(crate) fn delete(&self, access: Access, session: SessionId) -> Call<Outcome> {
        let client = self.client.clone();
        Box::pin(async move { Outcome::Deleted(client.delete_session(&access, &session).await) })
    }

    pub(crate) fn acknowledge(
        &self,
        access: Access,
        session: SessionId,
        ids: Vec<Arc<str>>,
    ) -> Call<Acknowledgement> {
        let client = self.client.clone();
        Box::pin(async move {
            let result = client.acknowledge(&access, &session, &ids).await;
            Acknowledgement { session, ids, result }
        })
    }

    /// A GET; for v2 it ends when the response is spooled.
    pub(crate) fn poll(&self, access: Access, session: SessionId, max_events: u16) -> Call<Outcome> {
        let calls = self.clone();
        Box::pin(async move { Outcome::Polled(calls.poll_now(&access, session, max_events).await) })
    }

    async fn poll_now(
        &self,
        access: &Access,
        session: SessionId,
        max_events: u16,
    ) -> Result<Response, CallError> {
        let started = Instant::now();
        // What came before and could not be written goes first.
        if let Some(unspooled) = self.kept() {
            let spooled = self.spool_pending().await.map_err(|error| spool_error(&error))?;
            let spooled_as = Spooled {
                session: unspooled.session,
                torn: unspooled.torn,
                body: unspooled.body.as_ref().clone(),
            };
            if let Some((session, entries)) = entries_of(spooled_as, self.api) {
                return Ok(Response { session, entries, spooled, took: started.elapsed() });
            }
        }
        let answer = self.client.events(access, &session, max_events).await?;
        let received_at = Instant::now();
        let took = started.elapsed();
        if self.api == ApiVersion::V3 {
            let entries =
                parse(answer.body, self.api, received_at, Completeness::Whole).map_err(unreadable)?;
            return Ok(Response { session, entries, spooled: None, took });
        }
        let completeness = if answer.torn.is_some() { Completeness::Cut } else { Completeness::Whole };
        let entries = parse(answer.body.clone(), self.api, received_at, completeness);
        let entries = match (entries, answer.torn) {
            (Ok(entries), _) if !entries.is_empty() => entries,
            (_, Some(torn)) => return Err(torn),
            (entries, None) => {
                let entries = entries.map_err(unreadable)?;
                return Ok(Response { session, entries, spooled: None, took });
            }
        };
        let torn = completeness == Completeness::Cut;
        let body = Arc::new(answer.body);
        self.keep(Some(Unspooled { session: session.clone(), body, torn, entries: entries.len() }));
        let spooled = self.spool_pending().await.map_err(|error| spool_error(&error))?;
        Ok(Response { session, entries, spooled, took })
    }

    /// Writes the response that is not yet on disk, if there is one.
    pub(crate) async fn spool_pending(&self) -> Result<Option<Waiting>, SpoolError> {
        let (Some(spool), Some(unspooled)) = (&self.spool, self.kept()) else { return Ok(None) };
        let Unspooled { session, body, torn, entries } = unspooled;
        let waiting = spool.append(session, entries, torn, body).await?;
        self.keep(None);
        Ok(Some(waiting))
    }

    fn kept(&self) -> Option<Unspooled> {
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn keep(&self, unspooled: Option<Unspooled>) {
        *self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = unspooled;
    }

    /// Reads a response back from the spool.
    pub(crate) fn read_back(&self, spool: &Arc<Spool>, turn: Waiting) -> Call<ReadBack> {
        let (spool, api) = (spool.clone(), self.api);
        Box::pin(async move {
            let result =
                spool.read(turn.number).await.map(|spooled| spooled.and_then(|s| entries_of(s, api)));
            ReadBack { turn, result }
        })
    }

    /// Lets go of responses in the spool.
    pub(crate) fn remove(&self, spool: &Arc<Spool>, numbers: Vec<u64>) -> Call<Removed> {
        let spool = spool.clone();
        Box::pin(async move {
            let result = spool.remove(numbers.clone()).await;
            Removed { numbers, result }
        })
    }
}

/// The end of an acknowledgement.
pub(crate) struct Acknowledgement {
    pub(crate) session: SessionId,
    pub(crate) ids: Vec<Arc<str>>,
    pub(crate) result: Result<AcknowledgeAnswer, CallError>,
}

/// A spooled response, read back; `None` where it is no longer what was written.
pub(crate) struct ReadBack {
    pub(crate) turn: Waiting,
    pub(crate) result: Result<Option<(SessionId, Vec<Entry>)>, SpoolError>,
}

/// Responses that left the spool, or did not.
pub(crate) struct Removed {
    pub(crate) numbers: Vec<u64>,
    pub(crate) result: Result<(), SpoolError>,
}

fn entries_of(spooled: Spooled, api: ApiVersion) -> Option<(SessionId, Vec<Entry>)> {
    let session = spooled.session.clone();
    Some((session, spooled.entries(api)?))
}

fn spool_error(error: &SpoolError) -> CallError {
    CallError {
        operation: Operation::Events,
        kind: FailureKind::Spool,
        retry_after: None,
        detail: error.to_string(),
    }
}

fn unreadable(error: crate::parse::Unreadable) -> CallError {
    CallError {
        operation: Operation::Events,
        kind: FailureKind::Unreadable,
        retry_after: None,
        detail: error.to_string(),
    }
}
