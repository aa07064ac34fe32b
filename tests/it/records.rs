//! The formats on every kind of sink, masks, and the dry run, as independent readers see them.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use viaduct_simulator::{Rate, Settings};
use viaduct_testkit::kafka::{self, KafkaBroker, KafkaMessage};
use viaduct_testkit::nats::{self, NatsServer, StoredMessage};

use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::{Topics, unique};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

async fn silent_vendor() -> Vendor {
    Vendor::start(Settings { rate: Rate::PerSecond(0.000_1), total: None, ..settings() }).await
}

async fn acknowledged(vendor: &Vendor, count: u64) {
    until("all are acknowledged or forgotten", Duration::from_secs(60), async || {
        let report = vendor.report();
        report.acknowledged + report.forgotten == count
    })
    .await;
}

/// An entry with this text behind `"payload":`.
fn entry(id: &str, payload: &str) -> String {
    format!(
        r#"{{"kind":"via#engagementCenterEvent", "eventId":"{id}","correlationId":"c-1","eventType":"engagementCenter.Idle","publishedTime":"2018-01-30T14:04:20.539Z","schemaVersion":1,"payload":{payload},"n":[1.50,"\/"]}}"#
    )
}

/// A destination per format on each sink.
struct Destinations {
    name: String,
    files: tempfile::TempDir,
}

const FORMATS: [&str; 4] = ["unwrapped", "raw", "payload", "cloudevents"];

impl Destinations {
    fn new() -> Self {
        Self { name: unique("records"), files: tempfile::tempdir().unwrap() }
    }

    /// A sink of each kind per format: of the routes to one sink only the first applies. `route`: further lines of each.
    fn configuration(&self, route: &str) -> String {
        let mut text = String::new();
        let (name, bootstrap, url) =
            (&self.name, KafkaBroker::shared().bootstrap(), NatsServer::shared().url());
        for format in FORMATS {
            let dir = self.files.path().join(format);
            text.push_str(&format!(
                "[sink.lake-{format}]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\ncreate_topics = true\n\
                 partitions = 1\nproperties = {{ \"message.max.bytes\" = 8000000 }}\n\
                 [sink.bus-{format}]\ntype = \"nats\"\nurl = \"{url}\"\nstream = \"{name}-{format}\"\ncreate_stream = true\n\
                 [sink.archive-{format}]\ntype = \"file\"\ndir = {dir:?}\n"
            ));
            for sink in ["lake", "bus", "archive"] {
                text.push_str(&format!(
                    "[[route]]\nmatch = [\"engagementCenter.*\"]\nsink = \"{sink}-{format}\"\nto = \"{name}.{format}\"\n\
                     format = \"{format}\"\n{route}\n"
                ));
            }
        }
        text
    }

    async fn kafka(&self, format: &str) -> Vec<KafkaMessage> {
        let topic = format!("{}.{format}", self.name);
        kafka::read_topic(KafkaBroker::shared().bootstrap(), &topic).await.unwrap()
    }

    async fn nats(&self, format: &str) -> Vec<StoredMessage> {
        nats::read_stream(NatsServer::shared().url(), &format!("{}-{format}", self.name)).await.unwrap()
    }

    fn files(&self, format: &str) -> String {
        let file = self.files.path().join(format).join(format!("{}.{format}.jsonl", self.name));
        std::fs::read_to_string(file).unwrap()
    }
}

