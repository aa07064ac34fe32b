//! Each sink keeps its own progress: what is in Kafka and not in NATS is, after a crash, published to NATS only.

use std::time::{Duration, Instant};

use viaduct_simulator::Redelivery;

use crate::kit::case::{Broker, Case, Delivery, hold};
use crate::kit::holdings::Place;
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::world::{PATIENCE, World, flowing};

/// `case.broker` is the one that holds what the other one lacks.
pub(super) async fn one_is_ahead(case: Case) -> Findings {
    let other_broker = match case.broker {
        Broker::Kafka => Broker::Nats,
        Broker::Nats => Broker::Kafka,
    };
    let other_line = Line::to(other_broker).await;
    let mut other = Place::new(other_broker, &other_line);
    let second = other.sink_and_route(case, &other_line);
    let line = Line::to(case.broker).await;
    let mut world = World::with(case, flowing(case, 200.0), line, |text| text + &second).await;
    other.bridge.clone_from(&world.place.name);
    let mut bridge = world.start();
    world.flow(300).await;
    for _ in 0..3 {
        other_line.proxy().stall();
        world.acknowledgements_rest().await;
        let behind = other.read().await.records.len();
        let deadline = Instant::now() + PATIENCE;
        while world.place.read().await.records.len() <= behind && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.findings.add(Findings::unless(Instant::now() < deadline, Invariant::Recovers, || {
            format!("while one of the two is away, the other one does not get ahead of {behind} records")
        }));
        world.kill(&mut bridge);
        other_line.proxy().cut();
        other_line.proxy().heal();
        bridge = world.start();
        world.flow(300).await;
    }
    world.settles().await;
    let journal = world.vendor.journal();
    let mut findings = world.check(&journal, &other.read().await, &format!("{other_broker:?}"));
    findings.add(world.finish(bridge).await);
    findings
}

#[test]
fn only_the_one_that_lacks_it_gets_it() {
    let cases = [Broker::Kafka, Broker::Nats].into_iter().flat_map(|broker| {
        let case = Case::new(broker, Delivery::ExactlyOnce);
        [case, case.redelivery(Redelivery::FromHead)]
    });
    hold(cases.collect(), one_is_ahead);
}
