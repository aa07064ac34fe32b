//! The vendor: sessions, what it gives out, and what it forgets.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use viaduct_poller::{AcknowledgeAnswer, ApiVersion, Entry, SessionId, parse_response};

use crate::routing::event_name;

pub(super) const ORG: &str = "acme";
/// The inactivity delay of every session.
pub(super) const DELAY: Duration = Duration::from_secs(120);

/// What a GET returns of events that it returned before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Redelivery {
    /// What is new, and only where nothing is, what is not acknowledged.
    NewThenPending,
    /// Always the oldest that are not acknowledged.
    FromHead,
}

/// What becomes of delivered events that are not acknowledged when their session dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterDeath {
    SameId,
    NewId,
    Lost,
}

/// What is special about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Good,
    /// Its id is that of the event before, its content is not.
    SameIdAsBefore,
    WithoutId,
    /// No destination takes it, the dead letters do.
    Odd,
    /// No broker takes it at all.
    Huge,
}

/// An event that the vendor emitted.
#[derive(Debug)]
pub(super) struct Emission {
    id: String,
    payload: String,
    event_type: &'static str,
    pub(super) kind: Kind,
    /// The bridge's name for it.
    pub(super) name: Arc<str>,
    /// Only one of the sinks gets it.
    pub(super) narrow: bool,
    pub(super) acknowledged: bool,
    /// The vendor itself lost it.
    pub(super) lost: bool,
}