/// What stands behind `"payload":`, and what it becomes in `unwrapped` and `payload`.
const PAYLOADS: [(&str, &str); 9] = [
    (
        r#""{\"userId\":\"5aa0b\",\"n\":1.0,\"n\":12345678901234567890,\"s\":\"\\ud800 \\u0000 \\/ é \ud83d\ude00\"}""#,
        r#"{"userId":"5aa0b","n":1.0,"n":12345678901234567890,"s":"\ud800 \u0000 \/ é 😀"}"#,
    ),
    (r#"{"userId":"5aa0b", "n":1.0,"n":2}"#, r#"{"userId":"5aa0b", "n":1.0,"n":2}"#),
    (r#""123""#, "123"),
    (r#""null""#, "null"),
    ("null", "null"),
    (r#""""#, r#""""#),
    (r#""no JSON \u00e9 \/""#, r#""no JSON \u00e9 \/""#),
    (r#""{\"nul\":\"\u0000\"}""#, r#""{\"nul\":\"\u0000\"}""#),
    ("[1.0e+3]", "[1.0e+3]"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_format_arrives_as_documented_on_kafka_nats_and_in_files() {
    let vendor = silent_vendor().await;
    let places = Destinations::new();
    let site = Site::new(&[vendor.source(""), places.configuration("")].concat());
    let _bridge = site.start();
    let control = vendor.0.control();
    for (index, (payload, _)) in PAYLOADS.iter().enumerate() {
        control.emit_raw(&entry(&format!("{index}-0"), payload)).unwrap();
    }
    acknowledged(&vendor, PAYLOADS.len() as u64).await;

    for format in FORMATS {
        let (kafka, nats, files) =
            (places.kafka(format).await, places.nats(format).await, places.files(format));
        let lines: Vec<&str> = files.lines().collect();
        assert_eq!((kafka.len(), nats.len(), lines.len()), (PAYLOADS.len(), PAYLOADS.len(), PAYLOADS.len()));
        for (index, (given, becomes)) in PAYLOADS.iter().enumerate() {
            let id = format!("{index}-0");
            let key = if given.contains("5aa0b") { "5aa0b" } else { "c-1" };
            let value = match format {
                "raw" => entry(&id, given),
                "unwrapped" => entry(&id, becomes),
                "payload" => (*becomes).to_owned(),
                _ => format!(
                    r#"{{"specversion":"1.0","id":"{id}","source":"via://acme","type":"com.alvaria.engagementCenter.Idle","subject":"{key}","time":"2018-01-30T14:04:20.539Z","correlationid":"c-1","schemaversion":"1","datacontenttype":"application/json","data":{becomes}}}"#
                ),
            };
            let (kafka, nats) = (&kafka[index], &nats[index]);
            let on_kafka = String::from_utf8(kafka.value.clone().expect("never a tombstone")).unwrap();
            assert_eq!(on_kafka, value, "{format}");
            assert_eq!(String::from_utf8(nats.payload.to_vec()).unwrap(), value, "{format}");
            assert_eq!(lines[index], value, "{format}");
            assert_eq!(kafka.key.as_deref(), Some(key.as_bytes()));
            // All attributes as headers, or none.
            let (media_type, attributes) = match format {
                "cloudevents" => ("application/cloudevents+json", 0),
                _ => ("application/json", 8),
            };
            assert_eq!(kafka.header("content-type"), Some(media_type.as_bytes()));
            assert_eq!(nats.header("content-type"), Some(media_type));
            assert_eq!(kafka.headers.iter().filter(|(name, _)| name.starts_with("ce_")).count(), attributes);
            assert_eq!(nats.headers.iter().filter(|(name, _)| name.starts_with("ce-")).count(), attributes);
            assert!(nats.header("Nats-Msg-Id").unwrap().starts_with(&format!("acme.{id}.")));
        }
    }
}

/// A megabyte, in every format.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_a_megabyte_arrives_whole() {
    let vendor = silent_vendor().await;
    let name = unique("large");
    let bootstrap = KafkaBroker::shared().bootstrap();
    let large = [("max.message.bytes", "8000000")];
    kafka::create_topic(bootstrap, &name, 1, &large).await.unwrap();
    let sink = format!(
        "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n\
         [[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nto = \"{name}\"\nformat = \"payload\"\n"
    );
    let site = Site::new(&[vendor.source(""), sink].concat());
    let _bridge = site.start();
    let json = format!("{{\"fill\":[{}1]}}", "\"Grüße\\n\",".repeat(100_000));
    vendor.0.control().emit_raw(&entry("1-0", &Value::from(json.as_str()).to_string())).unwrap();
    acknowledged(&vendor, 1).await;
    let messages = kafka::read_topic(bootstrap, &name).await.unwrap();
    assert!(json.len() > 1_000_000 && messages[0].value.as_deref() == Some(json.as_bytes()));
}

/// The canaries: what the masks hide, in every shape in which an event can carry it.
const PHONE: &str = "6035559876";
const NAME: &str = "Wilhelmina Frost";

fn everything_under(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&everything_under(&path));
        } else {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap()));
        }
    }
    text
}

/// Masked before any sink, key, header, destination, dead letter or log.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_masked_is_nowhere_behind_the_bridge() {
    let vendor = silent_vendor().await;
    let places = Destinations::new();
    let mask = "[mask]\nfields = { phoneNumber = \"last4\", \"*customer\" = \"hash\", \"*.password\" = \"drop\" }\n\
                hash_key = \"hunter2-hunter2-hunter2\"\n";
    let route =
        "key = [\"customer\"]\nheaders = { x-phone = \"{phoneNumber}\", x-customer = \"{customer}\" }";
    let topic = format!("to = \"{}.{{category}}.{{customer}}\"", places.name);
    let by_customer = format!(
        "[sink.more]\ntype = \"kafka\"\nbootstrap_servers = \"{}\"\ncreate_topics = true\n\
         [[route]]\nmatch = [\"engagementCenter.*\"]\nsink = \"more\"\n{topic}\n{route}\n",
        KafkaBroker::shared().bootstrap()
    );
    let site =
        Site::new(&[vendor.source(""), places.configuration(route), by_customer, mask.to_owned()].concat());
    let bridge = site.start();
    let inner = json!({"phoneNumber": PHONE, "customer": NAME, "password": PHONE, "n": 1.5,
        "entity": json!({"customer": NAME, "password": NAME}).to_string(),
        "interactionData": [{"key": "Phone", "value": PHONE, "isMasked": true}]});
    let good = json!({"userId": "u", "payload": inner}).to_string();
    let control = vendor.0.control();
    // As a string of JSON, as JSON, twice with the same customer; unrouted; malformed; no JSON inside; no JSON at all.
    control.emit_raw(&entry("1-0", &Value::from(good.as_str()).to_string())).unwrap();
    control.emit_raw(&entry("2-0", &good)).unwrap();
    control.emit_raw(&entry("3-0", &good).replace("engagementCenter.Idle", "outreach.status")).unwrap();
    control.emit_raw(&entry("4-0", &good).replace("\"engagementCenter.Idle\"", "7")).unwrap();
    control.emit_raw(&entry("5-0", &good).replace("\"5-0\"", "null")).unwrap();
    control.emit_raw(&entry("6-0", &Value::from(format!("{PHONE} {NAME}")).to_string())).unwrap();
    acknowledged(&vendor, 6).await;

    let mut all =
        everything_under(places.files.path()) + &everything_under(&site.path("state")) + &site.log();
    for topic in kafka::topics(KafkaBroker::shared().bootstrap()).await.unwrap() {
        if topic.starts_with(&places.name) {
            all.push_str(&topic);
            for message in kafka::read_topic(KafkaBroker::shared().bootstrap(), &topic).await.unwrap() {
                all.push_str(&format!("{:?}", String::from_utf8(message.key.clone().unwrap_or_default())));
                for bytes in message.headers.iter().map(|(_, value)| value).chain(&message.value) {
                    all.push_str(&String::from_utf8_lossy(bytes));
                }
            }
        }
    }
    for format in FORMATS {
        for message in places.nats(format).await {
            all.push_str(&format!("{} {:?} ", message.subject, message.headers));
            all.push_str(&String::from_utf8_lossy(&message.payload));
        }
    }
    for page in ["/status", "/metrics", "/readyz"] {
        all.push_str(&bridge.get(page).await.unwrap().1);
    }
    for canary in [PHONE, NAME, "Wilhelmina", "603555", "password"] {
        assert!(
            !all.contains(canary),
            "{canary}: {}",
            &all[all.find(canary).unwrap().saturating_sub(200)..][..300]
        );
    }
    assert!(all.contains("***9876"), "last4 leaves four digits");

    // Equal values have equal keys and topics, raw is masked in place, and the rest is untouched.
    let raw = places.kafka("raw").await;
    assert_eq!(raw.len(), 3);
    assert_eq!((raw[0].key.as_ref().map(Vec::len), &raw[0].key), (Some(32), &raw[1].key));
    let customer = String::from_utf8(raw[0].key.clone().unwrap()).unwrap();
    assert_eq!(raw[0].header("x-customer"), Some(customer.as_bytes()));
    assert_eq!(raw[0].header("x-phone"), Some(&b"***9876"[..]));
    let topic = format!("{}.engagementCenter.{customer}", places.name);
    assert_eq!(kafka::read_topic(KafkaBroker::shared().bootstrap(), &topic).await.unwrap().len(), 2);
    let as_json = String::from_utf8(raw[1].value.clone().unwrap()).unwrap();
    let expected = json!({"userId": "u", "payload": {"phoneNumber": "***9876", "customer": customer, "n": 1.5,
        "entity": json!({"customer": customer}).to_string(),
        "interactionData": [{"key": "Phone", "value": "***", "isMasked": true}]}});
    assert_eq!(as_json, entry("2-0", &expected.to_string()));
    let as_string = String::from_utf8(raw[0].value.clone().unwrap()).unwrap();
    assert_eq!(as_string, entry("1-0", &Value::from(expected.to_string()).to_string()));
    assert_eq!(String::from_utf8(raw[2].value.clone().unwrap()).unwrap(), entry("6-0", "\"***\""));
}

/// Shows what a run would publish; afterwards nothing is published or acknowledged, and a run delivers everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_changes_nothing() {
    for api in ["v3", "v2"] {
        let vendor = Vendor::start(Settings { total: Some(60), ..settings() }).await;
        let topics = Topics::new(KafkaBroker::shared().bootstrap());
        let source = vendor.source(&format!("api = \"{api}\""));
        let site = Site::new(&[source, topics.sink("")].concat());
        let out = std::fs::File::create(site.path("out")).unwrap();
        let mut dry = viaduct()
            .args(["run", "--dry-run", "-c"])
            .arg(site.config())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let shown = || {
            let text = std::fs::read_to_string(site.path("out")).unwrap();
            let count = text.lines().filter(|line| line.starts_with("  -> lake ")).count();
            (text, count)
        };
        until("all events are shown", Duration::from_secs(60), async || shown().1 == 60).await;
        let status =
            std::process::Command::new("kill").args(["-INT", &dry.id().to_string()]).status().unwrap();
        assert!(status.success());
        let exit = tokio::task::spawn_blocking(move || dry.wait().unwrap()).await.unwrap();
        let (text, _) = shown();
        assert_eq!(exit.code(), Some(0), "{text}");
        assert!(
            text.ends_with("60 events; nothing is published or acknowledged: all of them come again\n"),
            "{text}"
        );
        assert!(
            text.contains(&format!("  -> lake {}\n     key: ", topics.topic("engagementCenter"))),
            "{text}"
        );
        assert!(text.contains("     ce_type: com.alvaria."), "{text}");
        assert_eq!(vendor.report().acknowledged, 0);
        assert_eq!(topics.read().await.len(), 0);

        let mut bridge = site.start();
        until("the run publishes all of them", Duration::from_secs(60), async || {
            topics.read().await.len() == 60
        })
        .await;
        if api == "v3" {
            vendor.all_acknowledged(Duration::from_secs(60)).await;
        }
        assert_eq!(bridge.terminate().await.0.code(), Some(0));
        assert_eq!(topics.read().await.len(), 60);
    }
}

/// A reader that has seen enough ends a dry run.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_ends_with_its_reader_and_at_the_limit_of_its_source() {
    let vendor = Vendor::start(Settings { total: None, ..settings() }).await;
    let topics = Topics::new(KafkaBroker::shared().bootstrap());
    let source = vendor.source("max_events = 20\nmax_in_flight = 100");
    let site = Site::new(&[source, topics.sink("")].concat());
    let run = |out: Stdio| {
        let mut dry = viaduct();
        dry.args(["run", "--dry-run", "-c"]).arg(site.config()).stdout(out).stderr(Stdio::piped());
        dry.spawn().unwrap()
    };
    // 100 in flight, of which 64 are kept for polls that keep the session alive.
    let limited = tokio::task::spawn_blocking({
        let dry = run(Stdio::piped());
        move || dry.wait_with_output().unwrap()
    });
    let output = limited.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(
        text.ends_with("\n36 events; nothing is published or acknowledged: all of them come again\n"),
        "{text}"
    );
    let mut dry = run(Stdio::piped());
    drop(dry.stdout.take());
    let output = tokio::task::spawn_blocking(move || dry.wait_with_output().unwrap()).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(vendor.report().acknowledged, 0);
}
