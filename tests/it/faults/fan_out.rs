//! Each sink keeps its own progress: what is in Kafka and not in NATS is, after a crash, published to NATS only.

use std::time::{Duration, Instant};

use viaduct_simulator::Redelivery;

use crate::kit::case::{Broker, Case, Delivery, hold};
use crate::kit::holdings::Place;
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::world::{PATIENCE, World, flowing};

/// Stalls the way to `other` at a moment when the world's own place gets ahead of it; leaves it stalled.
///
/// A stall may fall between a batch that both hold and the answer to it. A serial source then fetches nothing more until
/// its session needs a poll, and neither can be ahead: another moment is tried.
async fn gets_ahead(world: &mut World, other: &Place, other_line: &Line) -> bool {
    let deadline = Instant::now() + PATIENCE;
    loop {
        other_line.proxy().stall();
        world.acknowledgements_rest().await;
        let behind = other.read().await.records.len();
        let moment = Instant::now() + Duration::from_secs(3);
        while Instant::now() < moment {
            if world.place.read().await.records.len() > behind {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if Instant::now() > deadline {
            return false;
        }
        other_line.proxy().heal();
        world.flow(30).await;
    }
}

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
        let ahead = gets_ahead(&mut world, &other, &other_line).await;
        world.findings.add(Findings::unless(ahead, Invariant::Recovers, || {
            "while one of the two is away, the other one does not get ahead of it".to_owned()
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
