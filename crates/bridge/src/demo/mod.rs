//! `viaduct demo`: simulator → bridge → in-memory Kafka, with nothing installed or configured.
//!
//! The parts are the real ones: the bridge is the engine that `viaduct run` runs, with a configuration file that the
//! demo writes and names; the in-memory Kafka is librdkafka's mock cluster, which speaks the protocol on a real port.

mod view;

use std::collections::BTreeMap;
use std::io::{IsTerminal, stdout};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use viaduct_simulator::{Rate, Report, Running, Settings, Simulator};

use self::view::{Numbers, View};
use crate::admin;
use crate::cli::DemoArgs;
use crate::config::{self, Config, LoadInput};
use crate::engine::Engine;
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::signals::Signals;
use crate::telemetry::Telemetry;

/// How often the numbers are shown.
const TICK: Duration = Duration::from_millis(250);
/// How long the end waits for events under way.
const DRAIN: Duration = Duration::from_secs(30);
/// The admin port, if it is free.
const ADMIN: &str = "127.0.0.1:9464";
/// The categories of the vendor's document: the topics of the in-memory Kafka.
const CATEGORIES: [&str; 3] = ["engagementCenter", "outreach", "messaging"];

/// Runs the demo until a signal, `--events` or `--duration`, and compares its numbers with the simulator's journal.
///
/// # Errors
/// 69 where a port cannot be had or a broker does not take the events in time, 70 where the numbers disagree.
pub(crate) async fn demo(args: &DemoArgs) -> Result<(), Failure> {
    let mut signals = Signals::install()?;
    let simulator = simulator(args).await?;
    let folder = tempfile::Builder::new().prefix("viaduct-demo-").tempdir().map_err(|error| {
        Failure::new(Exit::CantCreate, format!("no temporary directory for the demo: {error}"), "set TMPDIR")
    })?;
    let mock = if args.kafka.is_none() && args.nats.is_none() { Some(in_memory_kafka()?) } else { None };
    let kafka = args.kafka.clone().or_else(|| mock.as_ref().map(MockCluster::bootstrap_servers));
    let file = folder.path().join("viaduct.toml");
    let config = configuration(args, &simulator, kafka.as_deref(), mock.is_some(), folder.path(), &file)?;
    logging::init(&config.log);

    let listener = match admin::bind(config.admin).await {
        Ok(listener) => listener,
        Err(_) => admin::bind(Some(SocketAddr::from(([127, 0, 0, 1], 0)))).await?,
    };
    let admin_address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
    let mut engine = Engine::start(&config).await?;
    let _admin = admin::serve(listener, engine.telemetry());
    let destinations =
        view::Destinations { kafka: kafka.as_deref(), in_memory: mock.is_some(), nats: args.nats.as_ref() };
    view::introduce(&simulator.url(), &destinations, admin_address, &file);

    let telemetry = engine.telemetry();
    let stopper = engine.stopper();
    let control = simulator.control();
    let started = Instant::now();
    let mut view = View::new(stdout().is_terminal());
    let drained = {
        let running = engine.run();
        tokio::pin!(running);
        let mut tick = tokio::time::interval(TICK);
        let mut drain_since: Option<Instant> = None;
        loop {
            tokio::select! {
                ended = &mut running => {
                    // Nobody asked it to end yet.
                    ended?;
                    break false;
                }
                signal = signals.next() => {
                    if drain_since.is_some() {
                        return Err(Failure::new(Exit::TempFail, "stopped at once by a second signal", ""));
                    }
                    view.note(&format!("{signal}: no more events, waiting for those under way"));
                    control.pause();
                    drain_since = Some(Instant::now());
                }
                _ = tick.tick() => {
                    view.show(started.elapsed(), &numbers(&telemetry));
                    let over = args.duration.is_some_and(|duration| started.elapsed() >= duration);
                    if over && drain_since.is_none() {
                        control.pause();
                        drain_since = Some(Instant::now());
                    }
                    let report = control.report();
                    let all_made = args.events.is_some_and(|events| report.emitted >= events);
                    if (all_made || drain_since.is_some()) && is_settled(&report) {
                        break true;
                    }
                    if drain_since.is_some_and(|since| since.elapsed() > DRAIN) {
                        break false;
                    }
                }
            }
        }
    };
    stopper.cancel();
    let summary = tokio::time::timeout(config.bridge.shutdown_timeout, engine.run()).await;
    // Closed sinks take no records: that is no news now.
    view.finish(started.elapsed(), &Numbers { down: Vec::new(), ..numbers(&telemetry) });
    let report = simulator.stop().await;
    if !drained || !matches!(summary, Ok(Ok(summary)) if summary.unacknowledged == 0) {
        return Err(Failure::new(
            Exit::Unavailable,
            format!(
                "{} events are still unacknowledged: a destination did not take them in time",
                report.unacknowledged
            ),
            "is the broker given by --kafka or --nats reachable?",
        ));
    }
    agree(&telemetry, &report)?;
    view::conclude(&report);
    Ok(())
}

