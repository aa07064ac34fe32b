//! The end of a Kafka transaction, under a proxy that understands the protocol: the answer to EndTxn is lost, late, or cut
//! off; the request itself never arrives.

use std::time::Duration;

use rand::RngExt;
use viaduct_simulator::Redelivery;
use viaduct_testkit::proxy_kafka::{Api, Fate, KafkaProxy};

use crate::kit::case::{Broker, Case, Delivery, hold, rounds};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::world::{PATIENCE, World, flowing};

/// How many commits come to harm.
const ROUNDS: u64 = 4;

pub(super) async fn commits_come_to_harm(case: Case) -> Findings {
    let (broker, proxy) = KafkaProxy::with_broker(&[]).await;
    let mut line = Line::straight(broker.bootstrap());
    line.through = proxy.bootstrap();
    let mut world = World::with(case, flowing(case, 200.0), line, |text| text).await;
    let mut random = case.random();
    let bridge = world.start();
    world.flow(100).await;
    for round in 0..rounds(ROUNDS) {
        let fate = match round % 4 {
            0 => Fate::AnswerLost,
            1 => Fate::CutAtAnswer,
            2 => Fate::CutAtRequest,
            // A commit is waited for for ten seconds.
            _ => Fate::AnswerDelayed(Duration::from_millis(random.random_range(8_000..12_000))),
        };
        let before = proxy.applied();
        proxy.nth(Api::EndTxn, random.random_range(1..4), fate);
        world.comes("a commit comes to harm", PATIENCE, async |_| proxy.applied() > before).await;
        if !world.flow(100).await {
            break;
        }
    }
    world.findings.add(Findings::unless(proxy.applied() >= 1, Invariant::Recovers, || {
        "the scenario is too tame: no commit came to harm".to_owned()
    }));
    let findings = world.finish(bridge).await;
    drop((broker, proxy));
    findings
}

#[test]
fn commits_without_an_answer() {
    let case = Case::new(Broker::Kafka, Delivery::ExactlyOnce);
    hold(vec![case, case.redelivery(Redelivery::FromHead)], commits_come_to_harm);
}
