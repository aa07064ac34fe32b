//! What a shard knows of its sources, and what its open transaction adds. No I/O.
//!
//! A record's name is reserved before the record is sent, so that two publishes of one source, or an abandoned one and the
//! one that offers its records again, send it once. Every proposal of a source names all that is reserved: the last
//! checkpoint of a source in a transaction tells of all its records in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;
use viaduct_sink::{Checkpoint, Claim, Held, Identity, Member, Owner, Progress, Proposal, Record, Usurped};

/// The sources of a shard.
#[derive(Debug)]
pub(super) struct Ledger {
    owner: Owner,
    sources: HashMap<Arc<str>, Source>,
    /// Sources of which the open transaction holds a checkpoint or may hold records.
    touched: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Source {
    key: Arc<str>,
    remember: usize,
    progress: Option<Progress>,
    claim: Claim,
    /// A session that was told before the claim.
    told: Option<Option<Box<RawValue>>>,
    /// What the open transaction adds, and the names of it.
    reserved: Vec<Held>,
    names: HashSet<Arc<str>>,
    proposal: Option<Proposal>,
}

/// The key of a page of the checkpoint at `key`. Names have no slashes.
fn page_key(key: &str, page: u32) -> String {
    format!("{key}/{page}")
}

/// The key of the checkpoint that a page belongs to, and its number.
pub(super) fn page_of(key: &str) -> Option<(&str, u32)> {
    let (key, page) = key.rsplit_once('/')?;
    Some((key, page.parse().ok()?))
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A stored checkpoint names it.
    Held,
    /// Another publish has it in the open transaction.
    UnderWay,
    /// Nowhere.
    New,
}

impl Ledger {
    pub(super) fn new(identity: &Identity, members: impl IntoIterator<Item = Member>) -> Self {
        let source = |member: Member| {
            let source = Source {
                key: identity.checkpoint_key(&member.source).into(),
                remember: member.remember,
                progress: None,
                claim: Claim::default(),
                told: None,
                reserved: Vec::new(),
                names: HashSet::new(),
                proposal: None,
            };
            (member.source, source)
        };
        let sources = members.into_iter().map(source).collect();
        Self { owner: identity.owner.clone(), sources, touched: HashSet::new() }
    }

    pub(super) fn knows(&self, source: &str) -> bool {
        self.sources.contains_key(source)
    }

    /// The keys of the checkpoints.
    pub(super) fn keys(&self) -> HashSet<Arc<str>> {
        self.sources.values().map(|source| Arc::clone(&source.key)).collect()
    }

    /// Takes all sources over from whoever wrote what was read.
    pub(super) fn claim(&mut self, mut read: HashMap<Arc<str>, Checkpoint>) {
        self.forget_round();
        for source in self.sources.values_mut() {
            let mut progress = Progress::claim(self.owner.clone(), source.remember, read.remove(&source.key));
            source.claim =
                Claim { session: progress.session().map(ToOwned::to_owned), remembered: progress.len() };
            if let Some(session) = source.told.clone() {
                progress.set_session(session);
            }
            source.progress = Some(progress);
        }
    }

    /// Compares what is known with what was read after something that nobody knows the end of.
    ///
    /// # Errors
    /// Another instance owns a source.
    pub(super) fn recover(&mut self, mut read: HashMap<Arc<str>, Checkpoint>) -> Result<(), Usurped> {
        self.forget_round();
        for source in self.sources.values_mut() {
            if let Some(progress) = &mut source.progress {
                progress.recover(read.remove(&source.key))?;
            }
        }
        Ok(())
    }

    /// The other instance that owns a source, by what was read.
    pub(super) fn usurper(&self, read: &HashMap<Arc<str>, Checkpoint>) -> Option<Owner> {
        let owners = self.sources.values().filter_map(|source| read.get(&source.key));
        owners.map(|checkpoint| &checkpoint.owner).find(|owner| **owner != self.owner).cloned()
    }

    pub(super) fn claimed(&self, source: &str) -> Claim {
        self.sources.get(source).map(|source| source.claim.clone()).unwrap_or_default()
    }

