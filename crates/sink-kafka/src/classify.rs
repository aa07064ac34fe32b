//! From librdkafka's error codes to decisions, once.

use std::time::Duration;

use rdkafka::types::RDKafkaErrorCode as Code;
use viaduct_sink::{Outcome, Refusal, RejectReason, Rejection, Retry};

/// How long to wait before a topic that is missing or forbidden is asked for again.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// How long to wait after an error that time or a new producer may mend.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// What an error means for the record, and for the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The topic does not exist (any more).
    Missing,
    /// The topic does not exist, and the brokers do not let it be created.
    NotCreated,
    /// The credentials do not permit it.
    NotPermitted,
    /// The topic is less durable than the settings demand.
    NotDurable,
    /// The broker found the batch too large that the record was in.
    TooLarge,
    /// The topic can have no such name.
    InvalidTopic,
    /// The broker refuses this record.
    Refused,
    /// The broker refuses another record of the same batch.
    Neighbour,
    /// This producer is of no use any more; a new one is.
    ProducerBroken,
    /// Try again.
    Transient,
}

/// Classifies an error code (Kafka protocol error codes; the negative ones are librdkafka's own).
pub(crate) fn verdict(code: Code) -> Verdict {
    match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => Verdict::Missing,
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => Verdict::NotPermitted,
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => Verdict::TooLarge,
        Code::InvalidTopic => Verdict::InvalidTopic,
        Code::InvalidRecord
        | Code::PolicyViolation
        | Code::InvalidTimestamp
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => Verdict::Refused,
        Code::InvalidDifferentRecord => Verdict::Neighbour,
        Code::Fatal
        | Code::Fenced
        | Code::PurgeQueue
        | Code::PurgeInflight
        | Code::GaplessGuarantee
        | Code::OutOfOrderSequenceNumber
        | Code::UnknownProducerId
        | Code::InvalidProducerEpoch
        | Code::ProducerFenced => Verdict::ProducerBroken,
        _ => Verdict::Transient,
    }
}

impl Verdict {
    /// The outcome of a record of `topic`, in words that name the topic.
    pub(crate) fn outcome(self, topic: &str, code: Code) -> Outcome {
        let rejected = |reason, detail| Outcome::Rejected(Rejection { reason, detail });
        let refused = |reason, detail, refusal| {
            Outcome::Retry(Retry { reason, detail, after: REFUSED_PAUSE, refusal: Some(refusal) })
        };
        let retry = |reason, detail| retry(reason, detail, ERROR_PAUSE);
        match self {
            Self::Missing => refused("missing", format!("topic {topic} does not exist"), Refusal::Missing),
            Self::NotCreated => {
                let detail = format!("topic {topic} does not exist and cannot be created: {code}");
                refused("missing", detail, Refusal::Missing)
            }
            Self::NotPermitted => {
                let detail = format!("not permitted to write to topic {topic}: {code}");
                refused("not_permitted", detail, Refusal::NotPermitted)
            }
            Self::NotDurable => {
                let detail = format!(
                    "topic {topic} is less durable than require_durable = true demands: the log and /status name the setting"
                );
                refused("not_durable", detail, Refusal::NotDurable)
            }
            Self::TooLarge => rejected(RejectReason::TooLarge, format!("larger than topic {topic} takes")),
            Self::InvalidTopic => {
                rejected(RejectReason::InvalidDestination, format!("{topic:?} cannot be the name of a topic"))
            }
            Self::Refused => {
                rejected(RejectReason::Refused, format!("topic {topic} refuses the record: {code}"))
            }
            Self::Neighbour => {
                retry("neighbour", format!("topic {topic} refuses a record of the same batch"))
            }
            Self::ProducerBroken => retry("fatal_producer", format!("the producer broke: {code}")),
            Self::Transient => retry("broker_error", format!("topic {topic}: {code}")),
        }
    }

    /// Whether a record with this fate lets later ones of its topic and key pass.
    pub(crate) fn lets_pass(self) -> bool {
        matches!(self, Self::TooLarge | Self::InvalidTopic | Self::Refused)
    }
}

/// The records of a batch that was refused as a whole: they go again, one in a batch.
pub(crate) fn isolate(topic: &str, code: Code) -> Outcome {
    retry("isolate", format!("topic {topic} refused a whole batch: {code}"), Duration::ZERO)
}

/// A record that was written before an earlier one of its key which has to be offered again.
pub(crate) fn out_of_turn(topic: &str) -> Outcome {
    let detail = format!("written to topic {topic} before an earlier record of its key, which comes again");
    retry("order", detail, Duration::ZERO)
}

/// There is no producer to give the record to.
pub(crate) fn without_producer(detail: String) -> Outcome {
    retry("no_producer", detail, Duration::from_secs(1))
}

fn retry(reason: &'static str, detail: String, after: Duration) -> Outcome {
    Outcome::Retry(Retry { reason, detail, after, refusal: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_operator_can_mend_is_a_refusal() {
        for (code, refusal) in [
            (Code::UnknownTopicOrPartition, Some(Refusal::Missing)),
            (Code::UnknownTopic, Some(Refusal::Missing)),
            (Code::TopicAuthorizationFailed, Some(Refusal::NotPermitted)),
            (Code::ClusterAuthorizationFailed, Some(Refusal::NotPermitted)),
            (Code::BrokerTransportFailure, None),
            (Code::AllBrokersDown, None),
            (Code::MessageTimedOut, None),
            (Code::NotEnoughReplicas, None),
            (Code::InvalidDifferentRecord, None),
            (Code::GaplessGuarantee, None),
            (Code::Fatal, None),
        ] {
            match verdict(code).outcome("t", code) {
                Outcome::Retry(retry) => assert_eq!(retry.refusal, refusal, "{code:?}"),
                other => panic!("{code:?}: {other:?}"),
            }
            assert!(!verdict(code).lets_pass(), "{code:?}");
        }
    }

    #[test]
    fn what_can_never_be_published_is_rejected() {
        for (code, reason) in [
            (Code::MessageSizeTooLarge, RejectReason::TooLarge),
            (Code::InvalidTopic, RejectReason::InvalidDestination),
            (Code::InvalidRecord, RejectReason::Refused),
            (Code::InvalidTimestamp, RejectReason::Refused),
            (Code::PolicyViolation, RejectReason::Refused),
        ] {
            match verdict(code).outcome("t", code) {
                Outcome::Rejected(rejection) => assert_eq!(rejection.reason, reason),
                other => panic!("{code:?}: {other:?}"),
            }
            assert!(verdict(code).lets_pass(), "{code:?}");
        }
    }
}
