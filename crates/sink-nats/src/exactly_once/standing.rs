//! Whether this process may publish for a source: claiming it, reading the checkpoint again, losing it.

use std::sync::Arc;

use viaduct_faults::{Mistake, makes};
use viaduct_sink::{Claim, Fatal, Outcome, Progress, Record, Refusal, Usurped};

use super::batch::AtomicBatch;
use super::checkpoint::{self, ReadError, Stored};
use super::source::Source;
use super::verdict::Verdict;
use crate::answer;
use crate::epoch::Epoch;
use crate::stream::{InspectError, StreamReport};

/// How often a claim is repeated at once because another checkpoint came in between.
const CLAIMS: usize = 20;
/// After so many of them the claimer puts up a fence.
const CLAIMS_WITHOUT_FENCE: usize = 2;
/// How often a checkpoint from before the own one is taken for the answer of a leader that does not know yet that it is
/// none any more. After that somebody has put an old stream in place.
const OLD_ANSWERS: u32 = 20;

/// What the source is to this process.
#[derive(Debug)]
pub(crate) enum Standing {
    /// Nobody has asked for it yet.
    Unclaimed,
    /// Its own.
    Owner(Box<Owned>),
    /// Nothing is published for it in this process any more.
    Lost(Fatal),
}

/// A source that this process owns, as far as it knows.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(crate) progress: Progress,
    /// What the claim found.
    pub(crate) claim: Claim,
    /// The sequence of the checkpoint.
    pub(crate) sequence: u64,
    /// Whether that is known to be so. While a batch is under way it is not.
    pub(crate) certain: bool,
    /// Answers from before the own checkpoint, one after the other.
    old_answers: u32,
}

/// Why nothing can be published at the moment.
#[derive(Debug)]
pub(crate) enum Obstacle {
    /// The source is lost; see [`Standing::Lost`].
    Lost,
    /// It passes by itself: a label for metrics, and the reason.
    Away(&'static str, String),
    /// Somebody has to mend it.
    Refused(Outcome),
}

impl Source {
    /// The stream, if exactly-once delivery is possible with it now.
    pub(crate) async fn stream(&self, epoch: &Epoch) -> Result<StreamReport, Obstacle> {
        let refused =
            |reason, refusal, detail| Err(Obstacle::Refused(answer::refused(reason, refusal, detail)));
        match self.shared.known(epoch).await {
            Ok(report) => match report.unfit(&self.shared.checked.settings) {
                None => Ok(report),
                Some(problem) => refused("not_exactly_once", Refusal::Missing, problem),
            },
            Err(error @ InspectError::Absent(_)) => refused("no_stream", Refusal::Missing, error.to_string()),
            Err(InspectError::Refused(reason)) => refused("not_permitted", Refusal::NotPermitted, reason),
            Err(InspectError::Unreachable(reason)) => Err(Obstacle::Away("no_answer", reason)),
        }
    }

    /// Makes the source this process's own, with a checkpoint that is known. Returns the stream.
    pub(crate) async fn own(&mut self, epoch: &Arc<Epoch>) -> Result<StreamReport, Obstacle> {
        if matches!(self.standing, Standing::Lost(_)) {
            return Err(Obstacle::Lost);
        }
        let report = self.stream(epoch).await?;
        match &self.standing {
            Standing::Owner(owned) if owned.certain => {}
            Standing::Owner(_) => {
                let stored = self.read(epoch).await?;
                self.recover(stored)?;
            }
            Standing::Unclaimed => self.claim(epoch, &report).await?,
            Standing::Lost(_) => return Err(Obstacle::Lost),
        }
        Ok(report)
    }

    /// Reads, and replaces what was read by a claim of its own; whoever claims last owns the source.
    async fn claim(&mut self, epoch: &Arc<Epoch>, report: &StreamReport) -> Result<(), Obstacle> {
        // A stream that keeps one or two messages of a subject would drop the checkpoint for the fence.
        let has_room = report.max_messages_per_subject.is_none_or(|most| most > 2);
        for attempt in 0..CLAIMS {
            if attempt >= CLAIMS_WITHOUT_FENCE && has_room {
                let fence =
                    Progress::claim(self.owner.clone(), self.remember, None).propose([]).text().clone();
                let batch = AtomicBatch::new(&self.shared, epoch, report.max_message_size);
                match batch.fence(&self.subject, fence).await {
                    Verdict::Committed(_) => {}
                    verdict => return Err(self.obstacle(epoch, verdict).await),
                }
            }
            let Stored { sequence, checkpoint, .. } = self.read(epoch).await?;
            let mut progress = Progress::claim(self.owner.clone(), self.remember, checkpoint);
            let claim =
                Claim { session: progress.session().map(ToOwned::to_owned), remembered: progress.len() };
            let proposal = progress.propose([]);
            let batch = AtomicBatch::new(&self.shared, epoch, report.max_message_size);
            match batch.commit(&self.subject, &proposal, sequence, false).await {
                Verdict::Committed(sequence) => {
                    progress.commit(proposal);
                    if let Some(session) = self.early_session.take() {
                        progress.set_session(session);
                    }
                    tracing::info!(
                        source = &*self.name,
                        remembered = claim.remembered,
                        "the source is claimed"
                    );
                    let owned = Owned { progress, claim, sequence, certain: true, old_answers: 0 };
                    self.standing = Standing::Owner(Box::new(owned));
                    return Ok(());
                }
                Verdict::Moved => {}
                verdict => return Err(self.obstacle(epoch, verdict).await),
            }
        }
        Err(Obstacle::Away("contended", "other instances keep claiming the source".to_owned()))
    }

