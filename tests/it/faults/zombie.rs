//! A process that is frozen, replaced by another one with an empty state directory, and thawed: it must not publish a thing
//! any more, and say so.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rand::RngExt;
use viaduct_simulator::{Redelivery, Settings};

use crate::kit::bridge::{Bridge, Site};
use crate::kit::case::{Broker, Case, Delivery, hold, rounds};
use crate::kit::invariants::{Findings, Invariant, discreet, repeated};
use crate::kit::vendor::Vendor;
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
        tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
        bridge.signal("STOP");
        // Another machine: the same configuration, nothing else.
        let heir_site = Site::new(&world.configuration);
        let zombie_site = std::mem::replace(&mut world.site, heir_site);
        let heir = world.start();
        // The zombie had events in its hands.
        world.crashed();
        world.flow(300).await;
        if case.mistake.is_some() {
            // One that goes on by mistake gets something to show it with: what the heir has committed is still unacknowledged,
            // and so comes to the thawed one, which does not know of it.
            world.vendor.0.control().hold_acknowledgements(true);
            let held = async |vendor: &Vendor| !vendor.0.control().held_acknowledgements().is_empty();
            world.comes("the heir acknowledges what it has committed", PATIENCE, held).await;
        }
        bridge.signal("CONT");
        let ended = match case.mistake {
            None => bridge.ends_within(PATIENCE).await,
            Some(_) => ends_or_goes_on(&mut bridge, &world).await,
        };
        let ended = ended.and_then(|status| status.code());
        world.vendor.0.control().hold_acknowledgements(false);
        world.findings.add(Findings::unless(ended == Some(75), Invariant::Recovers, || {
            format!("the thawed process ended with {ended:?}, not with 75")
        }));
        if ended.is_none() {
            bridge = heir;
            break;
        }
        let log = zombie_site.log();
        let says_so =
            log.lines().rev().take(20).any(|line| line.contains("taken over") || line.contains("fenced"));
        world.findings.add(Findings::unless(says_so, Invariant::Recovers, || {
            format!("the thawed process does not say why it ends: {}", log.lines().last().unwrap_or_default())
        }));
        world.findings.add(discreet("the zombie's log", &log));
        bridge = heir;
        world.flow(200).await;
    }
    let created = world.vendor.report().sessions_created;
    world.findings.add(Findings::unless(created == 1, Invariant::Conduct, || {
        format!("{created} sessions: the heir goes on with the one that the checkpoint names")
    }));
    world.finish(bridge).await
}

/// Waits until the process ends, or something stands twice at the destination: on a busy machine two that fence each other
/// come to publish late.
async fn ends_or_goes_on(bridge: &mut Bridge, world: &World) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let ended = bridge.ends_within(Duration::from_secs(1)).await;
        if ended.is_some() || !repeated(&world.place.read().await.records).is_empty() {
            return ended;
        }
    }
    None
}

/// A second process takes over while the first one is in full flow: what the first one has committed up to the moment of its
/// fencing counts, what it has not does not.
pub(super) async fn replaced_in_full_flow(case: Case) -> Findings {
    // What is pending comes again late, so that the first process polls ahead, whatever is acknowledged.
    let settings = Settings { redelivery_delay: Duration::from_secs(3), ..flowing(case, 150.0) };
    let mut world = World::new(case, settings).await;
    world.answers_get_lost = true;
    world.has_zombies = true;
    let mut random = case.random();
    let mut bridge = world.start();
    for round in 0..rounds(2 * ROUNDS) {
        world.flow(100).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..50))).await;
        let heir_site = Site::new(&world.configuration);
        let old_site = std::mem::replace(&mut world.site, heir_site);
        let dies = round % 2 == 0;
        // What the first one still commits stays unacknowledged, and so comes to its heir.
        world.vendor.0.control().hold_acknowledgements(dies);
        let heir = world.start();
        if dies {
            let log = world.site.path("log");
            let claimed = async |_: &Vendor| {
                std::fs::read_to_string(&log).is_ok_and(|log| log.contains("source claimed"))
            };
            world.comes("the heir has claimed the source", PATIENCE, claimed).await;
            world.kill(&mut bridge);
            world.vendor.0.control().hold_acknowledgements(false);
        } else {
            let ended = bridge.ends_within(PATIENCE).await.and_then(|status| status.code());
            world.crashed();
            world.findings.add(Findings::unless(ended == Some(75), Invariant::Recovers, || {
                format!("the process that was replaced ended with {ended:?}, not with 75")
            }));
        }
        world.findings.add(discreet("the log", &old_site.log()));
        bridge = heir;
    }
    world.flow(100).await;
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

#[test]
fn the_first_process_publishes_nothing_more_to_kafka() {
    hold(cases(Broker::Kafka), replaced_in_full_flow);
}

#[test]
fn the_first_process_publishes_nothing_more_to_nats() {
    hold(cases(Broker::Nats), replaced_in_full_flow);
}
