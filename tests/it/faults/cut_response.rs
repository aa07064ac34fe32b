//! Answers to GET /events that are cut, stalled or lost: the vendor believes to have given the events out, and gives them
//! out again later, old ids behind newer ones.

use viaduct_simulator::Settings;

use crate::kit::case::{Broker, Case, both_models, hold};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::world::{World, flowing};

/// Every fifth answer comes to harm.
const HARM: &str =
    "events:cut:8% events:reset-after:5% events:reset-before:2% events:slow=300ms:3% events:invalid-json:2%";

pub(super) async fn answers_come_to_harm(case: Case) -> Findings {
    let settings = Settings { faults: HARM.parse().expect("a fault plan"), ..flowing(case, 400.0) };
    let mut world = World::new(case, settings).await;
    world.answers_get_lost = true;
    let bridge = world.start();
    for _ in 0..3 {
        world.flow(300).await;
        world.lull().await;
        world.flow(200).await;
        world.probe().await;
    }
    let report = world.vendor.report();
    let cut: u64 = report.faults.values().sum();
    world.findings.add(Findings::unless(cut >= 10 && report.redelivered > 0, Invariant::Recovers, || {
        format!("the scenario is too tame: {:?}, {} redelivered", report.faults, report.redelivered)
    }));
    world.vendor.0.control().set_faults(String::new().parse().expect("an empty plan"));
    world.finish(bridge).await
}

#[test]
fn answers_come_to_harm_on_the_way_to_kafka() {
    hold(both_models(Broker::Kafka), answers_come_to_harm);
}

#[test]
fn answers_come_to_harm_on_the_way_to_nats() {
    hold(both_models(Broker::Nats), answers_come_to_harm);
}
