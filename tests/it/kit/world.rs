//! One scenario's world: the vendor, a way to a broker, a place in it, a bridge's folder, and what has happened so far.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use viaduct_faults::Moment;
use viaduct_simulator::{Rate, Settings};

use super::bridge::{Bridge, Site};
use super::case::Case;
use super::holdings::{Holdings, Place};
use super::invariants::{
    Findings, Invariant, Journal, Seen, discreet, duplicates_of_crashes_only, in_order_of_arrival,
    in_order_per_key, no_duplicates, nothing_lost, well_behaved_over,
};
use super::line::Line;
use super::vendor::{Vendor, settings};

/// How long anything may take that should take no time at all. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);
/// How much memory a bridge of one source may need.
const MEMORY_KIB: u64 = 96 * 1024;
/// `max_in_flight` of the bridges here, unless a scenario says otherwise.
pub(crate) const MAX_IN_FLIGHT: usize = 500;

/// A scenario under way.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) case: Case,
    pub(crate) vendor: Vendor,
    pub(crate) line: Line,
    pub(crate) place: Place,
    pub(crate) site: Site,
    /// Without what the site adds.
    pub(crate) configuration: String,
    /// What was found on the way.
    pub(crate) findings: Findings,
    /// Whether answers get lost between vendor and bridge: then what was returned first need not have arrived first.
    pub(crate) answers_get_lost: bool,
    /// How many copies of an event may stand in the destination beyond the first, whatever happened.
    pub(crate) tolerated_copies: Tolerated,
    /// `max_in_flight` of the bridge.
    pub(crate) max_in_flight: usize,
    /// Whether the order of a key is one within each subject: they were parked one by one.
    pub(crate) order_within_subjects: bool,
    /// Records that were read before their destination was destroyed.
    pub(crate) kept: Vec<Seen>,
    /// Whether two processes may poll one session at a time, because one of them is a zombie that cannot know.
    pub(crate) has_zombies: bool,
    /// In how many crashes an event was unacknowledged.
    unacknowledged: HashMap<String, usize>,
    crashes: u64,
    /// How many deliveries there had been when a bridge was started.
    starts: Vec<usize>,
    /// The first event that may still be unacknowledged.
    first_open: usize,
}

/// At least once: which copies are no finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tolerated {
    /// Those of events that were unacknowledged in a crash.
    OfCrashes,
    /// Any: the broker itself was killed, or its answers were lost.
    Any,
}

/// The vendor of most scenarios: a steady flow without end.
pub(crate) fn flowing(case: Case, per_second: f64) -> Settings {
    Settings {
        seed: case.seed,
        redelivery: case.redelivery,
        redelivery_delay: Duration::from_millis(200),
        requeue: case.requeue,
        rate: Rate::PerSecond(per_second),
        total: None,
        interactions: 20,
        ..settings()
    }
}

impl World {
    /// A vendor of these settings, and a line to the broker that everybody shares.
    pub(crate) async fn new(case: Case, settings: Settings) -> Self {
        let line = Line::to(case.broker).await;
        Self::with(case, settings, line, |text| text).await
    }

    /// With a line of the scenario's own, and a configuration that it has had its hands on.
    pub(crate) async fn with(
        case: Case,
        settings: Settings,
        line: Line,
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        let vendor = Vendor::start(settings).await;
        let place = Place::new(case.broker, &line);
        let source = vendor.source(&format!("max_events = 100\nmax_in_flight = {MAX_IN_FLIGHT}"));
        let configuration = edit([place.configuration(case, &line), source].concat());
        let site = Site::new(&configuration);
        Self {
            case,
            vendor,
            line,
            place,
            site,
            configuration,
            findings: Findings::default(),
            answers_get_lost: false,
            tolerated_copies: Tolerated::OfCrashes,
            kept: Vec::new(),
            max_in_flight: MAX_IN_FLIGHT,
            order_within_subjects: false,
            has_zombies: false,
            unacknowledged: HashMap::new(),
            crashes: 0,
            starts: Vec::new(),
            first_open: 0,
        }
    }

    /// Starts a bridge.
    pub(crate) fn start(&mut self) -> Bridge {
        self.start_with("")
    }

    /// Starts a bridge that dies when it comes to this moment for so many times.
    pub(crate) fn start_dying(&mut self, moment: Moment, times: u64) -> Bridge {
        self.start_with(&format!("crash:{}:{times}", moment.as_str()))
    }

