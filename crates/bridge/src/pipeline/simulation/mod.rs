//! Whole histories of a bridge, generated: the real poller (state machine, ledger, hand-out), source, lanes, backlogs,
//! router and checkpoints, in one thread, against a vendor and destinations that do whatever such systems may do.
//!
//! Each pair of bytes of a history decides one thing ([`world::World::step`]): an answer comes, fails, or is lost after it
//! was applied; time passes; a broker goes away; a topic vanishes; the vendor drops the session; the process dies, with or
//! without its disk; another instance takes over while this one is only frozen, and later this one thaws. Meanwhile and
//! after everything has healed, the invariants hold:
//!
//! | | |
//! | --- | --- |
//! | I1 | every event that the vendor emitted and did not itself lose is in every sink of its routes, or a dead letter for it |
//! | I2 | what is acknowledged could be read when the acknowledgement was sent |
//! | I3 | an exactly-once sink never holds a record twice, and nobody publishes to it after another instance has claimed; an at-least-once sink holds it twice only after an answer was lost or an instance has ended |
//! | I4 | records of one key stand in the order in which their instance was handed them |
//! | I5 | one call per lane, no dead session used, Retry-After respected |
//! | I6 | memory is bounded by `max_in_flight` |
//! | I7 | once everything works again, everything gets acknowledged, without a restart |
//!
//! What is modelled and not real: the network, and of the sinks what stands around [`viaduct_sink::Progress`]
//! ([`client`]); the real ones are tested against real brokers. The order of I4 is that of being handed out: an event that
//! found no room is not handed out, and comes again later.

mod broker;
mod client;
mod instance;
mod vendor;
mod world;

use std::process::Command;

use proptest::prelude::*;
use viaduct_faults::Mistake;

use self::vendor::{AfterDeath, Redelivery};
use self::world::{Setup, World};

fn setups() -> impl Strategy<Value = Setup> {
    let redelivery = prop::sample::select(vec![Redelivery::NewThenPending, Redelivery::FromHead]);
    let after_death = prop::sample::select(vec![AfterDeath::SameId, AfterDeath::NewId, AfterDeath::Lost]);
    let exactly_once = prop::sample::select(vec![[true, true], [true, false], [false, true], [false, false]]);
    (redelivery, after_death, exactly_once, any::<bool>()).prop_map(
        |(redelivery, after_death, exactly_once, letters_to_a)| Setup {
            redelivery,
            after_death,
            exactly_once,
            letters_to_a,
        },
    )
}

/// `VIADUCT_HISTORIES`: how many histories are tried, unless one fails.
fn histories() -> u32 {
    let Ok(text) = std::env::var("VIADUCT_HISTORIES") else { return 10_000 };
    text.parse().expect("VIADUCT_HISTORIES is a number")
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(histories()) })]

    #[test]
    fn every_history_keeps_the_invariants(
        setup in setups(),
        steps in prop::collection::vec(any::<(u8, u8)>(), 0..160),
    ) {
        let mut world = World::new(setup);
        for (what, choice) in steps {
            world.step(what, choice);
        }
        world.heal();
        world.verdict().map_err(TestCaseError::fail)?;
    }
}

/// The test above sees each mistake that a bridge could make. The mistakes are made by the real code where it makes the
/// decision, and by the model of the sinks where the decision is a sink's. A process of its own for each: what a process
/// does wrong, it does wrong for good. Most mistakes show in one of a few dozen histories; to read a checkpoint before
/// fencing shows in one of some thousand, where an instance dies or freezes between the two: hence so many.
#[test]
fn every_mistake_is_seen() {
    let mistakes = [
        (Mistake::AcknowledgeFirst, "I2"),
        (Mistake::ReorderOnRetry, "I4"),
        (Mistake::HighWatermark, "I"),
        (Mistake::NoSubscriptions, "I7"),
        (Mistake::ReadBeforeFencing, "I3"),
        (Mistake::IgnoreOwner, "I3"),
        (Mistake::AssumeNotCommitted, "I3"),
    ];
    let test = "pipeline::simulation::every_history_keeps_the_invariants";
    for (mistake, invariant) in mistakes {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env("VIADUCT_FAULTS", format!("mistake:{}", mistake.as_str()))
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("VIADUCT_HISTORIES", "200000")
            .output()
            .expect("this test starts again");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{mistake:?} is not seen:\n{text}");
        let violated = format!("VIOLATED: {invariant}");
        assert!(text.contains(&violated), "{mistake:?} is not seen as {invariant}:\n{text}");
    }
}
