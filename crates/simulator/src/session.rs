//! Streaming sessions: who is alive, who is not, and who was told so.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::conduct::Told;
use crate::generator::uuid;
use crate::organisation::Inbox;
use crate::report::SessionReport;
use crate::subscription::Subscription;

/// Ids that were never given out are remembered up to this many.
const STRANGERS: usize = 10_000;

/// The version of the API in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V2,
    V3,
}

impl Version {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// A live session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) version: Version,
    pub(crate) require_acknowledgement: bool,
    /// Without a GET /events for this long, the session ends.
    pub(crate) inactivity: Duration,
    last_get: Instant,
    pub(crate) inbox: Inbox,
    pub(crate) subscriptions: BTreeMap<String, Subscription>,
    /// GET /events under way, by serial number.
    pub(crate) in_flight: Vec<u64>,
    /// GETs that came while another was under way: the other one, when, and the case of misbehaviour it was noted as.
    pub(crate) overlaps: Vec<(u64, Instant, u64)>,
    record: usize,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Expired,
    Deleted,
}

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    live: HashMap<String, Session>,
    /// Ids that are not alive, with when the client was first told.
    dead: HashMap<String, Option<Told>>,
    records: Vec<SessionReport>,
    pub(crate) expired: u64,
    pub(crate) deleted: u64,
    next_expiry: Option<Instant>,
}

impl Sessions {
    /// Creates a session; its id is random, never from the seed: a restarted simulator must not know an old one.
    pub(crate) fn create(
        &mut self,
        version: Version,
        require_acknowledgement: bool,
        inactivity: Duration,
        now: Instant,
    ) -> String {
        let id = uuid(rand::random(), rand::random());
        self.records.push(SessionReport {
            session_id: id.clone(),
            version: version.number(),
            require_acknowledgement,
            state: "live".to_owned(),
            gets: 0,
            subscriptions_at_first_get: None,
            subscriptions: Vec::new(),
        });
        let session = Session {
            version,
            require_acknowledgement,
            inactivity,
            last_get: now,
            inbox: Inbox::new(require_acknowledgement),
            subscriptions: BTreeMap::new(),
            in_flight: Vec::new(),
            overlaps: Vec::new(),
            record: self.records.len() - 1,
        };
        self.expect_expiry(now + inactivity);
        self.live.insert(id.clone(), session);
        id
    }

    pub(crate) fn get(&mut self, id: &str) -> Option<&mut Session> {
        self.live.get_mut(id)
    }

    /// A GET /events came: the session stays alive.
    pub(crate) fn received_get(&mut self, id: &str, now: Instant) {
        if let Some(session) = self.live.get_mut(id) {
            session.last_get = now;
            let record = &mut self.records[session.record];
            record.gets += 1;
            if record.subscriptions_at_first_get.is_none() {
                record.subscriptions_at_first_get = Some(listed(&session.subscriptions));
            }
        }
    }

    /// Ends the sessions whose time is up.
    pub(crate) fn sweep(&mut self, now: Instant) -> Vec<Inbox> {
        if self.next_expiry.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let over = |session: &Session| now.duration_since(session.last_get) >= session.inactivity;
        let ended: Vec<String> =
            self.live.iter().filter(|(_, session)| over(session)).map(|(id, _)| id.clone()).collect();
        let inboxes = ended.iter().filter_map(|id| self.end(id, End::Expired)).collect();
        self.next_expiry = self.live.values().map(|session| session.last_get + session.inactivity).min();
        inboxes
    }

    fn expect_expiry(&mut self, at: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(at, |next| next.min(at)));
    }

    /// Ends a session; what it held is the caller's to take back.
    pub(crate) fn end(&mut self, id: &str, how: End) -> Option<Inbox> {
        let session = self.live.remove(id)?;
        let record = &mut self.records[session.record];
        record.subscriptions = listed(&session.subscriptions);
        match how {
            End::Expired => {
                self.expired += 1;
                record.state = "expired".to_owned();
            }
            End::Deleted => {
                self.deleted += 1;
                record.state = "deleted".to_owned();
            }
        }
        self.dead.insert(id.to_owned(), None);
        Some(session.inbox)
    }

    pub(crate) fn expire_all(&mut self) -> Vec<Inbox> {
        let ids: Vec<String> = self.live.keys().cloned().collect();
        ids.iter().filter_map(|id| self.end(id, End::Expired)).collect()
    }

    pub(crate) fn polls_under_way(&self) -> usize {
        self.live.values().map(|session| session.in_flight.len()).sum()
    }

    /// When the client was first told that this id is not alive.
    pub(crate) fn told(&self, id: &str) -> Option<Told> {
        self.dead.get(id).copied().flatten()
    }

    /// The client is being told that this id is not alive.
    pub(crate) fn tell(&mut self, id: &str, told: Told) {
        if self.dead.len() < STRANGERS || self.dead.contains_key(id) {
            self.dead.entry(id.to_owned()).or_default().get_or_insert(told);
        }
    }

    pub(crate) fn created(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn reports(&self) -> Vec<SessionReport> {
        let mut reports = self.records.clone();
        for session in self.live.values() {
            reports[session.record].subscriptions = listed(&session.subscriptions);
        }
        reports
    }
}

fn listed(subscriptions: &BTreeMap<String, Subscription>) -> Vec<Value> {
    subscriptions.iter().map(|(id, subscription)| subscription.as_json(id)).collect()
}
