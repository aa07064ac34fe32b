//! A vendor that answers with errors, with nothing, or with something else: the good events flow, the others become dead
//! letters and are acknowledged.

use viaduct_simulator::{EmptyPoll, Settings};

use crate::kit::case::{Broker, Case, both_models, hold, rounds};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::world::{World, flowing};

/// Every kind of fault, on every operation that it fits.
const HARM: &str = "events:malformed=no-type:2% events:malformed=no-id:1% events:malformed=payload-object:1% \
                    events:malformed=not-an-object:1% events:429+retry-after=1:1% acknowledge:403:1% *:any:12%";

/// How many times 300 events flow. After some 4,096 a vendor's late redelivery has to be recognised still: thirty show that.
const ROUNDS: u64 = 3;

pub(super) async fn the_vendor_errs(case: Case) -> Findings {
    let settings = Settings {
        faults: HARM.parse().expect("a fault plan"),
        empty_poll: EmptyPoll::NoContent,
        ..flowing(case, 120.0)
    };
    let line = Line::to(case.broker).await;
    let many_polls = |text: String| text.replace("max_events = 100", "max_events = 5");
    let mut world = World::with(case, settings, line, many_polls).await;
    world.answers_get_lost = true;
    let bridge = world.start();
    for _ in 0..rounds(ROUNDS) {
        world.flow(300).await;
        world.probe().await;
    }
    let report = world.vendor.report();
    world.findings.add(Findings::unless(
        report.faults.len() >= 12 && report.malformed > 0,
        Invariant::Recovers,
        || format!("the scenario is too tame: {:?}", report.faults),
    ));
    world.vendor.0.control().set_faults(String::new().parse().expect("an empty plan"));
    world.lull().await;
    // What nobody could publish is told of, and counted.
    let dead = world.place.read().await.dead;
    let malformed =
        dead.iter().filter(|letter| ["malformed", "no_id"].contains(&letter.reason.as_str())).count();
    world.findings.add(Findings::unless(malformed > 0, Invariant::NothingLost, || {
        format!("{} malformed events were given out, and no dead letter is there", report.malformed)
    }));
    world.finish(bridge).await
}

/// A token that is not taken any more is refreshed once, not once per call.
async fn a_refused_token_is_refreshed_once(case: Case) -> Findings {
    let mut world = World::new(case, flowing(case, 300.0)).await;
    let bridge = world.start();
    world.flow(100).await;
    for round in 2..5 {
        world.vendor.0.control().revoke_tokens();
        world.flow(100).await;
        let issued = world.vendor.report().tokens_issued;
        world.findings.add(Findings::unless(issued == round, Invariant::Conduct, || {
            format!("{issued} tokens were issued, {round} were needed")
        }));
    }
    world.finish(bridge).await
}

#[test]
fn the_vendor_errs_before_kafka() {
    hold(both_models(Broker::Kafka), the_vendor_errs);
}

#[test]
fn the_vendor_errs_before_nats() {
    hold(both_models(Broker::Nats), the_vendor_errs);
}

#[test]
fn a_token_is_refreshed_once() {
    hold(both_models(Broker::Nats), a_refused_token_is_refreshed_once);
}
