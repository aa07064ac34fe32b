//! What somebody sees who operates a bridge: `/status`, `/events`, `/metrics`, `viaduct status`, `viaduct tap`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use viaduct_simulator::{Rate, Redelivery, Settings};
use viaduct_testkit::nats::NatsServer;

use crate::kit::bridge::{Bridge, Site, viaduct};
use crate::kit::destinations::{Files, Stream};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

/// The value of a series; `labels` as they stand between the braces.
fn value(metrics: &str, name: &str, labels: &str) -> Option<f64> {
    let start = format!("{name}{{{labels}}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&start)).map(|value| value.parse().expect("a number"))
}

/// The sum of all series of a name whose labels contain `part`.
fn sum(metrics: &str, name: &str, part: &str) -> f64 {
    metrics
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(part))
        .map(|line| line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number"))
        .sum()
}

async fn metrics(bridge: &Bridge) -> String {
    let (code, metrics) = bridge.get("/metrics").await.unwrap();
    assert_eq!(code, 200);
    metrics
}

async fn run(command: &mut Command) -> Output {
    let mut command = std::mem::replace(command, Command::new("true"));
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every counter is the vendor's own number, after redeliveries, a lost session, a refused token and dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_agree_with_the_journal_to_the_event() {
    const EVENTS: u64 = 3_000;
    let vendor = Vendor::start(Settings {
        redelivery: Redelivery::FromHead,
        rate: Rate::PerSecond(3_000.0),
        total: Some(EVENTS),
        ..settings()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    // No route for outreach: dead letters.
    let route = "[sink.archive]\ntype = \"file\"\ndir = ".to_owned()
        + &format!("{:?}", folder.path())
        + "\n[[route]]\nmatch = [\"engagementCenter.*\", \"messaging.*\"]\nsink = \"archive\"\nto = \"{category}\"\n";
    let site = Site::new(&[vendor.source("max_events = 50"), route].concat());
    let mut bridge = site.start();
    let zero = {
        bridge.ready().await;
        metrics(&bridge).await
    };
    assert!(
        value(&zero, "viaduct_events_dead_lettered_total", "source=\"main\",reason=\"too_large\"")
            == Some(0.0),
        "a series is there before its first event: {zero}"
    );
    until("events flow", Duration::from_secs(60), async || vendor.report().acknowledged > 500).await;
    vendor.0.control().expire_all_sessions();
    vendor.0.control().revoke_tokens();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    // The answer to the last acknowledgement is on its way to the bridge.
    until("the bridge has heard it", Duration::from_secs(10), async || {
        bridge.status().await["sources"]["main"]["unacknowledged"] == 0
    })
    .await;

    let status = bridge.status().await;
    let metrics = metrics(&bridge).await;
    let report = vendor.report();
    let source = &status["sources"]["main"];
    for (category, theirs) in &report.categories {
        let labels = format!("source=\"main\",category=\"{category}\"");
        for (name, expected) in [("received", theirs.delivered), ("acknowledged", theirs.acknowledged)] {
            let ours = value(&metrics, &format!("viaduct_events_{name}_total"), &labels);
            assert_eq!(ours, Some(expected as f64), "{category} {name}\n{metrics}");
            assert_eq!(source["categories"][category][name], expected, "{category} {name}");
        }
        let published = value(
            &metrics,
            "viaduct_events_published_total",
            &format!("source=\"main\",sink=\"archive\",category=\"{category}\""),
        );
        let expected = (category != "outreach").then_some(theirs.delivered as f64);
        assert_eq!(published, expected, "{category}");
    }
    let unrouted =
        value(&metrics, "viaduct_events_dead_lettered_total", "source=\"main\",reason=\"unrouted\"");
    assert_eq!(unrouted, Some(report.categories["outreach"].delivered as f64));
    assert_eq!(source["dead_lettered"]["unrouted"].as_f64(), unrouted);
    // All three steps of the funnel are the vendor's number.
    for step in ["received", "published", "acknowledged"] {
        assert_eq!(source[step], EVENTS, "{step}");
    }
    assert_eq!(sum(&metrics, "viaduct_events_redelivered_total", "main"), report.redelivered as f64);
    assert_eq!(
        value(&metrics, "viaduct_sessions_created_total", "source=\"main\",cause=\"start\""),
        Some(1.0)
    );
    assert_eq!(
        value(&metrics, "viaduct_sessions_created_total", "source=\"main\",cause=\"expired\""),
        Some((report.sessions_created - 1) as f64)
    );
    assert_eq!(
        value(&metrics, "viaduct_token_refreshes_total", "source=\"main\""),
        Some(report.tokens_issued as f64)
    );
    assert_eq!(
        value(&metrics, "viaduct_acknowledge_not_found_total", "source=\"main\""),
        Some(report.acknowledge_not_found as f64)
    );
    for (operation, statuses) in &report.requests {
        // A poll may be under way, counted there and not yet here.
        for (http, count) in statuses.iter().filter(|_| operation != "events") {
            let labels = format!("source=\"main\",operation=\"{operation}\",status=\"{http}\"");
            let ours = value(&metrics, "viaduct_source_requests_total", &labels);
            assert_eq!(ours, Some(*count as f64), "{operation} {http}\n{metrics}");
        }
        let timed = value(
            &metrics,
            "viaduct_source_request_duration_seconds_count",
            &format!("source=\"main\",operation=\"{operation}\""),
        );
        assert_eq!(timed, Some(sum(&metrics, "viaduct_source_requests_total", &format!("\"{operation}\""))));
    }
    let latencies =
        value(&metrics, "viaduct_end_to_end_latency_seconds_count", "source=\"main\",sink=\"archive\"");
    assert_eq!(latencies, Some(sum(&metrics, "viaduct_events_published_total", "archive")));
    assert_eq!(value(&metrics, "viaduct_events_unacknowledged", "source=\"main\""), Some(0.0));
    assert_eq!(value(&metrics, "viaduct_oldest_unacknowledged_age_seconds", "source=\"main\""), Some(0.0));
    bridge.terminate().await;
}

/// The terminal says what the port says; nothing of a payload, and no colour off a terminal.
#[tokio::test(flavor = "multi_thread")]
async fn status_and_tap_show_a_running_bridge() {
    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(50.0), total: None, ..settings() }).await;
    let stream = Stream::new(NatsServer::shared().url());
    let site = Site::new(&[vendor.source(""), stream.sink("")].concat());
    let mut bridge = site.start();
    bridge.ready().await;
    until("events flow", Duration::from_secs(30), async || vendor.report().acknowledged > 60).await;

    let status = run(viaduct().args(["status", "-c"]).arg(site.config())).await;
    let out = text(&status.stdout);
    assert_eq!(status.status.code(), Some(0), "{out}{}", text(&status.stderr));
    for part in ["source main  polling", "sink bus  up for", "received ", "latency p50", "engagementCenter"] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
    assert!(!out.contains('\x1b'), "no colours off a terminal: {out:?}");

    let json = run(viaduct().args(["status", "--json", "-c"]).arg(site.config())).await;
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!((&json["verdict"]["state"], &json["sinks"]["bus"]["up"]), (&"flowing".into(), &true.into()));

    // On a terminal there are colours, unless NO_COLOR says otherwise.
    let on_a_terminal = async |no_color: &str| {
        let line = format!("{:?} status -c {:?}", env!("CARGO_BIN_EXE_viaduct"), site.config());
        let output =
            run(Command::new("script").args(["-qec", &line, "/dev/null"]).env("NO_COLOR", no_color)).await;
        text(&output.stdout)
    };
    assert!(on_a_terminal("").await.contains("\x1b[32m"));
    assert!(!on_a_terminal("1").await.contains("\x1b["));

    // More than the last 50, which are there already.
    let tap = run(viaduct().args(["tap", "--json", "-n", "120", "-c"]).arg(site.config())).await;
    let out = text(&tap.stdout);
    assert_eq!(tap.status.code(), Some(0), "{}", text(&tap.stderr));
    let mut ids = BTreeSet::new();
    for line in out.lines() {
        let note: Value = serde_json::from_str(line).expect("a line of JSON per event");
        ids.insert(note["id"].as_str().expect("an id").to_owned());
        assert_eq!(note["records"][0]["sink"], "bus", "{note}");
    }
    assert_eq!(ids.len(), 120, "each event once");
    let made: BTreeSet<String> =
        vendor.journal().events.into_iter().filter_map(|event| event.event_id).collect();
    assert!(ids.is_subset(&made));
    let lines = run(viaduct().args(["tap", "-n", "5", "-c"]).arg(site.config())).await;
    assert_eq!(text(&lines.stdout).lines().count(), 5);
    for canary in ["hunter2", "interactionId", "ehubSessionId", "phoneNumber"] {
        assert!(!out.contains(canary), "{canary} in\n{out}");
    }

    // A follower hears that the bridge has stopped in order.
    let mut follower = viaduct()
        .args(["tap", "-c"])
        .arg(site.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let rest = tokio::task::spawn_blocking(move || {
        lines.next().expect("an event").unwrap();
        std::thread::spawn(move || lines.count())
    })
    .await
    .unwrap();
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0));
    rest.join().unwrap();
    let follower = tokio::task::spawn_blocking(|| follower.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(follower.status.code(), Some(0));
    assert_eq!(text(&follower.stderr), "viaduct: the bridge has stopped\n");

    for command in ["status", "tap"] {
        let output = run(viaduct().args([command, "-c"]).arg(site.config())).await;
        assert_eq!(output.status.code(), Some(69));
        let message = text(&output.stderr);
        assert!(message.contains("no bridge answers at 127.0.0.1:"), "{message}");
    }
}

/// The dashboard and the alerts ask for nothing that a bridge does not tell, and every alert says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn dashboard_and_alerts_use_metrics_that_exist() {
    let vendor = Vendor::start(Settings { total: Some(100), ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    let metrics = metrics(&bridge).await;
    let mut known = BTreeSet::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            _ => &[""],
        };
        known.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    assert!(known.len() > 20, "{known:?}");

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| {
        std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let alerts = read("deploy/prometheus/viaduct-alerts.yaml");
    for (path, text) in
        [("alerts", alerts.clone()), ("dashboard", read("deploy/grafana/viaduct-dashboard.json"))]
    {
        let mut used = BTreeSet::new();
        for word in text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_')) {
            if word.starts_with("viaduct_") {
                used.insert(word.to_owned());
            }
        }
        assert!(used.len() >= 8, "{path}: {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{path} uses {unknown:?}");
    }
    let runbook = read("docs/operating.md");
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() >= 8, "{names:?}");
    for name in names {
        assert!(
            runbook.contains(&format!("\n### {name}\n")),
            "docs/operating.md has no paragraph for {name}"
        );
        assert!(alerts.contains(&format!("operating.md#{}", name.to_lowercase())), "{name} names no runbook");
    }
}

