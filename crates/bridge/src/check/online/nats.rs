//! A NATS sink: servers, JetStream, the stream and its settings, permissions.

use std::time::Duration;

use viaduct_sink_nats::stream::{DiscardPolicy, RetentionPolicy};
use viaduct_sink_nats::{
    Connected, InspectError, Inspector, MayPublish, NatsSettings, ServerFacts, StreamReport,
};

use super::progress::Progress;
use super::report::{Check, Section};
use super::{SHORT_RETENTION, USUAL_RECORD, weakness};
use crate::config::{Sink, duration_text};
use crate::exit::{Exit, Failure};
use crate::sinks;

/// The time within which a second copy of a record is recognised, unless a stream says otherwise.
const USUAL_WINDOW: Duration = Duration::from_secs(120);

/// Tries everything that the sink needs.
///
/// # Errors
/// 78 for settings that the sink's client refuses.
pub(super) async fn check(
    sink: &Sink,
    settings: NatsSettings,
    section: &mut Section,
    progress: &Progress,
) -> Result<(), Failure> {
    let inspector = Inspector::new(settings).map_err(|error| sinks::refused(&sink.name, &error))?;
    let Some(connected) = servers(&inspector, sink, section, progress).await else {
        section.add(Check::unverified("stream", "not tried: no server can be used", "").bearing());
        return Ok(());
    };
    progress.now(&format!("sink {}: stream {}", sink.name, inspector.settings().stream));
    let look = Look { sink, inspector: &inspector, connected: &connected };
    let server = connected.server();
    look.version(section, &server);
    if let Some(full) = look.jetstream(section).await {
        let stream = look.stream(section, full).await;
        if let Some(report) = &stream {
            look.subjects(section, report).await;
            look.settings(section, report, &server);
        }
        look.permissions(section, stream.is_none()).await;
    }
    connected.close().await;
    Ok(())
}

/// A connection to the first server that can be used; every one is tried.
async fn servers(
    inspector: &Inspector,
    sink: &Sink,
    section: &mut Section,
    progress: &Progress,
) -> Option<Connected> {
    let mut usable = None;
    let mut refused = Vec::new();
    for (index, server) in inspector.servers().enumerate() {
        progress.now(&format!("sink {}: server {server}", sink.name));
        match inspector.connect(index).await {
            Ok(connected) => {
                let ServerFacts { name, version, cluster, .. } = connected.server();
                let cluster = cluster.map(|cluster| format!(" of cluster {cluster}")).unwrap_or_default();
                let detail = format!("nats-server {version}, {name}{cluster}");
                section.add(Check::ok("server", detail).of(server));
                match usable {
                    None => usable = Some(connected),
                    Some(_) => connected.close().await,
                }
            }
            Err(no) => refused.push((server, no)),
        }
    }
    for (server, no) in refused {
        let (exit, hint) = match no.refuses_credentials {
            true => (Exit::NoPerm, format!("check the credentials in [sink.{}]", sink.name)),
            false => (
                Exit::Unavailable,
                format!("check url and tls of [sink.{}], and whether the server runs", sink.name),
            ),
        };
        let check = match usable {
            Some(_) => Check::warn("server", no.reason, hint),
            None => Check::fail("server", exit, no.reason, hint),
        };
        section.add(check.of(server));
    }
    usable
}

/// Looks at one stream, for one sink.
struct Look<'a> {
    sink: &'a Sink,
    inspector: &'a Inspector,
    connected: &'a Connected,
}

