//! Begins and ends the transactions of a shard, one after the other, and replaces its producers.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::time::timeout;
use tracing::{debug, info, warn};
use viaduct_faults::{Moment, crash_point};
use viaduct_sink::Fatal;

use super::fence::{Before, abort, begin, commit, not_written, state, words};
use super::round::{Round, Stage, Verdict};
use super::shard::{Gate, Shard};
use crate::classify;
use crate::producer::Generation;

/// How long a commit may take before nobody knows.
const COMMIT: Duration = Duration::from_secs(10);
/// How long an abort may take before the producer is given up.
const ABORT: Duration = Duration::from_secs(10);
/// How long a transaction may go without news before it is asked whether its topics still exist. librdkafka would ask for
/// ever to add a partition that is gone.
const STALL: Duration = Duration::from_secs(2);
/// How long that question may take.
const QUESTION: Duration = Duration::from_secs(5);
/// The wait after a transaction that failed for a reason of time.
const PAUSE: Duration = Duration::from_millis(100);

/// What a transaction leaves behind.
enum After {
    /// The next producer may go on.
    Next,
    /// None may.
    Renew(Before),
    /// The sink is closing, and all that had to be told is told.
    Closed,
}

/// Runs a shard until the sink is closed or another instance has taken over.
pub(super) async fn run(shard: Arc<Shard>) {
    let fatal = shard.run().await;
    match &fatal {
        Fatal::Fenced(detail) => warn!(shard = shard.number, "nothing more is published: {detail}"),
        Fatal::Broken(detail) => debug!(shard = shard.number, detail, "the shard ends"),
    }
    if !shard.closing.is_cancelled() {
        shard.vitals.hold_up(shard.number, fatal.to_string());
    }
    shard.end(fatal).await;
}

impl Shard {
    async fn run(&self) -> Fatal {
        let closed = || Fatal::Broken("the sink is closed".to_owned());
        let mut before = Before::Nothing;
        loop {
            let established = tokio::select! {
                biased;
                established = self.establish(before) => established,
                () = self.closing.cancelled() => return closed(),
            };
            let producers = match established {
                Ok(producers) => producers,
                Err(fatal) => return fatal,
            };
            // The first one has just written the claim.
            let mut turn = 1;
            before = loop {
                match self.transact(&producers[turn]).await {
                    After::Next => turn = (turn + 1) % producers.len(),
                    After::Renew(before) => break before,
                    After::Closed => return closed(),
                }
            };
            self.set_producers(None);
        }
    }

    /// One transaction, from its beginning to its end.
    async fn transact(&self, generation: &Arc<Generation>) -> After {
        if let Err(error) = begin(generation).await {
            debug!(shard = self.number, error = words(&error), "no transaction can be begun");
            return self.renew_after(generation);
        }
        let round = Arc::new(Round::new(Arc::clone(generation)));
        self.set_gate(Gate::Open(Arc::clone(&round)));
        let renew = self.fill(&round).await;
        round.close();
        self.set_gate(Gate::Shut);

        let untold = match self.closing.is_cancelled() {
            true => self.ledger().untold(),
            false => self.ledger().stale(),
        };
        let written = self.write_checkpoints(&round, &untold).await;
        if let Err(code) = written {
            debug!(shard = self.number, "{}", not_written(code));
            round.spoil();
        }
        self.drain(&round).await;
        let after = match round.stage() {
            Stage::Delivered => self.commit(&round).await,
            _ => self.abort(&round).await,
        };
        match after {
            After::Next if renew => After::Renew(Before::Unknown),
            After::Next if self.closing.is_cancelled() && self.ledger().untold().is_empty() => After::Closed,
            after => after,
        }
    }

    /// Lets publishes take part until one of them is done, or there is something else to do. Tells whether the producers are
    /// to be replaced then.
    async fn fill(&self, round: &Round) -> bool {
        loop {
            let renew = self.renew();
            if renew
                || round.stage() != Stage::Filling
                || self.closing.is_cancelled()
                || !self.ledger().stale().is_empty()
            {
                return renew;
            }
            tokio::select! {
                () = round.changed() => {}
                () = self.woken() => {}
                () = self.closing.cancelled() => {}
                // Somebody waits for reports that do not come: [`Shard::drain`] asks why.
                () = tokio::time::sleep(STALL), if round.is_awaited() => return false,
            }
        }
    }

    /// Waits until everything is delivered, or nobody hands anything over any more to a transaction that has failed.
    async fn drain(&self, round: &Round) {
        while round.stage() == Stage::Draining {
            if timeout(STALL, round.changed()).await.is_ok() {
                continue;
            }
            for topic in round.topics() {
                self.topics.forget(&topic);
                let standing = timeout(QUESTION, self.topics.look(&topic)).await;
                if let Ok(Err((_, code))) = standing {
                    debug!(shard = self.number, %topic, ?code, "a topic of the open transaction is gone");
                    round.spoil();
                }
            }
        }
    }

    async fn commit(&self, round: &Round) -> After {
        crash_point(Moment::AfterPublish);
        match commit(&round.generation, COMMIT).await {
            Ok(()) => {
                crash_point(Moment::AfterCommit);
                self.ledger().commit();
                round.end(Verdict::Committed);
                After::Next
            }
            Err(error) => {
                info!(
                    shard = self.number,
                    "nobody knows whether a transaction is committed: {}",
                    words(&error)
                );
                self.ledger().forget_round();
                round.end(Verdict::Again(None));
                self.renew_after(&round.generation)
            }
        }
    }

    async fn abort(&self, round: &Round) -> After {
        let cause = state(&round.generation).await;
        let aborted = abort(&round.generation, ABORT).await;
        self.ledger().forget_round();
        let failures = round.failures();
        debug!(shard = self.number, ?cause, ?failures, ?aborted, "a transaction is aborted");
        let after = match aborted {
            Ok(()) => After::Next,
            Err(_) => self.renew_after(&round.generation),
        };
        // What a record or a topic is to blame for is its participant's to mend; anything else takes time, and so does what
        // the checkpoints' own topic is to blame for.
        let blame = |code: Code| {
            !matches!(
                classify::verdict(code),
                classify::Verdict::Transient | classify::Verdict::ProducerBroken
            )
        };
        if round.topics().is_empty() || !cause.into_iter().chain(failures).any(blame) {
            tokio::time::sleep(PAUSE).await;
        }
        round.end(Verdict::Again(cause));
        after
    }

    /// Brokers tell a fenced producer so in several ways (fenced, invalid epoch, invalid transaction state), all of them fatal.
    fn renew_after(&self, generation: &Generation) -> After {
        After::Renew(if generation.broken() { Before::Fenced } else { Before::Unknown })
    }
}
