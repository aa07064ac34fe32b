//! A process that is frozen, replaced by another one with an empty state directory, and thawed: it must not publish a thing
//! any more, and say so.

use rand::RngExt;
use viaduct_simulator::Redelivery;

use crate::kit::bridge::Site;
use crate::kit::case::{Broker, Case, Delivery, hold, rounds};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::world::{PATIENCE, World, flowing};

/// How often a process is replaced.
const ROUNDS: u64 = 3;

pub(super) async fn replaced_while_frozen(case: Case) -> Findings {
    let mut world = World::new(case, flowing(case, 300.0)).await;
    // What was given to the zombie arrived nowhere, and comes to its heir later.
    world.answers_get_lost = true;
    world.has_zombies = true;
    let mut random = case.random();
    let mut bridge = world.start();
    for _ in 0..rounds(ROUNDS) {
        world.flow(300).await;
        tokio::time::sleep(std::time::Duration::from_millis(random.random_range(0..50))).await;
        bridge.signal("STOP");
        // Another machine: the same configuration, nothing else.
        let heir_site = Site::new(&world.configuration);
        let zombie_site = std::mem::replace(&mut world.site, heir_site);
        let heir = world.start();
        // The zombie had events in its hands.
        world.crashed();
        world.flow(300).await;
        bridge.signal("CONT");
        let ended = bridge.ends_within(PATIENCE).await.and_then(|status| status.code());
        world.findings.add(Findings::unless(ended == Some(75), Invariant::NoDuplicates, || {
            format!("the thawed process ended with {ended:?}, not with 75")
        }));
        let log = zombie_site.log();
        let says_so =
            log.lines().rev().take(20).any(|line| line.contains("taken over") || line.contains("fenced"));
        world.findings.add(Findings::unless(says_so, Invariant::NoDuplicates, || {
            format!("the thawed process does not say why it ends: {}", log.lines().last().unwrap_or_default())
        }));
        world.findings.add(crate::kit::invariants::discreet("the zombie's log", &log));
        bridge = heir;
        world.flow(200).await;
    }
    let created = world.vendor.report().sessions_created;
    world.findings.add(Findings::unless(created == 1, Invariant::Conduct, || {
        format!("{created} sessions: the heir goes on with the one that the checkpoint names")
    }));
    world.finish(bridge).await
}

fn cases(broker: Broker) -> Vec<Case> {
    let case = Case::new(broker, Delivery::ExactlyOnce);
    vec![case, case.redelivery(Redelivery::FromHead)]
}

#[test]
fn a_zombie_publishes_nothing_to_kafka() {
    hold(cases(Broker::Kafka), replaced_while_frozen);
}

#[test]
fn a_zombie_publishes_nothing_to_nats() {
    hold(cases(Broker::Nats), replaced_while_frozen);
}