impl Emission {
    fn json(&self) -> String {
        let Self { id, payload, event_type, .. } = self;
        let id = if self.kind == Kind::WithoutId { String::new() } else { format!(r#""eventId":"{id}","#) };
        let payload = payload.replace('"', "\\\"");
        format!(
            r#"{{{id}"eventType":"{event_type}","publishedTime":"2018-01-30T14:04:20.539Z","payload":"{payload}"}}"#
        )
    }
}

#[derive(Debug)]
struct Session {
    id: SessionId,
    alive: bool,
    subscribed: bool,
    touched: Instant,
    /// Delivered and not acknowledged.
    pending: Vec<usize>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Vendor {
    redelivery: Redelivery,
    after_death: AfterDeath,
    first_id: u64,
    pub(super) emitted: Vec<Emission>,
    /// Not delivered.
    queue: VecDeque<usize>,
    sessions: Vec<Session>,
}

/// "Invalid or expired session"
#[derive(Debug)]
pub(super) struct Expired;

impl Vendor {
    pub(super) fn new(redelivery: Redelivery, after_death: AfterDeath) -> Self {
        // Ids grow from one history to the next, as they do from one day to the next.
        static MILLISECONDS: AtomicU64 = AtomicU64::new(1_517_321_060_539);
        let first_id = MILLISECONDS.fetch_add(1, Ordering::Relaxed);
        Self {
            redelivery,
            after_death,
            first_id,
            emitted: Vec::new(),
            queue: VecDeque::new(),
            sessions: Vec::new(),
        }
    }

    pub(super) fn emit(&mut self, kind: Kind, key: u8, narrow: bool) -> usize {
        let number = self.emitted.len();
        let id = match (kind, self.emitted.last()) {
            (Kind::SameIdAsBefore, Some(before)) if before.kind != Kind::WithoutId => before.id.clone(),
            _ => format!("{}-{number}", self.first_id),
        };
        let note = match kind {
            Kind::Odd => r#","note":"odd""#,
            Kind::Huge => r#","note":"huge""#,
            _ => "",
        };
        let payload = format!(r#"{{"interactionId":"k{key}","n":{number}{note}}}"#);
        self.add(id, payload, kind, narrow);
        self.queue.push_back(number);
        number
    }

    fn add(&mut self, id: String, payload: String, kind: Kind, narrow: bool) {
        let event_type = if narrow { "outreach.Call" } else { "engagementCenter.ScreenPop" };
        let mut emission = Emission {
            id,
            payload,
            event_type,
            kind,
            name: Arc::default(),
            narrow,
            acknowledged: false,
            lost: false,
        };
        let [entry] = &parse(&[emission.json()])[..] else { panic!("one event is one entry") };
        let identity = entry.identity();
        emission.name = event_name(ORG, identity.id(), identity.hash());
        self.emitted.push(emission);
    }

    pub(super) fn create(&mut self, now: Instant) -> SessionId {
        let id = SessionId::from(format!("s{}", self.sessions.len() + 1).as_str());
        let session =
            Session { id: id.clone(), alive: true, subscribed: false, touched: now, pending: Vec::new() };
        self.sessions.push(session);
        id
    }

    fn session(&mut self, id: &SessionId) -> Result<&mut Session, Expired> {
        self.sessions.iter_mut().find(|session| session.id == *id && session.alive).ok_or(Expired)
    }

    pub(super) fn is_subscribed(&mut self, id: &SessionId) -> Result<bool, Expired> {
        self.session(id).map(|session| session.subscribed)
    }

    pub(super) fn subscribe(&mut self, id: &SessionId) -> Result<(), Expired> {
        self.session(id).map(|session| session.subscribed = true)
    }

    /// The numbers of the events that a GET returns.
    pub(super) fn get(&mut self, id: &SessionId, max: usize, now: Instant) -> Result<Vec<usize>, Expired> {
        let redelivery = self.redelivery;
        let at =
            self.sessions.iter().position(|session| session.id == *id && session.alive).ok_or(Expired)?;
        let (session, queue) = (&mut self.sessions[at], &mut self.queue);
        session.touched = now;
        let mut fresh =
            |count: usize| -> Vec<usize> { queue.drain(..count.min(queue.len()).min(max)).collect() };
        if !session.subscribed {
            return Ok(Vec::new());
        }
        let returned: Vec<usize> = match redelivery {
            Redelivery::NewThenPending => {
                let fresh = fresh(max);
                if fresh.is_empty() {
                    session.pending.iter().copied().take(max).collect()
                } else {
                    session.pending.extend(&fresh);
                    fresh
                }
            }
            Redelivery::FromHead => {
                let missing = max.saturating_sub(session.pending.len());
                session.pending.extend(fresh(missing));
                session.pending.iter().copied().take(max).collect()
            }
        };
        Ok(returned)
    }

    /// The entries of a response with these events.
    pub(super) fn entries(&self, numbers: &[usize]) -> Vec<Entry> {
        let texts: Vec<String> = numbers.iter().map(|number| self.emitted[*number].json()).collect();
        parse(&texts)
    }

    /// What is delivered in the session and not acknowledged, of these ids.
    pub(super) fn pending_of(&self, id: &SessionId, ids: &[Arc<str>]) -> Vec<usize> {
        let session = self.sessions.iter().find(|session| session.id == *id && session.alive);
        let pending = session.into_iter().flat_map(|session| &session.pending);
        let asked = |number: &&usize| ids.iter().any(|id| **id == *self.emitted[**number].id);
        pending.filter(asked).copied().collect()
    }

    /// `known`: the events that whoever acknowledges has seen. Another content of an id that is still on its way to it is
    /// acknowledged along, and so lost by the vendor.
    pub(super) fn acknowledge(
        &mut self,
        id: &SessionId,
        ids: &[Arc<str>],
        known: &HashSet<usize>,
    ) -> Result<AcknowledgeAnswer, Expired> {
        self.session(id)?;
        let gone = self.pending_of(id, ids);
        let mut answer = AcknowledgeAnswer::default();
        for number in &gone {
            let emission = &mut self.emitted[*number];
            emission.acknowledged = true;
            emission.lost |= !known.contains(number);
            answer.acknowledged.insert(emission.id.clone());
        }
        self.session(id)?.pending.retain(|number| !gone.contains(number));
        answer.not_found = ids.iter().map(ToString::to_string).collect();
        answer.not_found.retain(|id| !answer.acknowledged.contains(id));
        Ok(answer)
    }

    /// Sessions without a GET for too long die.
    pub(super) fn pass(&mut self, now: Instant) -> Vec<SessionId> {
        let late = |session: &&Session| session.alive && now >= session.touched + DELAY;
        let late: Vec<SessionId> =
            self.sessions.iter().filter(late).map(|session| session.id.clone()).collect();
        for id in &late {
            self.kill(id);
        }
        late
    }

    /// When the next session dies of inactivity.
    pub(super) fn next_death(&self) -> Option<Instant> {
        self.sessions.iter().filter(|session| session.alive).map(|session| session.touched + DELAY).min()
    }

    /// The youngest session that lives.
    pub(super) fn youngest(&self) -> Option<SessionId> {
        self.sessions.iter().rev().find(|session| session.alive).map(|session| session.id.clone())
    }

    pub(super) fn kill(&mut self, id: &SessionId) {
        let Ok(session) = self.session(id) else { return };
        session.alive = false;
        let pending = std::mem::take(&mut session.pending);
        for number in pending.into_iter().rev() {
            match self.after_death {
                AfterDeath::SameId => self.queue.push_front(number),
                AfterDeath::Lost => self.emitted[number].lost = true,
                AfterDeath::NewId => {
                    let again = self.emitted.len();
                    let before = &mut self.emitted[number];
                    before.lost = true;
                    let (payload, kind, narrow) = (before.payload.clone(), before.kind, before.narrow);
                    let kind = if kind == Kind::SameIdAsBefore { Kind::Good } else { kind };
                    self.add(format!("{}-{again}", self.first_id), payload, kind, narrow);
                    self.queue.push_front(again);
                }
            }
        }
    }
}

fn parse(texts: &[String]) -> Vec<Entry> {
    let body = format!(r#"{{"events":[{}]}}"#, texts.join(","));
    parse_response(body.into_bytes(), ApiVersion::V3, Instant::now()).expect("the vendor sends JSON")
}