    fn start_with(&mut self, faults: &str) -> Bridge {
        self.begin();
        let mistake = self.case.mistake.map(|mistake| format!("mistake:{}", mistake.as_str()));
        let faults: Vec<&str> = [faults, mistake.as_deref().unwrap_or_default()]
            .into_iter()
            .filter(|text| !text.is_empty())
            .collect();
        self.site.start_with(&faults.join(","))
    }

    /// A process begins: what comes from here on comes to it.
    pub(crate) fn begin(&mut self) {
        self.starts.push(self.vendor.0.control().deliveries().len());
    }

    /// A process is gone, in whatever way: what is unacknowledged now may come to stand there once more.
    pub(crate) fn crashed(&mut self) {
        self.crashes += 1;
        let events = self.vendor.0.control().events(self.first_open, usize::MAX);
        let open = |state: &str| matches!(state, "pending" | "queued");
        self.first_open = events
            .iter()
            .find(|event| open(&event.state))
            .map_or(self.first_open + events.len(), |event| event.number as usize);
        for event in events.into_iter().filter(|event| open(&event.state)) {
            if let Some(id) = event.event_id {
                *self.unacknowledged.entry(id).or_default() += 1;
            }
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, bridge: &mut Bridge) {
        self.remember_memory(bridge);
        bridge.kill();
        self.crashed();
    }

    /// Waits until something holds; otherwise that is a finding (I7).
    pub(crate) async fn comes(
        &mut self,
        what: &str,
        patience: Duration,
        mut holds: impl AsyncFnMut(&Vendor) -> bool,
    ) -> bool {
        // After a finding nothing more is worth waiting for long: the scenario has failed.
        let patience = if self.findings.0.is_empty() { patience } else { Duration::from_secs(2) };
        let deadline = Instant::now() + patience;
        while !holds(&self.vendor).await {
            if Instant::now() > deadline {
                self.findings
                    .add(Findings::one(Invariant::Recovers, format!("not within {patience:?}: {what}")));
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    /// Waits until this many more events are acknowledged. As long as some are, that may take its time.
    pub(crate) async fn flow(&mut self, count: u64) -> bool {
        let wanted = self.vendor.report().acknowledged + count;
        loop {
            let now = self.vendor.report().acknowledged;
            if now >= wanted {
                return true;
            }
            let what = format!("{} more events are acknowledged", wanted - now);
            let progressed = async |vendor: &Vendor| vendor.report().acknowledged > now;
            if !self.comes(&what, PATIENCE, progressed).await {
                return false;
            }
        }
    }

    /// The vendor makes no more events until all are acknowledged: what was given out in vain comes again, behind what is
    /// newer.
    pub(crate) async fn lull(&mut self) {
        self.settles().await;
        self.vendor.0.control().resume();
    }

    /// The same, without letting the vendor go on; and what stands in a topic now counts as published though it is destroyed.
    pub(crate) async fn lull_and_keep(&mut self, topic: &str) {
        self.settles().await;
        let records = self.place.read().await.records;
        self.kept.extend(records.into_iter().filter(|seen| seen.destination == topic));
    }

    /// I7: the vendor makes no more events, and the lag returns to 0 by itself. As long as it gets smaller, that may take
    /// its time.
    pub(crate) async fn settles(&mut self) {
        self.vendor.0.control().pause();
        let started = Instant::now();
        let mut progress = (0, started);
        while !self.vendor.is_settled() {
            let acknowledged = self.vendor.report().acknowledged;
            if acknowledged != progress.0 {
                progress = (acknowledged, Instant::now());
            }
            let patience = if self.findings.0.is_empty() { PATIENCE } else { Duration::from_secs(5) };
            if progress.1.elapsed() > patience || started.elapsed() > 4 * PATIENCE {
                let report = self.vendor.report();
                let text = format!(
                    "after {:?}, {} events are not acknowledged, {} wait at the vendor",
                    started.elapsed(),
                    report.unacknowledged,
                    report.queued + report.waiting.unwrap_or(0)
                );
                self.findings.add(Findings::one(Invariant::Recovers, text));
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until no acknowledgement comes any more, or clearly comes without end.
    pub(crate) async fn acknowledgements_rest(&mut self) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut last = (self.vendor.report().acknowledged, Instant::now());
        while last.1.elapsed() < Duration::from_millis(400) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = self.vendor.report().acknowledged;
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        last.0
    }

    /// I2: with the way to the broker stalled, nothing can become readable any more; so what is acknowledged, now or while
    /// it lasts, has to be readable already.
    pub(crate) async fn probe(&mut self) {
        self.line.proxy().stall();
        self.acknowledgements_rest().await;
        self.acknowledged_is_readable().await;
        self.line.proxy().heal();
    }

    /// I2, where nothing can become readable at the moment.
    pub(crate) async fn acknowledged_is_readable(&mut self) {
        let events = self.vendor.0.control().events(0, usize::MAX);
        let readable = self.place.read().await.readable();
        let early: Vec<String> = events
            .into_iter()
            .filter(|event| event.state == "acknowledged")
            .filter_map(|event| event.event_id)
            .filter(|id| !readable.contains(id))
            .collect();
        self.findings.add(Findings::unless(early.is_empty(), Invariant::AcknowledgedAfterReadable, || {
            format!("{} events are acknowledged and not readable, the first: {}", early.len(), early[0])
        }));
    }

    fn remember_memory(&mut self, bridge: &Bridge) {
        let Some(most) = bridge.most_resident_kib() else { return };
        self.findings.add(Findings::unless(most <= MEMORY_KIB, Invariant::Bounded, || {
            format!("{most} KiB resident, more than {MEMORY_KIB}")
        }));
    }

    /// The vendor makes no more events; waits until all are acknowledged, ends the bridge, and looks at everything.
    pub(crate) async fn finish(mut self, mut bridge: Bridge) -> Findings {
        self.settles().await;
        self.remember_memory(&bridge);
        bridge.signal("TERM");
        let ended = bridge.ends_within(PATIENCE).await.and_then(|status| status.code());
        let clean = ended == Some(0) || !self.findings.0.is_empty();
        self.findings
            .add(Findings::unless(clean, Invariant::Recovers, || format!("the bridge ended with {ended:?}")));
        drop(bridge);
        self.look().await
    }

    /// Looks at everything, when no bridge runs any more.
    pub(crate) async fn look(mut self) -> Findings {
        let journal = self.vendor.journal();
        let mut holdings = self.place.read().await;
        holdings.records.splice(0..0, std::mem::take(&mut self.kept));
        if self.order_within_subjects {
            holdings.records.iter_mut().for_each(|seen| seen.place.clone_from(&seen.destination));
        }
        holdings.take_local(&self.site.path("state/dead-letters"));
        self.findings.add(self.check(&journal, &holdings, &format!("{:?}", self.case.broker)));
        self.findings.add(discreet("the log", &self.site.log()));
        println!(
            "{}: {} events, {} crashes, {} records, {} copies, {} dead letters, {} sessions, faults {:?}",
            self.case,
            journal.report.emitted,
            self.crashes,
            holdings.records.len(),
            super::invariants::repeated(&holdings.records).values().map(|count| count - 1).sum::<usize>(),
            holdings.dead.len(),
            journal.report.sessions_created,
            journal.report.faults,
        );
        if !self.findings.0.is_empty() && self.case.mistake.is_none() {
            self.site.keep();
        }
        self.findings
    }

    /// I1, I3, I4, I5, and what the checkpoints say.
    pub(crate) fn check(&self, journal: &Journal, holdings: &Holdings, what: &str) -> Findings {
        let records = &holdings.records;
        let mut findings = nothing_lost(what, journal, records, &holdings.buried());
        findings.add(if self.case.exactly_once() {
            no_duplicates(what, records)
        } else if self.tolerated_copies == Tolerated::OfCrashes {
            duplicates_of_crashes_only(what, records, &self.unacknowledged)
        } else {
            Findings::default()
        });
        findings.add(if self.answers_get_lost {
            in_order_per_key(what, journal, records)
        } else {
            in_order_of_arrival(what, journal, records, &self.starts)
        });
        findings
            .add(well_behaved_over(&journal.report, if self.has_zombies { u64::MAX } else { self.crashes }));
        if self.case.exactly_once() {
            // What one process may hold, once more for each process and each session that ended with as much.
            let ends = self.crashes + journal.report.sessions_created + 1;
            findings.add(holdings.check_checkpoints(1, self.max_in_flight * ends as usize));
            let letters: Vec<&str> = holdings.dead.iter().map(|letter| letter.text.as_str()).collect();
            let different: HashSet<&str> = letters.iter().copied().collect();
            findings.add(Findings::unless(letters.len() == different.len(), Invariant::NoDuplicates, || {
                format!("{} dead letters, only {} different ones", letters.len(), different.len())
            }));
        }
        findings
    }
}
