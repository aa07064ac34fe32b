//! Destinations that say no: a topic that is deleted, a permission that is revoked, a subject without a stream, a stream that
//! is full, a record that is too large. Never lost, never a tight loop: held back with a reason until it is repaired, or a
//! dead letter.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use viaduct_simulator::{Redelivery, Settings, Types};
use viaduct_testkit::kafka::{self, KafkaBroker};

use super::acknowledge::counted;
use crate::kit::bridge::Bridge;
use crate::kit::case::{Broker, Case, both_models, hold};
use crate::kit::invariants::{Findings, Invariant};
use crate::kit::line::Line;
use crate::kit::world::{PATIENCE, World, flowing};

/// What is refused. The vendor makes less of it than of the rest.
const CATEGORY: &str = "messaging";

/// A topic is deleted in full flow, and made again later.
pub(super) async fn a_topic_is_deleted(case: Case) -> Findings {
    let line = Line::to(Broker::Kafka).await;
    let no_creation =
        |text: String| text.replace("create_topics = true\npartitions = 3", "create_topics = false");
    let mut world = World::with(case, flowing(case, 150.0), line, no_creation).await;
    let direct = world.line.direct.clone();
    let topic = |category: &str| format!("{}.{category}", world.place.name);
    let missing = topic(CATEGORY);
    for category in [CATEGORY, "engagementCenter", "outreach", "unknown", "dead-letter"] {
        kafka::create_topic(&direct, &topic(category), 1, &[]).await.expect("topics can be made");
    }
    let bridge = world.start();
    world.flow(100).await;
    // What stands there is gone with the topic, and nobody can help that.
    world.lull_and_keep(&missing).await;
    kafka::delete_topic(&direct, &missing).await.expect("topics can be deleted");
    world.vendor.0.control().resume();
    held_back(&mut world, &bridge, "does not exist").await;
    not_a_tight_loop(&mut world, &bridge).await;
    kafka::create_topic(&direct, &missing, 1, &[]).await.expect("topics can be made");
    world.flow(100).await;
    bridge.ready().await;
    world.finish(bridge).await
}

/// More events wait for a topic that is not there yet than a sink is offered at a time.
pub(super) async fn a_topic_is_made_late(case: Case) -> Findings {
    const WAITING: u64 = 2_500;
    let line = Line::to(Broker::Kafka).await;
    let much = |text: String| {
        text.replace("create_topics = true\npartitions = 3", "create_topics = false")
            .replace("max_events = 100\nmax_in_flight = 500", "max_events = 200\nmax_in_flight = 3000")
    };
    let settings = Settings {
        types: Types::Only(vec![format!("{CATEGORY}.*")]),
        // What is pending comes again late, so that the bridge polls ahead.
        redelivery_delay: Duration::from_secs(30),
        ..flowing(case, 1_000.0)
    };
    let mut world = World::with(case, settings, line, much).await;
    world.max_in_flight = 3_000;
    let bridge = world.start();
    held_back(&mut world, &bridge, "does not exist").await;
    if case.redelivery == Redelivery::PerSessionNewThenPending {
        world
            .comes("many events wait", PATIENCE, async |vendor| vendor.report().unacknowledged >= WAITING)
            .await;
    }
    let topic = format!("{}.{CATEGORY}", world.place.name);
    kafka::create_topic(&world.line.direct, &topic, 1, &[]).await.expect("topics can be made");
    world.flow(WAITING).await;
    bridge.ready().await;
    world.finish(bridge).await
}

/// Events of which every now and then one is larger than the broker takes. It cannot be published as a dead letter there
/// either, so it goes into the local file.
pub(super) async fn some_are_too_large(case: Case) -> Findings {
    let faults = "events:huge=1500000:@3,6,9,12".parse().expect("a fault plan");
    let mut world = World::new(case, Settings { faults, ..flowing(case, 200.0) }).await;
    let bridge = world.start();
    world
        .comes("four of them were made", PATIENCE, async |vendor| {
            vendor.report().faults.values().sum::<u64>() == 4
        })
        .await;
    world.flow(100).await;
    world.settles().await;
    let (_, metrics) = bridge.get("/metrics").await.expect("the admin port answers");
    let dead = counted(&metrics, "viaduct_events_dead_lettered_total{source=\"main\",reason=\"too_large\"}");
    world.findings.add(Findings::unless(dead == 4, Invariant::NothingLost, || {
        format!("{dead} events are counted as too large, 4 are")
    }));
    world.finish(bridge).await
}

/// The permission to write to a topic is revoked, and given again.
async fn a_permission_is_revoked(case: Case) -> Findings {
    let broker = tokio::task::block_in_place(|| {
        KafkaBroker::start_with(&[
            ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
            ("allow.everyone.if.no.acl.found", "true"),
        ])
    });
    let line = Line::straight(broker.bootstrap());
    let mut world = World::with(case, flowing(case, 100.0), line, |text| text).await;
    let topic = format!("{}.{CATEGORY}", world.place.name);
    // Once a topic has a rule, what no rule allows is forbidden. Reading has to stay possible.
    let acl = |change: &str, operation: &str| {
        let mut words = vec!["--bootstrap-server", broker.bootstrap(), change];
        if change == "--remove" {
            words.push("--force");
        }
        words.extend(["--allow-principal", "User:ANONYMOUS", "--operation", operation, "--topic", &topic]);
        tokio::task::block_in_place(|| broker.tool("org.apache.kafka.tools.AclCommand", &words))
            .expect("rules can be changed");
    };
    let bridge = world.start();
    world.flow(50).await;
    acl("--add", "Read");
    held_back(&mut world, &bridge, "not permitted").await;
    not_a_tight_loop(&mut world, &bridge).await;
    acl("--remove", "Read");
    world.flow(100).await;
    bridge.ready().await;
    let findings = world.finish(bridge).await;
    drop(broker);
    findings
}