impl Look<'_> {
    fn wanted(&self) -> &NatsSettings {
        self.inspector.settings()
    }

    fn version(&self, section: &mut Section, server: &ServerFacts) {
        if !self.sink.exactly_once {
            return;
        }
        section.add(
            match server.knows_atomic_batches {
                true => Check::ok("version", format!("{} knows atomic batches", server.version)),
                false => Check::fail(
                    "version",
                    Exit::Config,
                    format!("{} does not know atomic batches, which exactly once needs", server.version),
                    "use nats-server 2.12 or later, or write delivery = \"at_least_once\"",
                ),
            }
            .bearing(),
        );
    }

    /// Whether the account allows no further stream; `None`: there is no JetStream.
    async fn jetstream(&self, section: &mut Section) -> Option<bool> {
        match self.connected.account().await {
            Ok(account) => {
                let (streams, most) = account.streams;
                let (bytes, room) = account.storage;
                let of = |most: Option<u64>| most.map_or_else(String::new, |most| format!(" of {most}"));
                let detail = format!("streams: {streams}{}, stored bytes: {bytes}{}", of(most), of(room));
                section.add(match room.is_some_and(|room| bytes > room / 10 * 9) {
                    true => Check::warn(
                        "jetstream",
                        format!("{detail}: nearly full"),
                        "raise the account's limit: a full one refuses records, and acknowledgements wait",
                    ),
                    false => Check::ok("jetstream", detail),
                });
                Some(most.is_some_and(|most| streams as u64 >= most))
            }
            Err(InspectError::Absent(_)) => {
                let detail = "JetStream is not enabled for this server or account, or has no leader";
                let hint = "enable it (jetstream {} in the server's configuration)";
                section.add(Check::fail("jetstream", Exit::Unavailable, detail, hint).bearing());
                None
            }
            Err(error) => {
                let hint = "permit this user to publish to $JS.API.INFO";
                section.add(Check::unverified("jetstream", error.to_string(), hint));
                Some(false)
            }
        }
    }

    /// Whether the stream exists, or may be created. `full`: the account allows no further one.
    async fn stream(&self, section: &mut Section, full: bool) -> Option<StreamReport> {
        let wanted = self.wanted();
        let name = wanted.stream.as_str();
        let check = match self.connected.stream().await {
            Ok(report) => {
                section.add(Check::ok("stream", "exists").of(name).bearing());
                return Some(report);
            }
            Err(InspectError::Absent(_)) if wanted.create_stream && full => {
                let detail = "does not exist, and the account allows no further stream";
                Check::fail("stream", Exit::Config, detail, "raise the account's limit of streams")
            }
            Err(InspectError::Absent(_)) if wanted.create_stream => {
                section.add(Check::ok("stream", "does not exist yet, and is created").of(name).bearing());
                for subject in &wanted.subjects {
                    section.add(self.free(subject).await);
                }
                for found in self.created_later().weaknesses() {
                    section.add(weakness(self.sink, name, &found, "write replicas = 3"));
                }
                return None;
            }
            Err(InspectError::Absent(_)) => {
                let hint = format!("create it, or write create_stream = true in [sink.{}]", self.sink.name);
                Check::fail("stream", Exit::Config, "does not exist", hint)
            }
            Err(InspectError::Refused(reason)) => {
                let hint = format!("permit this user to publish to $JS.API.STREAM.INFO.{name}");
                Check::unverified("stream", reason, hint)
            }
            Err(InspectError::Unreachable(reason)) => {
                let hint = format!("permit this user to publish to $JS.API.STREAM.INFO.{name}, or try again");
                Check::unverified("stream", reason, hint)
            }
        };
        section.add(check.of(name).bearing());
        None
    }

    /// The stream as it will be created.
    fn created_later(&self) -> StreamReport {
        StreamReport::to_be_created(self.wanted())
    }

    /// A subject of which no stream has anything yet.
    async fn free(&self, subject: &str) -> Check {
        let check = match self.connected.other_holders(subject).await {
            Ok(holders) if holders.is_empty() => Check::ok("subject", "is added to the stream"),
            Ok(holders) => Check::fail(
                "subject",
                Exit::Config,
                format!("cannot be added: it overlaps with subjects of stream {}", holders.join(", ")),
                "let the other stream go without it, or route elsewhere",
            ),
            Err(why) => Check::unverified("subject", format!("whether it can be added: {why}"), ""),
        };
        check.of(subject).bearing()
    }

    async fn subjects(&self, section: &mut Section, report: &StreamReport) {
        for subject in &self.wanted().subjects {
            let check = if report.covers(subject) {
                Check::ok("subject", "held by the stream").of(subject).bearing()
            } else if self.wanted().create_stream {
                self.free(subject).await
            } else {
                let hint = format!(
                    "add it to the stream's subjects, or write create_stream = true in [sink.{}]",
                    self.sink.name
                );
                Check::fail("subject", Exit::Config, "the stream does not hold it", hint)
                    .of(subject)
                    .bearing()
            };
            section.add(check);
        }
    }

    /// What the stream's settings do to records.
    fn settings(&self, section: &mut Section, report: &StreamReport, server: &ServerFacts) {
        let weaknesses = report.weaknesses();
        for found in &weaknesses {
            let hint = match found.setting {
                "storage" => "storage cannot be changed: make a new stream on file",
                _ => "raise it to 3 (nats stream edit --replicas 3); it needs a cluster",
            };
            section.add(weakness(self.sink, &report.name, found, hint));
        }
        let mut add = |check: Check| section.add(check.of(&*report.name));
        if weaknesses.is_empty() {
            add(Check::ok("durability", format!("{} replicas, on file", report.replicas)).bearing());
        }
        if report.sealed || report.no_ack {
            let word = if report.sealed {
                "sealed: it takes nothing more"
            } else {
                "no_ack: nothing can be confirmed"
            };
            add(Check::fail("writable", Exit::Config, word, "use another stream").bearing());
        }
        if self.sink.exactly_once {
            add(self.exactly_once(report).bearing());
            add(checkpoints(report).bearing());
        }
        add(retention(report.retention).bearing());
        add(limits(report));
        if let Some(age) = report.max_age.filter(|age| *age < SHORT_RETENTION) {
            let detail = format!("messages are removed after {}", duration_text(age));
            add(Check::warn("retention", detail, "raise max_age above the longest outage of a consumer"));
        }
        if !self.sink.exactly_once {
            add(window(report.duplicate_window));
        }
        let most = report.max_message_size.unwrap_or(u64::MAX).min(server.max_payload as u64);
        add(match most < USUAL_RECORD {
            true => Check::warn(
                "record size",
                format!("at most {most} bytes: larger events become dead letters"),
                "raise max_msg_size of the stream, or max_payload of the server",
            ),
            false => Check::ok("record size", format!("up to {most} bytes")),
        });
    }

    fn exactly_once(&self, report: &StreamReport) -> Check {
        // What the start of the bridge would add.
        let mut opened = report.clone();
        if self.wanted().create_stream {
            opened.allow_atomic = true;
            opened.allow_rollup = true;
        }
        match (opened.exactly_once_problem(), report.allow_atomic && report.allow_rollup) {
            (Some(problem), _) => Check::fail("atomic batches", Exit::Config, problem, ""),
            (None, true) => Check::ok("atomic batches", "allow_atomic and allow_rollup_hdrs are set"),
            (None, false) => {
                Check::ok("atomic batches", "allow_atomic and allow_rollup_hdrs are added at start")
            }
        }
    }

    /// `missing`: the stream is still to be created.
    async fn permissions(&self, section: &mut Section, missing: bool) {
        let name = &self.wanted().stream;
        let permissions = self.connected.permissions().await;
        let checkpoints = self.inspector.checkpoints().map(|_| format!("$JS.API.STREAM.MSG.GET.{name}"));
        let creates = missing && self.wanted().create_stream;
        let creation = creates.then(|| format!("$JS.API.STREAM.CREATE.{name}"));
        for subject in self.wanted().subjects.iter().chain(&checkpoints).chain(&creation) {
            let check = match permissions.as_ref().map(|permissions| permissions.publish(subject)) {
                Some(MayPublish::Yes) => Check::ok("publish permission", "granted"),
                Some(MayPublish::No) => Check::fail(
                    "publish permission",
                    Exit::NoPerm,
                    "the user may not publish there",
                    "permit it in the server's or the account's configuration",
                ),
                Some(MayPublish::Partly) => Check::unverified(
                    "publish permission",
                    "the user may publish to some of it",
                    "compare the routes with the user's permissions",
                ),
                None => Check::unverified(
                    "publish permission",
                    "the server does not tell",
                    "permit this user to publish to $SYS.REQ.USER.INFO (nats-server 2.10 and later)",
                ),
            };
            section.add(check.of(subject).bearing());
        }
    }
}

