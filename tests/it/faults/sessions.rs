//! Sessions that end: in full flow, while the bridge is down, with the vendor itself; under both redelivery models and all
//! three answers to what becomes of unacknowledged events then.

use std::time::Duration;

use viaduct_simulator::{Redelivery, Requeue, Settings};

use crate::kit::case::{Broker, Case, Delivery, hold};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::vendor::Vendor;
use crate::kit::world::{PATIENCE, World, flowing};

const SUBSCRIPTION: &str = r#"
[[source.main.subscription]]
description = "third party events"
catalog_type = "engagementCenterThirdParty"
events = ["ScreenPop", "Idle"]
resource_type = "users"
resource_ids = []
"#;

pub(super) async fn sessions_end(case: Case) -> Findings {
    // Short, because while events wait for the broker the bridge polls only to keep the session alive.
    let settings = Settings { granted_inactivity: Some(Duration::from_secs(2)), ..flowing(case, 300.0) };
    let line = Line::to(case.broker).await;
    let mut world = World::with(case, settings, line, |text| text + SUBSCRIPTION).await;
    let mut bridge = world.start();
    world.flow(200).await;
    expire(&mut world, "the session ends in full flow").await;
    world.flow(200).await;

    // As if the vendor were started anew: no session and no token is known to it any more. With the way to the broker
    // stalled, many events are unacknowledged at that moment.
    world.line.proxy().stall();
    world.acknowledgements_rest().await;
    world.vendor.0.control().revoke_tokens();
    expire(&mut world, "the vendor restarts while events wait for the broker").await;
    world.line.proxy().heal();
    world.flow(200).await;

    // The session that the next process finds saved is dead already.
    world.kill(&mut bridge);
    // Or else the dead one's last GET is answered with it, which the vendor takes for told.
    let gone = async |vendor: &Vendor| vendor.0.control().polls_under_way() == 0;
    world.comes("the killed process's connections are gone", PATIENCE, gone).await;
    world.vendor.0.control().expire_all_sessions();
    let bridge = world.start();
    world.flow(200).await;

    let report = world.vendor.report();
    world.findings.add(Findings::unless(report.sessions.len() == 4, Invariant::Conduct, || {
        format!("{} sessions, not 4", report.sessions.len())
    }));
    for session in &report.sessions {
        let declared: Vec<&str> = session
            .subscriptions_at_first_get
            .iter()
            .flatten()
            .filter_map(|subscription| subscription["description"].as_str())
            .collect();
        let right = declared == ["third party events"] || session.gets == 0;
        world.findings.add(Findings::unless(right, Invariant::Conduct, || {
            format!("the subscriptions of a session at its first GET are {declared:?}")
        }));
    }
    world.finish(bridge).await
}

async fn expire(world: &mut World, what: &str) {
    let before = world.vendor.report().sessions_created;
    world.vendor.0.control().expire_all_sessions();
    world.comes(what, PATIENCE, async |vendor| vendor.report().sessions_created > before).await;
}

/// Everything that the vendor might do with unacknowledged events.
fn cases(broker: Broker, delivery: Delivery) -> Vec<Case> {
    let mut cases = Vec::new();
    for redelivery in [Redelivery::PerSessionNewThenPending, Redelivery::FromHead] {
        for requeue in [Requeue::SameId, Requeue::NewId, Requeue::Lost] {
            cases.push(Case::new(broker, delivery).redelivery(redelivery).requeue(requeue));
        }
    }
    cases
}

#[test]
fn sessions_end_at_least_once_kafka() {
    hold(cases(Broker::Kafka, Delivery::AtLeastOnce), sessions_end);
}

#[test]
fn sessions_end_exactly_once_kafka() {
    hold(cases(Broker::Kafka, Delivery::ExactlyOnce), sessions_end);
}

#[test]
fn sessions_end_at_least_once_nats() {
    hold(cases(Broker::Nats, Delivery::AtLeastOnce), sessions_end);
}

#[test]
fn sessions_end_exactly_once_nats() {
    hold(cases(Broker::Nats, Delivery::ExactlyOnce), sessions_end);
}
