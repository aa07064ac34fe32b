//! Which contenders run in which circumstances, in which order.

use std::time::Duration;

use anyhow::Result;

use crate::brokers::{Broker, System};
use crate::results::Book;
use crate::scene::{Binaries, Case, Contender};
use crate::{latency, standing, throughput, vendor};

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Suite {
    /// All of them
    All,
    /// One source, 1 KiB
    Throughput,
    /// One source, 300 B and 8 KiB
    Payloads,
    /// Four sources beside the floor with four sessions
    FourSources,
    /// A vendor 20 and 50 ms away
    Distance,
    /// 1,000 events per second: latency
    Latency,
    /// 1 to 200 sources
    Scaling,
    /// 200 down to 5 events per GET
    Batches,
    /// Memory and CPU time of 1, 200 and 5,000 idle sources
    Idle,
    /// From the start of the process to the first GET
    Start,
    /// How fast the simulator is by itself
    Vendor,
}

/// What all suites have in common.
pub(crate) struct Plan<'a> {
    pub(crate) binaries: &'a Binaries,
    pub(crate) broker: &'a Broker,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) exactly_once: bool,
    pub(crate) max_in_flight: Option<usize>,
}

impl Plan<'_> {
    /// Rounds that do not count: the JVM of a new broker compiles what they use, beside whoever is measured.
    pub(crate) async fn warm_up(&self, rounds: usize) -> Result<()> {
        let case = Case { seconds: self.seconds, max_in_flight: self.max_in_flight, ..Case::default() };
        let mut nowhere = Book::new();
        let warming = Plan { rounds, ..*self };
        warming.throughput("warming up", &self.contenders(true), &case, &mut nowhere).await
    }

    pub(crate) async fn measure(&self, suite: Suite, book: &mut Book) -> Result<()> {
        let system = self.broker.system().name();
        let one = Case { seconds: self.seconds, max_in_flight: self.max_in_flight, ..Case::default() };
        match suite {
            Suite::All => {
                for suite in [
                    Suite::Throughput,
                    Suite::Payloads,
                    Suite::FourSources,
                    Suite::Distance,
                    Suite::Latency,
                    Suite::Scaling,
                    Suite::Batches,
                    Suite::Idle,
                    Suite::Start,
                    Suite::Vendor,
                ] {
                    Box::pin(self.measure(suite, book)).await?;
                }
            }
            Suite::Throughput => {
                let contenders = self.contenders(true);
                self.throughput(&format!("{system}, 1 KiB"), &contenders, &one, book).await?;
            }
            Suite::Payloads => {
                let contenders = self.contenders(true);
                for (name, payload) in [("300 B", 300), ("8 KiB", 8192)] {
                    let case = Case { payload, ..one.clone() };
                    self.throughput(&format!("{system}, {name}"), &contenders, &case, book).await?;
                }
            }
            Suite::FourSources => {
                let case = Case { sources: 4, ..one };
                let contenders = self.contenders(false);
                self.throughput(&format!("{system}, four sources"), &contenders, &case, book).await?;
            }
            Suite::Distance => {
                for ms in [20, 50] {
                    let case = Case { round_trip: Duration::from_millis(ms), ..one.clone() };
                    let contenders = self.contenders(false);
                    self.throughput(&format!("{system}, {ms} ms away"), &contenders, &case, book).await?;
                }
            }
            Suite::Latency => self.latency(&format!("{system}, 1,000 events/s"), &one, book).await?,
            Suite::Scaling => {
                for sources in [1, 4, 20, 50, 200] {
                    let case = Case { sources, ..one.clone() };
                    let name = format!("{system}, {sources} sources, saturated");
                    self.throughput(&name, &[Contender::Viaduct], &case, book).await?;
                }
            }
            Suite::Batches => {
                for batch in [200, 100, 50, 20, 10, 5] {
                    let case = Case { batch, ..one.clone() };
                    let contenders = [Contender::Floor, Contender::Viaduct];
                    self.throughput(&format!("{system}, {batch} per GET"), &contenders, &case, book).await?;
                }
            }
            Suite::Idle => {
                for sources in [1, 200, 5_000] {
                    let idle = standing::idle(sources, self.binaries, self.broker).await?;
                    eprintln!("{system}, {sources} idle: {idle:?}");
                    let figures = [
                        ("resident_mib", idle.resident_mib),
                        ("anonymous_mib", idle.anonymous_mib),
                        ("peak_mib", idle.peak_mib),
                        ("cpu_percent", idle.cpu_percent),
                    ];
                    book.add(&format!("{system}, {sources} idle sources"), "viaduct", &figures);
                }
            }
            Suite::Start => {
                for _ in 0..self.rounds {
                    let took = standing::start(self.binaries, self.broker).await?;
                    book.add(&format!("{system}, start"), "viaduct", &[("start_ms", took)]);
                }
            }
            Suite::Vendor => {
                for payload in [300, 1024, 8192] {
                    let case = Case { payload, sources: 2, ..one.clone() };
                    for _ in 0..self.rounds {
                        let rate = vendor::run(&case).await?;
                        eprintln!("simulator alone, {payload} B: {rate:.0} events/s");
                        book.add(
                            &format!("simulator alone, {payload} B"),
                            "simulator",
                            &[("events_per_second", rate)],
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn contenders(&self, with_limits: bool) -> Vec<Contender> {
        let mut contenders = Vec::new();
        if with_limits {
            contenders.push(Contender::Limit);
            if self.exactly_once {
                contenders.push(match self.broker.system() {
                    System::Kafka => Contender::LimitInTransactions,
                    System::Nats => Contender::LimitInBatches,
                });
            }
        }
        contenders.extend([Contender::Floor, Contender::Viaduct]);
        if self.exactly_once {
            contenders.push(Contender::ViaductExactlyOnce);
        }
        if self.binaries.other.is_some() {
            contenders.push(Contender::Other);
            if self.exactly_once {
                contenders.push(Contender::OtherExactlyOnce);
            }
        }
        contenders
    }

    /// The contenders in turn, round by round.
    async fn throughput(
        &self,
        name: &str,
        contenders: &[Contender],
        case: &Case,
        book: &mut Book,
    ) -> Result<()> {
        for round in 1..=self.rounds {
            for &contender in contenders {
                let run = throughput::run(contender, case, self.binaries, self.broker).await?;
                eprintln!("{name}, round {round}, {}: {run:?}", contender.name());
                let figures = [
                    ("events_per_second", run.events_per_second),
                    ("cpu_per_million", run.cpu_per_million),
                    ("others_cpu_per_million", run.others_cpu_per_million),
                    ("busy_percent", run.busy_percent),
                    ("peak_mib", run.peak_mib),
                ];
                book.add(name, contender.name(), &figures);
            }
        }
        Ok(())
    }

    async fn latency(&self, name: &str, case: &Case, book: &mut Book) -> Result<()> {
        for round in 1..=self.rounds {
            for contender in self.contenders(true) {
                let latency = latency::run(contender, case, self.binaries, self.broker).await?;
                eprintln!("{name}, round {round}, {}: {latency:?}", contender.name());
                let figures = [("p50_us", latency.p50), ("p99_us", latency.p99), ("p999_us", latency.p999)];
                book.add(name, contender.name(), &figures);
            }
        }
        Ok(())
    }
}