    /// Commits `batch`, which holds `records`, with the checkpoint that names them.
    ///
    /// The checkpoint counts as unknown until the server has confirmed it, also when this future is dropped.
    pub(crate) async fn commit<'a>(
        &mut self,
        batch: AtomicBatch<'_>,
        records: impl IntoIterator<Item = &'a Record>,
        loud: bool,
    ) -> Verdict {
        let Standing::Owner(owned) = &mut self.standing else {
            return Verdict::Again("not_owned", "the source is not claimed".to_owned());
        };
        let proposal = owned.progress.propose(records);
        owned.certain = false;
        let verdict = batch.commit(&self.subject, &proposal, owned.sequence, loud).await;
        if let Verdict::Committed(sequence) = verdict {
            owned.progress.commit(proposal);
            owned.sequence = sequence;
            owned.certain = true;
        }
        verdict
    }

    /// Writes the checkpoint without records.
    pub(crate) async fn write(&mut self, epoch: &Arc<Epoch>) -> Result<(), Obstacle> {
        let report = self.own(epoch).await?;
        let shared = self.shared.clone();
        let batch = AtomicBatch::new(&shared, epoch, report.max_message_size);
        match self.commit(batch, [], false).await {
            Verdict::Committed(_) => Ok(()),
            verdict => Err(self.obstacle(epoch, verdict).await),
        }
    }

    /// What the end of a batch without records means.
    async fn obstacle(&mut self, epoch: &Epoch, verdict: Verdict) -> Obstacle {
        match verdict {
            Verdict::Unknown(detail) => Obstacle::Away("unknown", detail),
            Verdict::Again(reason, detail) => Obstacle::Away(reason, detail),
            Verdict::Unfit(detail) => {
                self.look_again(epoch).await;
                Obstacle::Away("unfit", detail)
            }
            Verdict::Unheard(_) => {
                self.look_again(epoch).await;
                Obstacle::Away("no_responders", "nobody listens on the checkpoint's subject".to_owned())
            }
            Verdict::Full(fate) | Verdict::Culprit(fate) | Verdict::Named(_, fate) => match fate {
                Outcome::Retry(retry) if retry.refusal.is_none() => {
                    Obstacle::Away(retry.reason, retry.detail)
                }
                Outcome::Rejected(rejection) => Obstacle::Away("checkpoint_refused", rejection.detail),
                fate => Obstacle::Refused(fate),
            },
            Verdict::Denied(subject) => Obstacle::Refused(denied(&subject)),
            Verdict::NotAtomic => self.lose(not_atomic()),
            Verdict::Moved | Verdict::Incomplete | Verdict::TooMany(_) | Verdict::Committed(_) => {
                Obstacle::Away("incomplete", "the batch was not stored".to_owned())
            }
        }
    }

    /// Asks for the stream again: it is not what it was.
    pub(crate) async fn look_again(&self, epoch: &Epoch) {
        // Whoever needs it reads what was found.
        let _ = self.shared.look(epoch, std::time::Instant::now()).await;
    }

    /// The source is lost for this process.
    pub(crate) fn lose(&mut self, fatal: Fatal) -> Obstacle {
        tracing::error!(source = &*self.name, "nothing is published any more: {fatal}");
        self.standing = Standing::Lost(fatal);
        Obstacle::Lost
    }

    async fn read(&mut self, epoch: &Epoch) -> Result<Stored, Obstacle> {
        match checkpoint::read(&self.shared, epoch, &self.subject).await {
            Ok(stored) => Ok(stored),
            Err(ReadError::Away(detail)) => Err(Obstacle::Away("no_answer", detail)),
            Err(ReadError::NoStream) => {
                self.look_again(epoch).await;
                Err(Obstacle::Away("no_stream", "the stream does not exist now".to_owned()))
            }
            Err(ReadError::Refused(detail)) => {
                Err(Obstacle::Refused(answer::refused("not_permitted", Refusal::NotPermitted, detail)))
            }
            Err(ReadError::Fatal(fatal)) => Err(self.lose(fatal)),
        }
    }

    /// Takes in what stands there after something whose end is not known.
    fn recover(&mut self, stored: Stored) -> Result<(), Obstacle> {
        let Standing::Owner(owned) = &mut self.standing else { return Err(Obstacle::Lost) };
        let old = stored.sequence < owned.sequence;
        let other = stored.fence.filter(|fence| *fence != self.owner).map(Usurped);
        let standing = match other {
            Some(usurped) => Err(usurped),
            None if makes(Mistake::AssumeNotCommitted) => Ok(()),
            None => owned.progress.recover(stored.checkpoint),
        };
        if let Err(usurped) = standing
            && !makes(Mistake::IgnoreOwner)
        {
            if old && owned.old_answers < OLD_ANSWERS {
                owned.old_answers += 1;
                return Err(Obstacle::Away("old_answer", "the server answers from the past".to_owned()));
            }
            let detail = format!("{usurped} the checkpoint on {}", self.subject);
            return Err(self.lose(Fatal::Fenced(detail)));
        }
        owned.sequence = stored.sequence;
        owned.certain = true;
        owned.old_answers = 0;
        Ok(())
    }
}

/// The refusal of a subject that may not be published to.
pub(crate) fn denied(subject: &str) -> Outcome {
    let detail = format!("the server does not permit to publish to {subject}");
    answer::refused("not_permitted", Refusal::NotPermitted, detail)
}

/// The server stored a message of a batch by itself.
pub(crate) fn not_atomic() -> Fatal {
    Fatal::Broken(
        "the server stores the messages of an atomic batch one by one, though its stream says that it allows atomic \
         batches: update every server of the cluster to 2.12 or later, or use delivery = \"at_least_once\""
            .to_owned(),
    )
}
