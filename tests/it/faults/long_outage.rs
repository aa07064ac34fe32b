//! A broker that is away for longer than the vendor keeps a session, as seen by the bridge: connections hang, new ones too.
//! (`outage.rs` does the same with brokers that are really stopped.)

use std::time::Duration;

use viaduct_simulator::Settings;

use crate::kit::case::{Broker, Case, both_models, hold};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::world::{MAX_IN_FLIGHT, PATIENCE, World, flowing};

/// The vendor drops a session after this long without a poll: a shortened clock.
const INACTIVITY: Duration = Duration::from_secs(2);

pub(super) async fn the_broker_is_away(case: Case) -> Findings {
    let settings = Settings { granted_inactivity: Some(INACTIVITY), ..flowing(case, 300.0) };
    let mut world = World::new(case, settings).await;
    let bridge = world.start();
    world.flow(300).await;
    world.line.proxy().stall();
    world.line.proxy().cut();
    let before = world.acknowledgements_rest().await;
    let over = tokio::time::Instant::now() + INACTIVITY * 4;
    world.comes("the outage is long enough", PATIENCE, async |_| tokio::time::Instant::now() > over).await;
    let report = world.vendor.report();
    world.findings.add(Findings::unless(
        report.acknowledged == before,
        Invariant::AcknowledgedAfterReadable,
        || format!("{} events were acknowledged during the outage", report.acknowledged - before),
    ));
    world.acknowledged_is_readable().await;
    world.findings.add(Findings::unless(
        (report.sessions_created, report.sessions_expired) == (1, 0),
        Invariant::Conduct,
        || {
            format!(
                "{} sessions, {} expired: it is kept alive",
                report.sessions_created, report.sessions_expired
            )
        },
    ));
    let held = report.unacknowledged;
    world.findings.add(Findings::unless(held <= MAX_IN_FLIGHT as u64, Invariant::Bounded, || {
        format!("the vendor waits for {held} events, more than {MAX_IN_FLIGHT}")
    }));
    world.line.proxy().heal();
    bridge.ready().await;
    world.finish(bridge).await
}

#[test]
fn kafka_is_away() {
    hold(both_models(Broker::Kafka), the_broker_is_away);
}

#[test]
fn nats_is_away() {
    hold(both_models(Broker::Nats), the_broker_is_away);
}