async fn simulator(args: &DemoArgs) -> Result<Running, Failure> {
    let settings = Settings { rate: Rate::PerSecond(args.rate), total: args.events, ..Settings::default() };
    Simulator::start(settings).await.map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("the simulator cannot be started: {error}"),
            "is loopback available?",
        )
    })
}

fn in_memory_kafka() -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>, Failure> {
    let failed = |error: rdkafka::error::KafkaError| {
        Failure::new(
            Exit::Unavailable,
            format!("the in-memory Kafka cannot be started: {error}"),
            "use --kafka HOST:PORT",
        )
    };
    let cluster = MockCluster::new(1).map_err(failed)?;
    for category in CATEGORIES {
        cluster.create_topic(&format!("via.{category}"), 3, 1).map_err(failed)?;
    }
    Ok(cluster)
}

/// Writes the demo's configuration, as a user would, and loads it.
fn configuration(
    args: &DemoArgs,
    simulator: &Running,
    kafka: Option<&str>,
    in_memory: bool,
    folder: &Path,
    file: &Path,
) -> Result<Config, Failure> {
    let mut text = format!(
        "[bridge]\nname = \"viaduct-demo\"\n\n\
         [source.demo]\napi_url = \"{}\"\norg_id = \"acme\"\n\n\
         [source.demo.auth]\ntoken_url = \"{}\"\nclient_id = \"demo\"\nclient_secret = \"demo\"\napi_key = \"demo\"\n",
        simulator.url(),
        simulator.token_url(),
    );
    if let Some(kafka) = kafka {
        // The in-memory cluster has its topics already; it cannot be asked for them.
        let create = !in_memory;
        text.push_str(&format!(
            "\n[sink.kafka]\ntype = \"kafka\"\nbootstrap_servers = {kafka:?}\ncreate_topics = {create}\n"
        ));
    }
    if let Some(nats) = &args.nats {
        text.push_str(&format!(
            "\n[sink.nats]\ntype = \"nats\"\nurl = \"{nats}\"\nstream = \"VIA\"\ncreate_stream = true\n"
        ));
    }
    // Nobody expects a demo's cluster of one to survive anything.
    let level = "warn,viaduct_sink::durability=error";
    text.push_str(&format!(
        "\n[state]\ndir = {:?}\n\n[admin]\nlisten = \"{ADMIN}\"\n\n[log]\nlevel = {level:?}\n",
        folder.join("state")
    ));
    std::fs::write(file, text).map_err(|error| {
        Failure::new(Exit::CantCreate, format!("{} cannot be written: {error}", file.display()), "set TMPDIR")
    })?;
    Ok(config::load(LoadInput { file: Some(file.to_owned()), env: Vec::new(), overrides: Vec::new() })?
        .config)
}

/// Everything that arose was given out and acknowledged.
fn is_settled(report: &Report) -> bool {
    report.unacknowledged == 0 && report.queued == 0 && report.waiting.unwrap_or(0) == 0
}

fn numbers(telemetry: &Telemetry) -> Numbers {
    let counts = telemetry.tally.snapshot();
    let mut categories: BTreeMap<Arc<str>, view::Row> = BTreeMap::new();
    for ((_, category), count) in &counts.categories {
        let row = categories.entry(category.clone()).or_default();
        row.received += count.received;
        row.acknowledged += count.acknowledged;
    }
    for ((_, sink, category), count) in &counts.published {
        *categories.entry(category.clone()).or_default().published.entry(sink.clone()).or_default() += count;
    }
    let sinks = telemetry.sinks();
    let down =
        sinks.iter().filter(|sink| !sink.state().up).map(|sink| (sink.name.clone(), sink.state().reason));
    Numbers { categories, down: down.collect() }
}

/// The bridge's counters and the simulator's journal were kept by two sides that share no code.
fn agree(telemetry: &Telemetry, report: &Report) -> Result<(), Failure> {
    let numbers = numbers(telemetry);
    let mut differences = Vec::new();
    for (category, theirs) in &report.categories {
        let ours = numbers.categories.get(category.as_str()).cloned().unwrap_or_default();
        let published = ours.published.values().copied().min().unwrap_or(0);
        for (what, ours, theirs) in [
            ("received", ours.received, theirs.delivered),
            ("published", published, theirs.delivered),
            ("acknowledged", ours.acknowledged, theirs.acknowledged),
        ] {
            if ours != theirs {
                differences.push(format!("{category}: {what} {ours}, the journal says {theirs}"));
            }
        }
    }
    if !report.misbehaviour.is_empty() {
        differences
            .push(format!("the bridge broke rules of the vendor's document: {:?}", report.misbehaviour));
    }
    if differences.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Software,
        format!("the bridge's numbers disagree with the simulator's journal: {}", differences.join("; ")),
        "please report this",
    ))
}
