//! The power of the checkers: each mistake that bridges are known to make is found out, by a scenario that finds nothing
//! where nobody makes one.

use viaduct_faults::Mistake;
use viaduct_simulator::Redelivery;

use super::{crash, cut_response, kafka_commit, refusals, sessions, unknown_ends, zombie};
use crate::kit::case::{Broker, Case, Delivery, block_on};
use crate::kit::invariants::{Findings, Invariant};

/// Runs the scenario with a bridge that makes the mistake: one of these invariants must not hold. (That all of them hold
/// where nobody makes it is what the scenario's own test shows.)
#[track_caller]
fn is_found_out<F: Future<Output = Findings>>(
    case: Case,
    mistake: Mistake,
    scenario: impl Fn(Case) -> F,
    by: &[Invariant],
) {
    let findings = block_on(scenario(case.mistaken(mistake)));
    let broken = findings.broken();
    assert!(
        broken.iter().any(|invariant| by.contains(invariant)),
        "{}: nobody sees it; what was found instead: {findings}",
        mistake.as_str()
    );
    println!("{}: found out by {broken:?}\n{findings}", mistake.as_str());
}

const KAFKA: Broker = Broker::Kafka;
const NATS: Broker = Broker::Nats;

#[test]
fn acknowledging_first() {
    for broker in [KAFKA, NATS] {
        let case = Case::new(broker, Delivery::AtLeastOnce);
        let by = [Invariant::AcknowledgedAfterReadable];
        is_found_out(case, Mistake::AcknowledgeFirst, cut_response::answers_come_to_harm, &by);
    }
}

#[test]
fn dropping_one_in_500() {
    let case = Case::new(KAFKA, Delivery::AtLeastOnce);
    is_found_out(case, Mistake::DropOneIn500, cut_response::answers_come_to_harm, &[Invariant::NothingLost]);
}

#[test]
fn reordering_on_retry() {
    let case = Case::new(KAFKA, Delivery::AtLeastOnce);
    is_found_out(case, Mistake::ReorderOnRetry, refusals::a_topic_is_made_late, &[Invariant::Order]);
}

#[test]
fn forgetting_what_is_below_the_high_watermark() {
    let case = Case::new(NATS, Delivery::AtLeastOnce);
    is_found_out(case, Mistake::HighWatermark, cut_response::answers_come_to_harm, &[Invariant::NothingLost]);
}

#[test]
fn no_subscriptions_in_a_new_session() {
    let case = Case::new(NATS, Delivery::AtLeastOnce);
    is_found_out(case, Mistake::NoSubscriptions, sessions::sessions_end, &[Invariant::Conduct]);
}

#[test]
fn reading_the_checkpoint_before_fencing() {
    for broker in [KAFKA, NATS] {
        let case = Case::new(broker, Delivery::ExactlyOnce);
        let by = [Invariant::NoDuplicates];
        is_found_out(case, Mistake::ReadBeforeFencing, zombie::replaced_in_full_flow, &by);
    }
}

#[test]
fn going_on_when_another_one_has_taken_over() {
    for broker in [KAFKA, NATS] {
        let case = Case::new(broker, Delivery::ExactlyOnce);
        let by = [Invariant::NoDuplicates];
        is_found_out(case, Mistake::IgnoreOwner, zombie::replaced_while_frozen, &by);
    }
}

#[test]
fn taking_an_unknown_commit_for_failed() {
    let by = [Invariant::NoDuplicates];
    let case = Case::new(KAFKA, Delivery::ExactlyOnce);
    is_found_out(case, Mistake::AssumeNotCommitted, kafka_commit::commits_come_to_harm, &by);
    let case = Case::new(NATS, Delivery::ExactlyOnce);
    is_found_out(case, Mistake::AssumeNotCommitted, unknown_ends::answers_never_come, &by);
}

#[test]
fn killing_finds_losses_too() {
    let case = Case::new(NATS, Delivery::AtLeastOnce).redelivery(Redelivery::FromHead);
    let by = [Invariant::NothingLost, Invariant::AcknowledgedAfterReadable];
    is_found_out(case, Mistake::AcknowledgeFirst, crash::again_and_again, &by);
}
