//! The other commands, as a user types them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use viaduct_simulator::{Report, Settings};
use viaduct_testkit::kafka::{self, KafkaBroker};
use viaduct_testkit::nats::{self, NatsServer};

use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::{CATEGORIES, Files, unique};
use crate::kit::http;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Nothing installed, nothing configured; the numbers at the end are the journal's.
#[test]
fn the_demo_ends_by_itself_with_numbers_that_agree() {
    let demo = viaduct().args(["demo", "--events", "400", "--rate", "400"]).output().unwrap();
    let out = text(&demo.stdout);
    assert_eq!(demo.status.code(), Some(0), "{out}\n{}", text(&demo.stderr));
    assert!(
        out.contains("The simulator's journal agrees: 400 events made, 400 acknowledged, none lost"),
        "{out}"
    );
    let total =
        out.lines().find(|line| line.starts_with("total")).unwrap_or_else(|| panic!("no total in\n{out}"));
    let numbers: Vec<&str> = total.split_whitespace().skip(1).collect();
    assert_eq!(numbers, ["400", "400", "400"], "{out}");
}

/// The line that the demo prints for reading along names a real port with real topics, and Ctrl-C ends it.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_can_be_read_along_and_interrupted() {
    let mut demo = viaduct().args(["demo", "--rate", "300"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let kcat =
        lines.by_ref().map(|line| line.unwrap()).find(|line| line.contains("kcat -b")).expect("a kcat line");
    let words: Vec<&str> = kcat.split_whitespace().collect();
    let after = |flag: &str| words[words.iter().position(|word| *word == flag).expect("flag") + 1].to_owned();
    let (bootstrap, topic) = (after("-b"), after("-t"));
    until("its topic has records", Duration::from_secs(30), async || {
        kafka::read_topic(&bootstrap, &topic).await.is_ok_and(|messages| messages.len() > 50)
    })
    .await;
    let reader = std::thread::spawn(move || lines.map(|line| line.unwrap()).collect::<Vec<_>>());
    let status = Command::new("kill").args(["-INT", &demo.id().to_string()]).status().unwrap();
    assert!(status.success());
    let exit = tokio::task::spawn_blocking(move || demo.wait().unwrap()).await.unwrap();
    let rest = reader.join().unwrap().join("\n");
    assert_eq!(exit.code(), Some(0), "{rest}");
    assert!(rest.contains("The simulator's journal agrees"), "{rest}");
}

/// The same into real brokers.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_into_real_brokers() {
    let broker = KafkaBroker::start_own();
    let server = NatsServer::start_own();
    let demo = tokio::task::spawn_blocking({
        let (kafka, nats) = (broker.bootstrap().to_owned(), server.url().to_owned());
        move || {
            viaduct()
                .args(["demo", "--duration", "2s", "--rate", "200", "--kafka", &kafka, "--nats", &nats])
                .output()
                .unwrap()
        }
    })
    .await
    .unwrap();
    let out = text(&demo.stdout);
    assert_eq!(demo.status.code(), Some(0), "{out}\n{}", text(&demo.stderr));
    let mut in_kafka = 0;
    for category in CATEGORIES {
        in_kafka += kafka::read_topic(broker.bootstrap(), &format!("via.{category}")).await.unwrap().len();
    }
    let in_nats = nats::read_stream(server.url(), "VIA").await.unwrap().len();
    assert!(in_kafka > 100, "{in_kafka}");
    assert_eq!(in_kafka, in_nats);
    assert!(out.contains(&format!("agrees: {in_kafka} events made, {in_kafka} acknowledged")), "{out}");
}

