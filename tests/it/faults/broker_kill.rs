//! kill -9 of the broker in the middle of a batch, again and again. On Kafka the transaction coordinator goes with it, and
//! loads its state anew before it answers.

use std::time::Duration;

use rand::RngExt;
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::nats::NatsServer;

use crate::kit::case::{Broker, Case, both_models, hold, rounds};
use crate::kit::invariants::Findings;
use crate::kit::line::Line;
use crate::kit::world::{Tolerated, World, flowing};

/// A broker of the scenario's own.
#[derive(Debug)]
enum Own {
    Kafka(KafkaBroker),
    Nats(NatsServer),
}

impl Own {
    fn start(broker: Broker) -> Self {
        match broker {
            Broker::Kafka => Self::Kafka(KafkaBroker::start_own()),
            Broker::Nats => Self::Nats(NatsServer::start_own()),
        }
    }

    fn address(&self) -> &str {
        match self {
            Self::Kafka(broker) => broker.bootstrap(),
            Self::Nats(server) => server.url(),
        }
    }

    fn kill_and_restart(&self) {
        match self {
            Self::Kafka(broker) => {
                broker.kill().expect("it can be killed");
                broker.restart().expect("it comes back");
            }
            Self::Nats(server) => {
                server.kill();
                server.restart().expect("it comes back");
            }
        }
    }
}

pub(super) async fn the_broker_is_killed(case: Case) -> Findings {
    let own = Own::start(case.broker);
    let line = Line::straight(own.address());
    let mut world = World::with(case, flowing(case, 300.0), line, |text| text).await;
    world.tolerated_copies = Tolerated::Any;
    let mut random = case.random();
    let bridge = world.start();
    // A Kafka broker takes some seconds to come back.
    let default = if case.broker == Broker::Kafka { 2 } else { 8 };
    for _ in 0..rounds(default) {
        if !world.flow(200).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        tokio::task::block_in_place(|| own.kill_and_restart());
    }
    world.flow(200).await;
    let findings = world.finish(bridge).await;
    drop(own);
    findings
}

#[test]
fn kafka_is_killed() {
    hold(both_models(Broker::Kafka), the_broker_is_killed);
}

#[test]
fn nats_is_killed() {
    hold(both_models(Broker::Nats), the_broker_is_killed);
}
