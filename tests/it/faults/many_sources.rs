//! Hundreds of sources in one process, some of them slow, through a rolling restart.

use std::time::{Duration, Instant};

use viaduct_simulator::{Rate, Redelivery, Settings};

use crate::kit::bridge::{Bridge, Site};
use crate::kit::case::{Broker, Case, Delivery, hold};
use crate::kit::holdings::Place;
use crate::kit::invariants::{
    Findings, Invariant, discreet, in_order_per_key, no_duplicates, nothing_lost, well_behaved,
};
use crate::kit::line::Line;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::world::PATIENCE;

const SOURCES: usize = 200;
/// Every n-th vendor answers its polls this slowly.
const SLOW: (usize, &str) = (20, "events:slow=3s:always");
/// For the whole process, with an HTTP client, a session and a pipeline per source.
const MEMORY_KIB: u64 = 320 * 1024;

/// The vendors of all sources. Each makes a few events per second, under ids that the others use too.
async fn vendors(case: Case) -> Vec<Vendor> {
    let mut vendors = Vec::with_capacity(SOURCES);
    for number in 0..SOURCES {
        let faults = if number % SLOW.0 == 0 { SLOW.1 } else { "" };
        let settings = Settings {
            org: format!("org{number}"),
            seed: case.seed + number as u64,
            redelivery: case.redelivery,
            rate: Rate::PerSecond(1.0),
            total: None,
            faults: faults.parse().expect("a fault plan"),
            ..settings()
        };
        vendors.push(Vendor::start(settings).await);
    }
    vendors
}

fn is_slow(number: usize) -> bool {
    number.is_multiple_of(SLOW.0)
}

/// Waits until every fast source has been given, and has acknowledged, this many more events.
async fn fast_ones_flow(vendors: &[Vendor], more: u64) -> Findings {
    let before: Vec<u64> = vendors.iter().map(|vendor| vendor.report().acknowledged).collect();
    // As long as ever more of them are done it may take its time.
    let mut progress = (SOURCES, Instant::now());
    loop {
        let behind: Vec<usize> = (0..SOURCES)
            .filter(|number| !is_slow(*number))
            .filter(|number| vendors[*number].report().acknowledged < before[*number] + more)
            .collect();
        if behind.is_empty() {
            return Findings::default();
        }
        if behind.len() < progress.0 {
            progress = (behind.len(), Instant::now());
        }
        if progress.1.elapsed() > PATIENCE {
            let text = format!("{} fast sources do not flow, the first is {}", behind.len(), behind[0]);
            return Findings::one(Invariant::Recovers, text);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ends_cleanly(bridge: &mut Bridge) -> Findings {
    let most = bridge.most_resident_kib().unwrap_or(0);
    let mut findings = Findings::unless(most <= MEMORY_KIB, Invariant::Bounded, || {
        format!("{most} KiB resident, more than {MEMORY_KIB}")
    });
    println!("{most} KiB resident at most");
    bridge.signal("TERM");
    let ended = bridge.ends_within(PATIENCE).await.and_then(|status| status.code());
    findings.add(Findings::unless(ended == Some(0), Invariant::Recovers, || {
        format!("the bridge ended with {ended:?}")
    }));
    findings
}

async fn rolling_restart(case: Case) -> Findings {
    let vendors = vendors(case).await;
    let line = Line::to(case.broker).await;
    let place = Place::new(case.broker, &line);
    let mut configuration = place
        .configuration(case, &line)
        .replace("{category}", "{source}")
        .replace("partitions = 3", "partitions = 1");
    for (number, vendor) in vendors.iter().enumerate() {
        // A client is told apart by its id.
        configuration += &vendor
            .source("max_events = 50\nmax_in_flight = 200\n")
            .replace("[source.main", &format!("[source.s{number}"))
            .replace("org_id = \"acme\"", &format!("org_id = \"org{number}\""))
            .replace("hunter2-id", &format!("hunter2-id{number}"));
    }
    let mut site = Site::new(&configuration);
    let mut findings = Findings::default();
    for _ in 0..2 {
        let mut bridge = site.start();
        findings.add(fast_ones_flow(&vendors, 4).await);
        findings.add(ends_cleanly(&mut bridge).await);
    }
    let mut bridge = site.start();
    findings.add(fast_ones_flow(&vendors, 2).await);
    for vendor in &vendors {
        vendor.0.control().pause();
        vendor.0.control().set_faults(String::new().parse().expect("an empty plan"));
    }
    let deadline = Instant::now() + PATIENCE;
    while !vendors.iter().all(Vendor::is_settled) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let settled = vendors.iter().filter(|vendor| vendor.is_settled()).count();
    findings.add(Findings::unless(settled == SOURCES, Invariant::Recovers, || {
        format!("only {settled} sources come to rest")
    }));
    findings.add(ends_cleanly(&mut bridge).await);
    findings.add(discreet("the log", &site.log()));
    if !findings.0.is_empty() {
        site.keep();
        return findings;
    }

    let holdings = place.read().await;
    let mut events = 0;
    for (number, vendor) in vendors.iter().enumerate() {
        let journal = vendor.journal();
        events += journal.report.emitted;
        let topic = format!("{}.s{number}", place.name);
        let mine: Vec<_> = holdings
            .records
            .iter()
            .filter(|seen| seen.destination == topic || seen.destination.starts_with(&format!("{topic}.")))
            .cloned()
            .collect();
        findings.add(nothing_lost(&topic, &journal, &mine, &holdings.buried()));
        // Nothing crashed.
        findings.add(no_duplicates(&topic, &mine));
        findings.add(in_order_per_key(&topic, &journal, &mine));
        findings.add(well_behaved(&journal.report));
        let created = journal.report.sessions_created;
        findings.add(Findings::unless(created == 1, Invariant::Conduct, || {
            format!("source {number} had {created} sessions")
        }));
    }
    if case.exactly_once() {
        findings.add(holdings.check_checkpoints(SOURCES, 4096));
    }
    println!("{case}: {events} events of {SOURCES} sources");
    findings
}

#[test]
fn two_hundred_sources_and_a_rolling_restart() {
    // The two that share the most: one Kafka transaction for all, and one JetStream stream.
    let cases = [
        Case::new(Broker::Kafka, Delivery::ExactlyOnce),
        Case::new(Broker::Nats, Delivery::AtLeastOnce).redelivery(Redelivery::FromHead),
    ];
    for case in cases {
        hold(vec![case], rolling_restart);
    }
}
