//! Acknowledgements that are lost, applied but answered with an error, or partly not found: sent again, counted, and never
//! a reason to publish twice.

use viaduct_simulator::Settings;

use crate::kit::case::{Broker, Case, both_models, hold};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::world::{World, flowing};

/// Three acknowledgements in ten come to harm, most of them after they were applied.
const HARM: &str = "acknowledge:reset-after:8% acknowledge:5xx-after:8% acknowledge:cut:4% acknowledge:reset-before:4% \
                    acknowledge:5xx:4% acknowledge:html:2%";

pub(super) async fn acknowledgements_come_to_harm(case: Case) -> Findings {
    let settings = Settings { faults: HARM.parse().expect("a fault plan"), ..flowing(case, 400.0) };
    let mut world = World::new(case, settings).await;
    let bridge = world.start();
    for _ in 0..3 {
        world.flow(300).await;
        world.lull().await;
    }
    world.probe().await;
    let report = world.vendor.report();
    world.findings.add(Findings::unless(
        report.faults.values().sum::<u64>() >= 10 && report.acknowledged_again > 0,
        Invariant::Recovers,
        || format!("the scenario is too tame: {:?}, {} again", report.faults, report.acknowledged_again),
    ));
    world.vendor.0.control().set_faults(String::new().parse().expect("an empty plan"));
    // An answer that says so may itself be lost, so the bridge has heard of some of them.
    let (_, metrics) = bridge.get("/metrics").await.expect("the admin port answers");
    let counted = counted(&metrics, "viaduct_acknowledge_not_found_total{source=\"main\"}");
    let told = world.vendor.report().acknowledge_not_found;
    world.findings.add(Findings::unless((1..=told).contains(&counted), Invariant::Recovers, || {
        format!("{counted} ids are counted as not found, {told} were answered so")
    }));
    world.finish(bridge).await
}

/// The value of a metric; 0 where it is not there.
pub(super) fn counted(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn acknowledgements_come_to_harm_behind_kafka() {
    hold(both_models(Broker::Kafka), acknowledgements_come_to_harm);
}

#[test]
fn acknowledgements_come_to_harm_behind_nats() {
    hold(both_models(Broker::Nats), acknowledgements_come_to_harm);
}