/// A stream that takes no more messages, and later takes some again.
async fn a_stream_is_full(case: Case) -> Findings {
    let mut world = World::new(case, flowing(case, 150.0)).await;
    let bridge = world.start();
    world.flow(100).await;
    change_stream(&world, |config| {
        config.discard = stream::DiscardPolicy::New;
        config.max_messages = 10;
    })
    .await;
    held_back(&mut world, &bridge, "sink bus").await;
    not_a_tight_loop(&mut world, &bridge).await;
    change_stream(&world, |config| config.max_messages = -1).await;
    world.flow(100).await;
    bridge.ready().await;
    // Subjects are parked one by one: the order of a key holds within each.
    world.order_within_subjects = true;
    world.finish(bridge).await
}

/// Subjects that no stream takes any more, and later does again.
async fn a_subject_has_no_stream(case: Case) -> Findings {
    let mut world = World::new(case, flowing(case, 150.0)).await;
    let mut bridge = world.start();
    world.flow(100).await;
    // The stream is there now. A bridge that may create it would also mend it.
    bridge.terminate().await;
    let text = std::fs::read_to_string(world.site.config()).expect("a configuration");
    std::fs::write(world.site.config(), text.replace("create_stream = true", "create_stream = false"))
        .expect("it can be written");
    let bridge = world.start();
    world.flow(50).await;
    let mut subjects = Vec::new();
    let name = world.place.name.clone();
    change_stream(&world, |config| {
        subjects = config.subjects.clone();
        config.subjects.retain(|subject| subject.starts_with("_viaduct"));
        config
            .subjects
            .extend(["outreach.>", "engagementCenter.>"].map(|subject| format!("{name}.{subject}")));
    })
    .await;
    held_back(&mut world, &bridge, "sink bus").await;
    not_a_tight_loop(&mut world, &bridge).await;
    change_stream(&world, |config| config.subjects = subjects).await;
    world.flow(100).await;
    bridge.ready().await;
    // Subjects were parked one by one: the order of a key holds within each.
    world.order_within_subjects = true;
    world.finish(bridge).await
}

async fn change_stream(world: &World, change: impl FnOnce(&mut stream::Config)) {
    let client = async_nats::connect(&world.line.direct).await.expect("the server answers");
    let context = jetstream::new(client);
    let found = context.get_stream(&world.place.name).await.expect("the stream is there");
    let mut config = found.cached_info().config.clone();
    change(&mut config);
    context.update_stream(config).await.expect("the stream can be changed");
}

/// `/readyz` says why, and what concerns it is not acknowledged.
async fn held_back(world: &mut World, bridge: &Bridge, reason: &str) {
    let mut said = String::new();
    world
        .comes(&format!("/readyz says {reason:?}"), PATIENCE, async |_| match bridge.get("/readyz").await {
            Ok((503, text)) => {
                said = text;
                said.contains(reason)
            }
            _ => false,
        })
        .await;
    if !said.contains(reason) {
        world.findings.add(Findings::one(Invariant::Recovers, format!("/readyz said at last {said:?}")));
    }
}

/// While a destination says no, it is asked now and then, not all the time: a handful of times a second at most.
async fn not_a_tight_loop(world: &mut World, bridge: &Bridge) {
    let sink = world.place.sink();
    let tries = async || {
        let (_, metrics) = bridge.get("/metrics").await.expect("the admin port answers");
        let of_sink = format!("viaduct_sink_retries_total{{sink=\"{sink}\"");
        let lines = metrics.lines().filter(|line| line.starts_with(&of_sink));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let before = tries().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tried = tries().await - before;
    // Each try concerns as many records as wait.
    let most = 40 * crate::kit::world::MAX_IN_FLIGHT as u64;
    world.findings.add(Findings::unless(tried <= most, Invariant::Bounded, || {
        format!("{tried} retries in two seconds")
    }));
}

#[test]
fn a_deleted_topic() {
    hold(both_models(Broker::Kafka), a_topic_is_deleted);
}

#[test]
fn a_late_topic() {
    hold(both_models(Broker::Kafka), a_topic_is_made_late);
}

#[test]
fn records_too_large_for_kafka() {
    hold(both_models(Broker::Kafka), some_are_too_large);
}

#[test]
fn records_too_large_for_nats() {
    hold(both_models(Broker::Nats), some_are_too_large);
}

#[test]
fn a_revoked_permission() {
    // One model is enough: the vendor has no part in it.
    let cases = both_models(Broker::Kafka).into_iter().step_by(2);
    hold(cases.collect(), a_permission_is_revoked);
}

#[test]
fn a_full_stream() {
    hold(both_models(Broker::Nats), a_stream_is_full);
}

#[test]
fn a_subject_without_a_stream() {
    hold(both_models(Broker::Nats), a_subject_has_no_stream);
}
