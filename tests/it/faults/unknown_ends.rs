//! Commits whose answer never comes: lost, late, or cut off with the connection. The checkpoint decides.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use crate::kit::case::{Broker, Case, both_models, hold, rounds};
use crate::kit::invariants::Findings;
use crate::kit::world::{Tolerated, World, flowing};

/// How often the way to the broker has an accident.
const ROUNDS: u64 = 12;

pub(super) async fn answers_never_come(case: Case) -> Findings {
    let mut world = World::new(case, flowing(case, 400.0)).await;
    // At least once, what was stored and not confirmed is stored again, on Kafka by a new producer.
    world.tolerated_copies = Tolerated::Any;
    let mut random = case.random();
    let bridge = world.start();
    world.flow(100).await;
    for round in 0..rounds(ROUNDS) {
        accident(&mut world, round % 4, &mut random).await;
        world.line.proxy().heal();
        if !world.flow(100).await {
            break;
        }
    }
    world.probe().await;
    world.finish(bridge).await
}

async fn accident(world: &mut World, kind: u64, random: &mut StdRng) {
    let proxy = world.line.proxy();
    let a_while = Duration::from_millis(random.random_range(1..400));
    match kind {
        // Everything arrives, nothing is answered, then the connection is gone.
        0 => {
            proxy.lose_answers();
            tokio::time::sleep(a_while).await;
            proxy.cut();
        }
        // What was sent arrives late, when its sender has given the connection up.
        1 => {
            proxy.stall();
            tokio::time::sleep(a_while).await;
            proxy.cut();
            tokio::time::sleep(a_while).await;
        }
        // The connection is gone, in the middle of whatever it was.
        2 => proxy.cut(),
        // Everything is late.
        _ => {
            proxy.stall();
            tokio::time::sleep(a_while * 3).await;
        }
    }
}

#[test]
fn kafka_never_answers() {
    hold(both_models(Broker::Kafka), answers_never_come);
}

#[test]
fn nats_never_answers() {
    hold(both_models(Broker::Nats), answers_never_come);
}
