//! kill -9 of the bridge at random moments: nothing lost, order per key.
//!
//! `VIADUCT_FAULT_SEED` and `VIADUCT_FAULT_ROUNDS` make a run reproducible, and longer.

use std::collections::HashSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use viaduct_simulator::{Rate, Redelivery, Settings};
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::nats::NatsServer;

use crate::kit::bridge::Site;
use crate::kit::destinations::{Stream, Topics};
use crate::kit::invariants::{Seen, in_order_per_key, nothing_lost, repeated, well_behaved};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// How many events a bridge may hold, and so how many one crash may duplicate.
const MAX_IN_FLIGHT: usize = 500;

struct Outcome {
    vendor: Vendor,
    crashes: usize,
}

/// Kills the bridge again and again while events flow, then lets everything arrive.
async fn crash_again_and_again(site: &Site, vendor: Vendor, seed: u64) -> Outcome {
    let rounds = number("VIADUCT_FAULT_ROUNDS", 30);
    let mut random = StdRng::seed_from_u64(seed);
    let control = vendor.0.control();
    for round in 0..rounds {
        let mut bridge = site.start();
        // Round by round it gets further: from before the first poll into full flow.
        let before = vendor.report().acknowledged;
        if round % 5 != 0 {
            until("events flow", Duration::from_secs(60), async || vendor.report().acknowledged > before)
                .await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        bridge.kill();
    }
    control.pause();
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(120)).await;
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
    Outcome { vendor, crashes: rounds as usize }
}

fn check(what: &str, outcome: &Outcome, seen: &[Seen]) {
    let journal = outcome.vendor.journal();
    // A new process cannot know what the killed one was told, or that its GET is still open at the vendor.
    let mut lenient = journal.report.clone();
    lenient.misbehaviour.remove("concurrent_gets");
    well_behaved(&lenient);
    nothing_lost(what, &journal, seen, &HashSet::new());
    in_order_per_key(what, &journal, seen);
    let duplicates: usize = repeated(seen).values().map(|count| count - 1).sum();
    let most = outcome.crashes * MAX_IN_FLIGHT;
    assert!(duplicates <= most, "{what}: {duplicates} duplicates after {} crashes", outcome.crashes);
    assert_eq!(journal.report.sessions_created, 1, "{what}: every start resumes the session");
    println!(
        "{what}: {} events, {} crashes, {duplicates} duplicates",
        journal.report.emitted, outcome.crashes
    );
}

fn vendor_settings(redelivery: Redelivery, seed: u64) -> Settings {
    Settings {
        seed,
        redelivery,
        redelivery_delay: Duration::from_millis(200),
        rate: Rate::PerSecond(3_000.0),
        total: None,
        interactions: 20,
        ..settings()
    }
}

async fn kafka(redelivery: Redelivery) {
    let seed = number("VIADUCT_FAULT_SEED", 1);
    let vendor = Vendor::start(vendor_settings(redelivery, seed)).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let source = vendor.source(&format!("max_in_flight = {MAX_IN_FLIGHT}"));
    let site = Site::new(&[source, topics.sink("")].concat());
    let outcome = crash_again_and_again(&site, vendor, seed).await;
    check("Kafka", &outcome, &topics.read().await);
}

async fn nats(redelivery: Redelivery) {
    let seed = number("VIADUCT_FAULT_SEED", 2);
    let vendor = Vendor::start(vendor_settings(redelivery, seed)).await;
    let stream = Stream::new(NatsServer::shared().url());
    let source = vendor.source(&format!("max_in_flight = {MAX_IN_FLIGHT}"));
    let site = Site::new(&[source, stream.sink("")].concat());
    let outcome = crash_again_and_again(&site, vendor, seed).await;
    check("NATS", &outcome, &stream.read().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_publishing_to_kafka_new_then_pending() {
    kafka(Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_publishing_to_kafka_from_head() {
    kafka(Redelivery::FromHead).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_publishing_to_nats_new_then_pending() {
    nats(Redelivery::PerSessionNewThenPending).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_publishing_to_nats_from_head() {
    nats(Redelivery::FromHead).await;
}