/// `simulate` in one terminal, `run` in another, a consumer in a third; the configuration is the one that `init` writes.
#[tokio::test(flavor = "multi_thread")]
async fn init_check_simulate_run() {
    let broker = KafkaBroker::shared();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("viaduct.toml");
    let init =
        || viaduct().args(["init", "--kafka", "--simulator", "--output"]).arg(&config).output().unwrap();
    let written = init();
    assert_eq!(written.status.code(), Some(0), "{}", text(&written.stderr));
    let again = init();
    assert_eq!(again.status.code(), Some(73), "a file is never overwritten: {}", text(&again.stderr));

    let port = viaduct_testkit::native::free_port().unwrap();
    let mut simulator = viaduct()
        .args(["simulate", "--events", "500", "--rate", "500", "--listen"])
        .arg(format!("127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let topic = unique("init");
    // What a user edits: addresses of this machine's servers, and names that no other test uses.
    let edited = std::fs::read_to_string(&config)
        .unwrap()
        .replace("127.0.0.1:8900", &format!("127.0.0.1:{port}"))
        .replace("localhost:9092", broker.bootstrap())
        .replace("127.0.0.1:9464", "127.0.0.1:0")
        .replace("via.{category}", &format!("{topic}.{{category}}"));
    std::fs::write(&config, edited).unwrap();

    let check = viaduct().args(["check", "-c"]).arg(&config).current_dir(folder.path()).output().unwrap();
    assert_eq!(check.status.code(), Some(0), "{}{}", text(&check.stdout), text(&check.stderr));
    let mut bridge = viaduct()
        .args(["run", "-c"])
        .arg(&config)
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let report = async || -> Option<Report> {
        let answer = http().get(format!("http://127.0.0.1:{port}/_simulator/report")).send().await.ok()?;
        answer.json().await.ok()
    };
    until("everything is acknowledged", Duration::from_secs(60), async || {
        report().await.is_some_and(|report| report.acknowledged == 500)
    })
    .await;
    let mut seen = 0;
    for category in CATEGORIES {
        seen += kafka::read_topic(broker.bootstrap(), &format!("{topic}.{category}")).await.unwrap().len();
    }
    assert_eq!(seen, 500);
    for process in [&mut bridge, &mut simulator] {
        assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
        assert_eq!(process.wait().unwrap().code(), Some(0));
    }
}

/// Somewhere else than on a terminal, every line of the log is a JSON object.
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_json_lines_off_a_terminal() {
    let vendor = Vendor::start(Settings { total: Some(100), ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let bridge = viaduct()
        .args(["run", "--log-format", "auto", "--log-level", "info", "-c"])
        .arg(site.config())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    assert!(Command::new("kill").args(["-TERM", &bridge.id().to_string()]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(move || bridge.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let log = text(&output.stderr);
    let messages: Vec<String> = log
        .lines()
        .map(|line| {
            let line: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
            line["message"].as_str().expect("a message").to_owned()
        })
        .collect();
    for message in ["bridge started", "session created", "source stopped"] {
        assert!(messages.iter().any(|line| line == message), "{message:?} is not in {messages:?}");
    }
    // One line per change of state, none per event.
    assert!(messages.len() < 30, "{} lines for 100 events", messages.len());
}

/// Broken configurations: 78, every mistake, no secret. (Each kind of mistake has its snapshot beside the code.)
#[test]
fn a_broken_configuration_is_reported_whole() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("viaduct.toml");
    std::fs::write(
        &config,
        r#"
[source.main]
api_url = "ftp://acme"
org_id = "acme"
max_event = 5

[source.main.auth]
token_url = "https://id.example"
client_id = "hunter2-id"
client_secret = ["hunter2-secret"]
api_key = { env = "VIADUCT_NO_SUCH_VARIABLE" }

[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
[sink.lake.properties]
"acks" = "1"
"sasl.password" = "hunter2-password"

[[route]]
match = ["*"]
sink = "lak"
"#,
    )
    .unwrap();
    for command in ["check", "run"] {
        let output = viaduct().args([command, "-c"]).arg(&config).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{command}");
        let message = format!("{}{}", text(&output.stdout), text(&output.stderr));
        for part in [
            "viaduct.toml:3",
            "max_event",
            "max_events",
            "client_secret",
            "VIADUCT_NO_SUCH_VARIABLE",
            "acks",
            "lake",
        ] {
            assert!(message.contains(part), "{command}: {part:?} is not in\n{message}");
        }
        assert!(!message.contains("hunter2"), "{command} shows a secret:\n{message}");
    }
    let missing = viaduct().args(["run", "-c", "/no/such/viaduct.toml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).contains("viaduct init"), "{}", text(&missing.stderr));
    assert_eq!(viaduct().arg("rnu").output().unwrap().status.code(), Some(64));
}
