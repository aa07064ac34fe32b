//! Right configurations, and what they mean.

use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::super::*;
use super::{SINK, SOURCE, right};

/// An example with nearly every key, as far as this version goes.
const EXAMPLE: &str = r#"
[bridge]
shutdown_timeout = "25s"
name = "viaduct"
shards = 1

[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
api = "v3"
max_events = 200
max_in_flight = 2000
source_uri = "via://acme"

[source.main.auth]
token_url = "https://myaspect.id.aspect-cloud.net/tokenservice/oauth2/access_token"
client_id = "id"
client_secret = "s3cret"
api_key = "key"
scope = "streamingapi"
realm = "acme"
realm_in = "form"
client_auth = "basic"

[source.main.session]
inactivity_delay = "120s"
resume = true
on_shutdown = "keep"
poll_timeout = "15s"
properties = {}
end_events = []

[[source.main.subscription]]
description = "third party events"
catalog_type = "engagementCenterThirdParty"
events = ["ScreenPop", "Idle"]
resource_type = "users"
resource_ids = []

[source.main.retry]
initial = "200ms"
max = "30s"

[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
delivery = "at_least_once"
required = true
create_topics = false
require_durable = false
[sink.lake.properties]
security.protocol = "plaintext"
queue.buffering.max.kbytes = 32768
"socket.keepalive.enable" = true

[sink.bus]
type = "nats"
url = "nats://localhost:4222"
delivery = "at_least_once"
stream = "VIA"
create_stream = true
refused_after = "60s"

[sink.archive]
type = "file"
dir = "./events"
require_durable = true

[[route]]
match = ["engagementCenter.*", "outreach.*"]
sink = "lake"
to = "via.{category}"
key = ["interactionId", "sessionId", "userId", "ehubSessionId", "correlationId"]
format = "unwrapped"

[[route]]
match = ["*", "!chat.*"]
sink = "bus"
key = ["payload.userId", "{org}-{interactionInfo.screenData.ani}", '"the rest"']
format = "cloudevents"
headers = { x-team = "billing", X-User = "{source}/{userId}" }

[[route]]
match = ["*", "!chat.*"]
sink = "archive"
to = "{eventType:plain}"
format = "payload"

[[route]]
match = ["chat.*"]
sink = "none"

[dead_letter]
sink = "lake"
to = "via.dead-letter"

[mask]
fields = { phoneNumber = "last4", "customerName" = "hash", "*.password" = "drop", screenData.ani = "redact" }
honour_is_masked = true
hash_key = "s3cret-s3cret-s3cret"

[state]
dir = "./viaduct-state"

[admin]
listen = "127.0.0.1:9464"

[log]
level = "info"
format = "auto"
"#;

#[test]
fn the_example_is_right() {
    let Loaded { config, warnings } = right(EXAMPLE);
    assert_eq!(warnings, []);
    assert_eq!(config.sources.len(), 1);
    assert_eq!(config.sources[0].subscriptions[0].events, ["ScreenPop", "Idle"]);
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(names, ["lake", "bus", "archive"], "in the order of the file");
    let SinkKind::Kafka(kafka) = &config.sinks[0].kind else { panic!("lake is no Kafka sink") };
    let properties: Vec<_> = kafka
        .properties
        .iter()
        .map(|(name, value)| format!("{name}={}", value.read().unwrap().expose_secret()))
        .collect();
    assert_eq!(
        properties,
        ["queue.buffering.max.kbytes=32768", "security.protocol=plaintext", "socket.keepalive.enable=true"]
    );
    assert!(matches!(config.routes[3].target, Target::Drop));
    let Target::Sink { key, format, headers, .. } = &config.routes[1].target else { panic!("no sink") };
    let key: Vec<_> = key.iter().map(ToString::to_string).collect();
    assert_eq!(key, ["payload.userId", "{org}-{interactionInfo.screenData.ani}", "\"the rest\""]);
    assert_eq!((*format, headers.len()), (Format::CloudEvents, 2));
    assert!(config.routes[1].matches("engagementCenter.Idle") && !config.routes[1].matches("chat.SendText"));
    assert_eq!(config.routes[1].match_texts(), ["*", "!chat.*"]);
    let mask = config.mask.as_ref().unwrap();
    let rules: Vec<_> =
        mask.rules.iter().map(|rule| format!("{} {}", rule.path, rule.action.word())).collect();
    let expected = ["phoneNumber last4", "customerName hash", "*.password drop", "screenData.ani redact"];
    assert_eq!((rules, mask.honour_is_masked), (expected.map(str::to_owned).to_vec(), true));
    let DeadLetter::Sink { sink, to } = &config.dead_letter else { panic!("dead letters go to a sink") };
    assert_eq!((config.sink(*sink).name.as_str(), to.to_string().as_str()), ("lake", "via.dead-letter"));
}

#[test]
fn the_defaults_are_the_contract_s() {
    let config = right(&format!("{SOURCE}{SINK}")).config;
    let second = Duration::from_secs(1);
    assert_eq!((config.bridge.name.as_str(), config.bridge.shutdown_timeout), ("viaduct", 25 * second));
    assert_eq!(config.state_dir, Path::new("./viaduct-state"));
    assert_eq!(config.admin, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!((config.log.level.as_str(), config.log.format), ("info", LogFormat::Auto));
    assert!(matches!(config.dead_letter, DeadLetter::LocalFile));
    assert!(config.mask.is_none());

    let source = &config.sources[0];
    assert_eq!((source.api, source.max_events, source.max_in_flight), (Api::V3, 200, 2000));
    assert_eq!(source.source_uri, "via://acme");
    assert_eq!((source.auth.scope.as_str(), &source.auth.realm), ("streamingapi", &None));
    assert_eq!((source.auth.realm_in, source.auth.client_auth), (RealmIn::Form, ClientAuth::Basic));
    let session = &source.session;
    assert_eq!((session.inactivity_delay, session.poll_timeout), (120 * second, 15 * second));
    assert_eq!((session.resume, session.on_shutdown), (true, OnShutdown::Keep));
    assert_eq!((session.properties.len(), session.end_events.len()), (0, 0));
    assert_eq!(source.retry, Backoff { initial: Duration::from_millis(200), max: 30 * second });

    let sink = &config.sinks[0];
    assert!(sink.required);
    assert_eq!(sink.refused_after, RefusedAfter::After(60 * second));
    let SinkKind::Kafka(kafka) = &sink.kind else { panic!("no Kafka sink") };
    assert_eq!((kafka.create_topics, kafka.partitions, kafka.replication_factor), (false, None, None));
}

#[test]
fn without_routes_everything_goes_to_every_sink() {
    let text = format!(
        r#"{SOURCE}{SINK}
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
[sink.archive]
type = "file"
dir = "./events"
[sink.out]
type = "stdout"
"#
    );
    let config = right(&text).config;
    let routes: Vec<_> = config
        .routes
        .iter()
        .map(|route| match &route.target {
            Target::Sink { sink, to, key, format, headers } => {
                assert!(route.matches("engagementCenter.Idle") && route.matches("x"));
                let key: Vec<_> = key.iter().map(ToString::to_string).collect();
                assert_eq!(key, ["interactionId", "sessionId", "userId", "ehubSessionId", "correlationId"]);
                assert_eq!(headers, &[]);
                assert_eq!(*format, Format::Unwrapped);
                format!("{} {to}", config.sink(*sink).name)
            }
            Target::Drop => panic!("a default route drops events"),
        })
        .collect();
    assert_eq!(
        routes,
        ["lake via.{category}", "bus via.{org}.{category}.{name}", "archive {category}", "out {category}"]
    );
}

#[test]
fn a_route_may_have_no_key_and_wait_for_ever() {
    let text = format!(
        "{SOURCE}{SINK}refused_after = \"never\"\n[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nkey = []\n\
         [admin]\nlisten = \"off\"\n"
    );
    let config = right(&text).config;
    assert!(matches!(&config.routes[0].target, Target::Sink { key, .. } if key.is_empty()));
    assert_eq!(config.sinks[0].refused_after, RefusedAfter::Never);
    assert_eq!(config.admin, None);
}

#[test]
fn a_v2_source_may_have_session_properties_and_end_events() {
    let text = format!(
        "{}{SINK}",
        SOURCE.replace("org_id = \"acme\"", "org_id = \"acme\"\napi = \"v2\"")
            + "[source.main.session]\nproperties = { agent = \"17\" }\nend_events = [\"engagementCenter.Disconnected\"]\n"
    );
    let source = &right(&text).config.sources[0];
    assert_eq!(source.api, Api::V2);
    assert_eq!(source.session.properties["agent"], "17");
    assert_eq!(source.session.end_events, ["engagementCenter.Disconnected"]);
}

#[test]
fn credentials_of_a_nats_url_leave_the_url() {
    let sink = |url: &str| {
        let text = format!("{SOURCE}\n[sink.bus]\ntype = \"nats\"\nstream = \"VIA\"\nurl = \"{url}\"\n");
        match right(&text).config.sinks.remove(0).kind {
            SinkKind::Nats(nats) => nats,
            other => panic!("no NATS sink: {other:?}"),
        }
    };
    let nats = sink("nats://bob:p%40ss%2Bw+rd@one:4222, tls://bob:p%40ss%2Bw+rd@two:4223");
    let urls: Vec<_> = nats.urls.iter().map(ToString::to_string).collect();
    assert_eq!(urls, ["nats://one:4222", "tls://two:4223"]);
    let NatsAuth::UserPassword { user, password } = &nats.auth else { panic!("{:?}", nats.auth) };
    assert_eq!((user.as_str(), password.read().unwrap().expose_secret()), ("bob", "p@ss+w+rd"));

    let NatsAuth::Token(token) = sink("nats://t%2D0k%3D%26en@one").auth else { panic!("no token") };
    assert_eq!(token.read().unwrap().expose_secret(), "t-0k=&en");
    assert!(matches!(sink("nats://one").auth, NatsAuth::Anonymous));
}

#[test]
fn a_secret_file_loses_its_line_end_and_is_read_each_time() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "one\r\n").unwrap();
    let secret = SecretRef::file(&file);
    assert_eq!(secret.read().unwrap().expose_secret(), "one");
    std::fs::write(&file, " two words \n").unwrap();
    assert_eq!(secret.read().unwrap().expose_secret(), " two words ");
    std::fs::write(&file, "\n").unwrap();
    assert_eq!(secret.read().unwrap_err().to_string(), format!("the file `{}` is empty", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert!(secret.read().unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn a_secret_variable_is_read_from_the_process() {
    assert!(SecretRef::variable("PATH").read().is_ok());
    let missing = SecretRef::variable("VIADUCT_TEST_NEVER_SET").read().unwrap_err();
    assert_eq!(missing.to_string(), "the environment variable `VIADUCT_TEST_NEVER_SET` is not set");
}

#[test]
fn relative_paths_stay_as_they_are_written() {
    // They start at the working directory, not at the directory of the file.
    let text = format!(
        "{SOURCE}\n[sink.archive]\ntype = \"file\"\ndir = \"events/today\"\n[state]\ndir = \"state\"\n"
    );
    let config = right(&text).config;
    assert_eq!(config.state_dir, Path::new("state"));
    assert!(matches!(&config.sinks[0].kind, SinkKind::File(file) if file.dir == Path::new("events/today")));
}

#[test]
fn durations_and_sizes_are_written_as_they_are_read() {
    for text in ["1s", "60s", "2m", "90s", "1h", "200ms", "1500ms", "25s", "0s"] {
        assert_eq!(duration_text(duration(text).unwrap()), text);
    }
    assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
    assert_eq!(duration("-1s"), None);
    assert_eq!(duration("15"), None);
    for text in ["1KiB", "64MiB", "2GiB", "1025B"] {
        assert_eq!(size_text(units::size(text).unwrap()), text);
    }
    assert_eq!(units::size("1 MB"), Some(1_000_000));
    assert_eq!(units::size("99999999999GiB"), None);
    assert_eq!(units::size("MiB"), None);
    assert_eq!(units::size("64"), None);
}
