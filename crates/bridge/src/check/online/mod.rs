//! `viaduct check --online`: every dependency tried in order, and a verdict on each sink's guarantee.
//!
//! It changes nothing that stays and disturbs nobody. At the vendor it works in a session of its own, in which no event is
//! fetched and which is deleted again. It does not take the lock of the state directory, uses neither the saved session nor
//! the bridge's transactional id, and stores no record anywhere.
//!
//! - `vendor`, `kafka`, `nats`, `files`: what is tried, and what the facts mean
//! - `report`: lines, verdicts, and how they are printed

mod files;
mod kafka;
mod nats;
mod progress;
mod report;
mod vendor;

use std::io::Write;
use std::time::Duration;

use viaduct_sink::{Owner, Weakness};

use self::progress::Progress;
use self::report::{Check, Report, Section, Verdict};
use crate::config::{Config, Loaded, Sink, SinkIndex, SinkKind};
use crate::console::paint::Paint;
use crate::exit::{Exit, Failure};
use crate::sinks;

/// What of an event's destination counts as short.
const SHORT_RETENTION: Duration = Duration::from_secs(3600);
/// Records as large as this fit into a broker that nobody has configured otherwise.
const USUAL_RECORD: u64 = 1_000_000;

/// Tries everything that the configuration names.
///
/// # Errors
/// 77 where credentials are refused or something is not permitted, 78 where the configuration does not fit what is there
/// (with `strict` also where there are warnings, or something could not be verified), 73 where a directory cannot be
/// written, 69 where something does not answer.
pub(super) async fn online(
    loaded: &Loaded,
    strict: bool,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let config = &loaded.config;
    let progress = Progress::new();
    let mut configuration = Section::new("configuration");
    for warning in &loaded.warnings {
        let check = Check::warn("configuration", &*warning.message, &*warning.hint);
        configuration.add(check.of(warning.place.to_string()));
    }
    let mut sources = Vec::with_capacity(config.sources.len());
    for source in &config.sources {
        progress.now(&format!("source {}", source.name));
        sources.push(vendor::check(source).await);
    }
    let mut verdicts = Vec::with_capacity(config.sinks.len());
    let mut sinks = Vec::with_capacity(config.sinks.len());
    for index in config.sink_indices() {
        let sink = config.sink(index);
        progress.now(&format!("sink {}", sink.name));
        let section = check_sink(config, index, &progress).await;
        verdicts.push(Verdict::of(&sink.name, sink.delivery(), &section, &sources));
        sinks.push(section);
    }
    progress.now("the state directory");
    let state = files::state(&config.state_dir);
    drop(progress);
    let sections = [configuration].into_iter().chain(sources).chain(sinks).chain([state]).collect();
    let report = Report { sections, verdicts };
    let text = if json { report.json(strict) } else { report.text(Paint::of_stdout()) };
    out.write_all(text.as_bytes()).map_err(|error| Failure::output("the report", &error))?;
    report.failure(strict).map_or(Ok(()), Err)
}

async fn check_sink(config: &Config, index: SinkIndex, progress: &Progress) -> Section {
    let mut section = Section::new(format!("sink {}", config.sink(index).name));
    if let Err(failure) = try_sink(config, index, &mut section, progress).await {
        let (message, hint) = failure.parts();
        section.add(Check::fail("settings", failure.exit(), message, hint).bearing());
    }
    section
}

/// # Errors
/// Settings that the sink's client refuses, and secrets that cannot be read.
async fn try_sink(
    config: &Config,
    index: SinkIndex,
    section: &mut Section,
    progress: &Progress,
) -> Result<(), Failure> {
    let sink = config.sink(index);
    // Nobody publishes under it.
    let identity = sink.exactly_once.then(|| sinks::identity(config, sink, &Owner::random()));
    match &sink.kind {
        SinkKind::Kafka(options) => {
            let settings = sinks::kafka_settings(config, index, options, identity)?;
            kafka::check(config, index, settings, section, progress).await?;
        }
        SinkKind::Nats(options) => {
            let settings = sinks::nats_settings(config, index, options, identity);
            nats::check(sink, settings, section, progress).await?;
        }
        SinkKind::File(options) => section.add(files::directory("directory", &options.dir).bearing()),
        SinkKind::Stdout => section.add(
            Check::unverified(
                "durability",
                "whoever reads standard output decides whether anything is kept",
                "use type = \"file\" where it matters",
            )
            .bearing(),
        ),
    }
    Ok(())
}

/// A weakness, as the sink's settings have it: a warning, or a refusal.
fn weakness(sink: &Sink, of: &str, weakness: &Weakness, hint: &str) -> Check {
    let detail = format!("{} {}: {}", weakness.setting, weakness.value, weakness.consequence);
    let check = match sink.require_durable {
        true => Check::fail("durability", Exit::Config, detail + " (require_durable = true)", hint),
        false => Check::warn("durability", detail, hint),
    };
    check.of(of).bearing()
}
