//! kill -9 of the bridge: at every decisive moment, and at random ones in between.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use viaduct_faults::Moment;

use crate::kit::bridge::Bridge;
use crate::kit::case::{Broker, Case, both_models, hold, rounds};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::world::{PATIENCE, World, flowing};

/// Enough for each moment twice, and some random ones.
const ROUNDS: u64 = 16;

/// A process that dies at each moment in turn, and now and then at a random one; then all is let come to rest.
pub(super) async fn again_and_again(case: Case) -> Findings {
    let mut world = World::new(case, flowing(case, 500.0)).await;
    let mut random = case.random();
    let rounds = rounds(ROUNDS);
    for round in 0..rounds {
        match Moment::ALL.get(round as usize % (Moment::ALL.len() + 2)) {
            Some(moment) => die_at(&mut world, *moment, &mut random).await,
            None => die_somewhere(&mut world, round % 2 == 0, &mut random).await,
        }
        if !world.findings.0.is_empty() {
            // What comes now would only wait for what does not come.
            break;
        }
        if round == rounds / 2 {
            let bridge = world.start();
            world.flow(100).await;
            world.probe().await;
            let mut bridge: Bridge = bridge;
            world.kill(&mut bridge);
        }
    }
    let bridge = world.start();
    world.flow(500).await;
    let created = world.vendor.report().sessions_created;
    world.findings.add(Findings::unless(created == 1, Invariant::Conduct, || {
        format!("{created} sessions: every start resumes the first one")
    }));
    world.finish(bridge).await
}

/// The process ends itself, at this moment, for the n-th time.
async fn die_at(world: &mut World, moment: Moment, random: &mut StdRng) {
    let times = random.random_range(1..=12);
    let mut bridge = world.start_dying(moment, times);
    if bridge.ends_within(PATIENCE).await.is_none() {
        let text = format!("{} was not passed {times} times in {PATIENCE:?}", moment.as_str());
        world.findings.add(Findings::one(Invariant::Recovers, text));
        world.kill(&mut bridge);
        return;
    }
    world.crashed();
}

/// SIGKILL after a random time, in full flow or from before the first poll on.
async fn die_somewhere(world: &mut World, in_flow: bool, random: &mut StdRng) {
    let mut bridge = world.start();
    if in_flow {
        world.flow(1).await;
    }
    tokio::time::sleep(Duration::from_micros(random.random_range(0..300_000))).await;
    world.kill(&mut bridge);
}

#[test]
fn killed_on_the_way_to_kafka() {
    hold(both_models(Broker::Kafka), again_and_again);
}

#[test]
fn killed_on_the_way_to_nats() {
    hold(both_models(Broker::Nats), again_and_again);
}
