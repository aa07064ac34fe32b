//! Producers that end for good, in the middle of a flow: the first batch that a broker refuses costs the producer that all
//! share. It is replaced, and order is kept.

use viaduct_testkit::kafka;

use crate::kit::case::{Broker, Case, both_models, hold};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::world::{Tolerated, World, flowing};

/// A compacted topic refuses records without a key, of which there are many, where only interactions make keys.
pub(super) async fn the_producer_breaks(case: Case) -> Findings {
    let line = Line::to(Broker::Kafka).await;
    let few_keys =
        |text: String| text.replace("format = \"raw\"", "format = \"raw\"\nkey = [\"interactionId\"]");
    let mut world = World::with(case, flowing(case, 200.0), line, few_keys).await;
    // At least once, what was under way in the broken producer is sent again by the next one.
    world.tolerated_copies = Tolerated::Any;
    let topic = format!("{}.engagementCenter", world.place.name);
    let settings =
        [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "1.0"), ("segment.ms", "9999999999")];
    kafka::create_topic(&world.line.direct, &topic, 3, &settings).await.expect("topics can be made");
    let bridge = world.start();
    for _ in 0..3 {
        world.flow(300).await;
        world.probe().await;
    }
    world.settles().await;
    let refused = world.place.read().await.dead.len();
    world.findings.add(Findings::unless(refused > 0, Invariant::Recovers, || {
        "the scenario is too tame: no record was refused".to_owned()
    }));
    world.finish(bridge).await
}

#[test]
fn a_producer_that_breaks_is_replaced() {
    hold(both_models(Broker::Kafka), the_producer_breaks);
}