/// Whether what says what was published stays.
fn checkpoints(report: &StreamReport) -> Check {
    // Told as a weakness already.
    let mut on_file = report.clone();
    on_file.storage = viaduct_sink_nats::stream::StorageType::File;
    // Told by its own check.
    on_file.retention = RetentionPolicy::Limits;
    match on_file.dangers_to_checkpoints() {
        dangers if dangers.is_empty() => Check::ok("checkpoints", "nothing removes them"),
        dangers => Check::warn(
            "checkpoints",
            format!(
                "the stream can lose them, and events may then be published twice: {}",
                dangers.join("; ")
            ),
            "lift the limits, or set discard to new",
        ),
    }
}

fn retention(policy: RetentionPolicy) -> Check {
    match policy {
        RetentionPolicy::Limits => Check::ok("retention policy", "limits"),
        RetentionPolicy::Interest => Check::warn(
            "retention policy",
            "interest: what no consumer is interested in is removed at once",
            "use retention limits",
        ),
        RetentionPolicy::WorkQueue => Check::warn(
            "retention policy",
            "workqueue: what a consumer has acknowledged is removed",
            "use retention limits, unless this is meant",
        ),
    }
}

fn limits(report: &StreamReport) -> Check {
    let mut limits = Vec::new();
    limits.extend(report.max_messages.map(|most| format!("max_msgs {most}")));
    limits.extend(report.max_bytes.map(|most| format!("max_bytes {most}")));
    limits.extend(report.max_messages_per_subject.map(|most| format!("max_msgs_per_subject {most}")));
    if limits.is_empty() {
        return Check::ok("discard", "no limit of messages or bytes");
    }
    let limits = limits.join(", ");
    match report.discard {
        DiscardPolicy::New => Check::ok(
            "discard",
            format!("new, {limits}: a full stream refuses records, and acknowledgements wait"),
        ),
        DiscardPolicy::Old => Check::warn(
            "discard",
            format!("old, {limits}: a full stream removes the oldest messages, read or not"),
            "set discard to new, so that events wait at the vendor instead",
        ),
    }
}

fn window(window: Duration) -> Check {
    let detail = format!("{}: a repeated record is recognised for that long", duration_text(window));
    match window < USUAL_WINDOW {
        true => Check::warn("duplicate window", detail, "raise duplicate_window to 2m or more"),
        false => Check::ok("duplicate window", detail),
    }
}