/// A bridge that lives through an outage and a lost session logs what docs/logging.md says, with those fields.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_as_documented() {
    let doc =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/logging.md")).unwrap();
    let documented: BTreeMap<&str, (&str, BTreeSet<&str>)> = doc
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> =
                line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
            let [message, level, fields, _] = cells[..] else { return None };
            ["INFO", "WARN"].contains(&level).then(|| (message, (level, fields.split(", ").collect())))
        })
        .collect();
    assert!(documented.len() > 25, "{documented:?}");

    let server = NatsServer::start_own();
    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(200.0), total: None, ..settings() }).await;
    let stream = Stream::new(server.url());
    // Messaging has no route: dead letters.
    let sink = stream.sink("").replace("match = [\"*\"]", "match = [\"engagementCenter.*\", \"outreach.*\"]");
    let site = Site::new(&[vendor.source(""), sink].concat());
    let log = site.path("json.log");
    let mut bridge = viaduct()
        .args(["run", "--log-format", "json", "--log-level", "info", "-c"])
        .arg(site.config())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let says = async |message: &str| {
        until(message, Duration::from_secs(60), async || {
            std::fs::read_to_string(&log).unwrap().contains(&format!("\"message\":\"{message}\""))
        })
        .await;
    };
    until("events flow", Duration::from_secs(60), async || vendor.report().acknowledged > 100).await;
    server.kill();
    says("sink is down").await;
    server.restart().unwrap();
    says("sink is up").await;
    vendor.0.control().expire_all_sessions();
    says("session lost; a new one will be created").await;
    vendor.0.control().set_faults("events:503:100%".parse().unwrap());
    says("backing off").await;
    vendor.0.control().set_faults("".parse().unwrap());
    says("polling again").await;
    vendor.0.control().revoke_tokens();
    assert!(Command::new("kill").args(["-HUP", &bridge.id().to_string()]).status().unwrap().success());
    says("configuration reloaded").await;
    vendor.0.control().pause();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    assert!(Command::new("kill").args(["-TERM", &bridge.id().to_string()]).status().unwrap().success());
    let exit = tokio::task::spawn_blocking(move || bridge.wait().unwrap()).await.unwrap();
    assert_eq!(exit.code(), Some(0));

    let text = std::fs::read_to_string(&log).unwrap();
    let mut met = BTreeSet::new();
    for line in text.lines() {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).expect("a JSON object");
        let message = line["message"].as_str().expect("a message");
        let (level, fields) =
            documented.get(message).unwrap_or_else(|| panic!("{message:?} is not documented: {line:?}"));
        assert_eq!(line["level"], *level, "{message}");
        met.insert(message.to_owned());
        for field in line.keys().filter(|field| !["timestamp", "level", "message"].contains(&field.as_str()))
        {
            assert!(
                fields.contains(field.as_str()),
                "{message:?} has a field {field}, which is not documented"
            );
        }
    }
    for message in [
        "bridge started",
        "session created",
        "token refreshed",
        "sink is down",
        "sink is up",
        "event goes to the dead letters",
        "stopped; every event is acknowledged",
    ] {
        assert!(met.contains(message), "{message:?} was not logged: {met:?}");
    }
    // One line per change, none per event; what repeats is told with its number.
    let events = vendor.report().acknowledged;
    assert!(text.lines().count() < 60, "{} lines for {events} events:\n{text}", text.lines().count());
}
