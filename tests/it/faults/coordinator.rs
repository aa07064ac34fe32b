//! The transaction coordinator moves to another broker of a cluster: killed in the middle of transactions, or stopped in
//! order, again and again.

use std::time::Duration;

use rand::RngExt;
use viaduct_simulator::Redelivery;
use viaduct_testkit::kafka::KafkaCluster;

use crate::kit::case::{Broker, Case, Delivery, hold, rounds};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::world::{World, flowing};

/// How often it moves.
const ROUNDS: u64 = 2;

pub(super) async fn the_coordinator_moves(case: Case) -> Findings {
    let cluster = tokio::task::block_in_place(KafkaCluster::start_own);
    let line = Line::straight(cluster.bootstrap());
    let mut world = World::with(case, flowing(case, 300.0), line, |text| text).await;
    let mut random = case.random();
    let bridge = world.start();
    let mut moves = 0;
    for round in 0..rounds(ROUNDS) {
        if !world.flow(200).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        let before = tokio::task::block_in_place(|| {
            let number = cluster.coordinator().expect("somebody coordinates");
            let ended = if round % 2 == 0 { cluster.kill(number) } else { cluster.stop(number) };
            ended.expect("the broker ends");
            number
        });
        // Two brokers are enough to go on.
        let flowed = world.flow(200).await;
        tokio::task::block_in_place(|| {
            moves += u64::from(cluster.coordinator().is_ok_and(|now| now != before));
            cluster.restart(before).expect("the broker comes back");
        });
        if !flowed {
            break;
        }
    }
    world.findings.add(Findings::unless(moves == rounds(ROUNDS), Invariant::Recovers, || {
        format!("the coordinator has moved only {moves} times")
    }));
    let findings = world.finish(bridge).await;
    drop(cluster);
    findings
}

#[test]
fn in_a_cluster() {
    // A cluster is three Java processes: one at a time.
    for redelivery in [Redelivery::PerSessionNewThenPending, Redelivery::FromHead] {
        hold(
            vec![Case::new(Broker::Kafka, Delivery::ExactlyOnce).redelivery(redelivery)],
            the_coordinator_moves,
        );
    }
}