    pub(super) fn acknowledged(&mut self, source: &str, event: &str) {
        if let Some(progress) = self.sources.get_mut(source).and_then(|source| source.progress.as_mut()) {
            progress.acknowledged(event);
        }
    }

    pub(super) fn session(&mut self, source: &str, session: Option<Box<RawValue>>) {
        let Some(source) = self.sources.get_mut(source) else { return };
        match &mut source.progress {
            Some(progress) => progress.set_session(session),
            None => source.told = Some(session),
        }
    }

    /// Whether the record is stored.
    pub(super) fn holds(&mut self, source: &str, record: &Record) -> bool {
        let progress = self.sources.get_mut(source).and_then(|source| source.progress.as_mut());
        progress.is_some_and(|progress| progress.recognise(record))
    }

    /// Where the record is; a new one is reserved for the open transaction.
    pub(super) fn reserve(&mut self, source: &str, record: &Record) -> Place {
        if self.holds(source, record) {
            return Place::Held;
        }
        let Some(of) = self.sources.get_mut(source) else { return Place::New };
        if !of.names.insert(Arc::clone(&record.message_id)) {
            return Place::UnderWay;
        }
        of.reserved.push(Held { record: record.message_id.clone(), event: record.event.clone() });
        self.touch(source);
        Place::New
    }

    /// The record is not sent after all. Another publish may have sent a checkpoint that names it: this one has to propose
    /// another one.
    pub(super) fn release(&mut self, source: &str, record: &Record) {
        if let Some(of) = self.sources.get_mut(source)
            && of.names.remove(&record.message_id)
        {
            of.reserved.retain(|held| held.record != record.message_id);
        }
    }

    /// The keys and texts of a checkpoint that tells of all that is reserved, and of the pages that belong to it; without a
    /// text: to be removed.
    pub(super) fn propose(&mut self, source: &str) -> Option<Vec<(Arc<str>, Option<Bytes>)>> {
        let of = self.sources.get_mut(source)?;
        let proposal = of.progress.as_ref()?.propose_named(of.reserved.clone());
        let pages =
            proposal.pages().iter().map(|(page, text)| (page_key(&of.key, *page).into(), text.clone()));
        let whole = (Arc::clone(&of.key), Some(proposal.text().clone()));
        let texts = pages.chain([whole]).collect();
        of.proposal = Some(proposal);
        self.touch(source);
        Some(texts)
    }

    fn touch(&mut self, source: &str) {
        if !self.touched.contains(source) {
            self.touched.insert(source.into());
        }
    }

    /// Sources of which the destination should be told something that no checkpoint of the open transaction tells.
    pub(super) fn stale(&self) -> Vec<Arc<str>> {
        self.unproposed(Progress::is_stale)
    }

    /// The same when the sink closes, which leaves no name of an acknowledged event behind.
    pub(super) fn untold(&self) -> Vec<Arc<str>> {
        self.unproposed(|progress| !progress.is_told())
    }

    fn unproposed(&self, which: impl Fn(&Progress) -> bool) -> Vec<Arc<str>> {
        let unproposed =
            |source: &&Source| source.proposal.is_none() && source.progress.as_ref().is_some_and(&which);
        let sources = self.sources.iter().filter(|(_, source)| unproposed(source));
        sources.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// All sources.
    pub(super) fn names(&self) -> Vec<Arc<str>> {
        self.sources.keys().cloned().collect()
    }

    /// The transaction is committed.
    pub(super) fn commit(&mut self) {
        for name in self.touched.drain() {
            let Some(source) = self.sources.get_mut(&name) else { continue };
            source.reserved.clear();
            source.names.clear();
            if let (Some(progress), Some(proposal)) = (&mut source.progress, source.proposal.take()) {
                progress.commit(proposal);
            }
        }
    }

    /// The transaction is aborted, or nobody knows.
    pub(super) fn forget_round(&mut self) {
        for name in self.touched.drain() {
            let Some(source) = self.sources.get_mut(&name) else { continue };
            source.reserved.clear();
            source.names.clear();
            source.proposal = None;
        }
    }
}
