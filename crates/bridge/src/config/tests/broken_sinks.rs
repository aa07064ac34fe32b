//! Broken sinks and routes, and every word that a person reads about them.

use insta::assert_snapshot;

use super::{SINK, SOURCE, wrong};

#[test]
fn secrets_that_are_not_there() {
    let text = format!(
        r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
[source.main.auth]
token_url = "https://id.example.com/token"
client_id = {{ env = "VIA_CLIENT_ID" }}
client_secret = {{ file = "/nowhere/via_client_secret" }}
api_key = {{ environment = "VIA_API_KEY" }}
{SINK}
[sink.lake.properties]
security.protocol = "SASL_SSL"
sasl.username = {{ env = "KAFKA_USER", file = "/nowhere/user" }}
sasl.password = {{ env = "hunter2 hunter2" }}
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
token = ""
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:7:21: `client_id` in [source.main.auth] cannot be read: the environment variable `VIA_CLIENT_ID` is not set
      hint: set VIA_CLIENT_ID before the start
    viaduct.toml:8:26: `client_secret` in [source.main.auth] cannot be read: the file `/nowhere/via_client_secret` cannot be read: No such file or directory (os error 2)
      hint: create it, readable for this user; a relative path starts at the working directory
    viaduct.toml:9:11: `api_key` in [source.main.auth] names neither `env` nor `file`
      hint: write { env = "NAME" } or { file = "path" }
    viaduct.toml:9:13: unknown key `environment` in [source.main.auth.api_key]
      hint: did you mean `env`?
    viaduct.toml:17:17: `sasl.username` in [sink.lake.properties] names both `env` and `file`
      hint: keep one of the two
    viaduct.toml:18:25: `env` of `sasl.password` in [sink.lake.properties] is not the name of an environment variable
      hint: write { env = "NAME" } with the variable's name, not the secret
    viaduct.toml:23:9: `token` in [sink.bus] cannot be read: the value is empty
      hint: give it a value
    7 mistakes in the configuration
    "#);
}

#[test]
fn routes_to_nowhere() {
    let text = format!(
        r#"{SOURCE}{SINK}
[[route]]
match = ["engagementCenter.*"]
sink = "lak"
[[route]]
match = ["outreach.*"]
sink = "warehouse"
[[route]]
match = []
sink = "lake"
[[route]]
match = ["chat.*"]
sink = "none"
to = "chat"
key = ["userId"]
format = "raw"
[dead_letter]
sink = "laek"
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:17:8: [[route]] number 1 goes to `lak`, which is no sink
      hint: did you mean `lake`?
    viaduct.toml:20:8: [[route]] number 2 goes to `warehouse`, which is no sink
      hint: the sinks are lake
    viaduct.toml:22:9: `match` in [[route]] number 3 is empty: no event matches
      hint: write match = ["*"]
    viaduct.toml:27:6: `to` in [[route]] number 4 has no meaning where events are dropped
      hint: remove it
    viaduct.toml:28:7: `key` in [[route]] number 4 has no meaning where events are dropped
      hint: remove it
    viaduct.toml:29:10: `format` in [[route]] number 4 has no meaning where events are dropped
      hint: remove it
    viaduct.toml:31:8: [dead_letter] goes to `laek`, which is no sink
      hint: did you mean `lake`?
    7 mistakes in the configuration
    "#);
}

#[test]
fn bad_patterns_templates_and_keys() {
    let text = format!(
        r#"{SOURCE}{SINK}
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
[[route]]
match = ["engagement center", "", "!chat.*"]
sink = "lake"
to = "via.{{category"
key = ["payload.userId", ""]
[[route]]
match = "*"
sink = "lake"
to = "via.category}}"
[[route]]
match = ["a*"]
sink = "lake"
to = "via.{{}}"
format = "json"
[[route]]
match = ["b*"]
sink = "bus"
to = "via..{{name}}"
[[route]]
match = ["c*"]
sink = "bus"
to = "$JS.{{name}}"
[[route]]
match = ["d*"]
sink = "lake"
to = "_viaduct.checkpoints"
[[route]]
match = ["e*"]
sink = "lake"
to = ""
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:20:10: a pattern in `match` of [[route]] number 1 contains white space or a control character
      hint: write an event type, with * for any characters: "engagementCenter.*"
    viaduct.toml:20:31: a pattern in `match` of [[route]] number 1 is empty
      hint: write an event type, with * for any characters: "engagementCenter.*"
    viaduct.toml:22:6: `to` in [[route]] number 1 has a `{` that no `}` closes
      hint: write it like to = "via.{category}"
    viaduct.toml:23:26: `key` in [[route]] number 1 is empty
      hint: write key = ["…"]
    viaduct.toml:25:9: `match` in [[route]] number 2 must be a list, not a string
      hint: write it in brackets, as in ["one", "two"]
    viaduct.toml:27:6: `to` in [[route]] number 2 has a `}` that no `{` opens
      hint: write it like to = "via.{category}"
    viaduct.toml:31:6: `to` in [[route]] number 3 has no field between `{` and `}` (letters, digits, `_` and `-`, a letter first; `.` for a field in a field; other names in double quotes)
      hint: write it like to = "via.{category}"
    viaduct.toml:32:10: `format` in [[route]] number 3 must be one of `unwrapped`, `raw`, `payload`, `cloudevents`
      hint: write "unwrapped" or "raw" or "payload" or "cloudevents"
    viaduct.toml:36:6: `to` in [[route]] number 4 has an empty part between dots
      hint: choose another name
    viaduct.toml:40:6: `to` in [[route]] number 5 starts with `$`, which belongs to the server
      hint: choose another name
    viaduct.toml:44:6: `to` in [[route]] number 6 starts with `_viaduct`, where checkpoints are kept
      hint: choose another name
    viaduct.toml:48:6: `to` in [[route]] number 7 is empty
      hint: write it like to = "via.{category}"
    12 mistakes in the configuration
    "#);
}

#[test]
fn exactly_once() {
    let text = format!(
        r#"{SOURCE}{SINK}delivery = "exactly_once"
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
delivery = "exactly_once"
[sink.archive]
type = "file"
dir = "./events"
delivery = "exactly_once"
[sink.out]
type = "stdout"
delivery = "exactly_once"
[sink.other]
type = "stdout"
delivery = "exactly-once"
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:23:12: delivery = "exactly_once" in [sink.archive] cannot be kept: only kafka and nats store events and progress in one step
      hint: write delivery = "at_least_once"
    viaduct.toml:26:12: delivery = "exactly_once" in [sink.out] cannot be kept: only kafka and nats store events and progress in one step
      hint: write delivery = "at_least_once"
    viaduct.toml:27:1: [sink.other] writes to the same place as another sink
      hint: keep one of them; several routes may use it
    viaduct.toml:29:12: `delivery` in [sink.other] must be one of `at_least_once`, `exactly_once`
      hint: did you mean "exactly_once"?
    4 mistakes in the configuration
    "#);
}

#[test]
fn known_but_not_available() {
    let text = format!(
        r#"
[bridge]
shards = 0
{SOURCE}prune = true
[source.other]
prune = true
validate = "strict"
{SINK}
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:3:10: `shards` in [bridge] must be between 1 and 64
      hint: write shards = 1
    viaduct.toml:13:1: unknown key `prune` in [source.main.auth]
      hint: the keys here are token_url, client_id, client_secret, api_key, scope, realm, realm_in, client_auth
    viaduct.toml:14:1: [source.other.auth] is missing
      hint: add it with token_url, client_id, client_secret and api_key
    viaduct.toml:14:1: `api_url` in [source.other] is missing
      hint: add api_url = "https://<org>.via.aspect-cloud.net"
    viaduct.toml:14:1: `org_id` in [source.other] is missing
      hint: add org_id = "<your organisation>"
    viaduct.toml:16:12: `validate` in [source.other] must be one of `off`, `report`, `dead_letter`
      hint: write "off" or "report" or "dead_letter"
    6 mistakes in the configuration
    "#);
}

#[test]
fn several_ways_to_log_in_to_nats() {
    let text = format!(
        r#"{SOURCE}
[sink.one]
type = "nats"
url = "nats://viaduct:s3cret@localhost:4222"
stream = "VIA"
token = "t0ken"
nkey = "SUAseed"
[sink.two]
type = "nats"
url = "nats://a:s3cret@one:4222,nats://b:s3cret@two:4222"
stream = "VIA"
password = "s3cret"
[sink.three]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
password = "s3cret"
tls = {{ certificate = "/nowhere/client.pem", ca = "/nowhere/ca.pem", verify = false }}
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:16:8: [sink.one] has more than one of: credentials in `url`, `nkey`, `token`
      hint: keep one of them
    viaduct.toml:17:1: `user` in [sink.two] is missing
      hint: add user = "viaduct"
    viaduct.toml:19:7: `url` in [sink.two] has different credentials for different servers
      hint: use the same ones, or the keys user and password
    viaduct.toml:22:1: `user` in [sink.three] is missing
      hint: add user = "viaduct"
    viaduct.toml:27:7: `key` in [sink.three.tls] is missing
      hint: add key = "client.key"
    viaduct.toml:27:23: `certificate` in [sink.three.tls]: the file `/nowhere/client.pem` cannot be read: No such file or directory (os error 2)
      hint: create it, readable for this user
    viaduct.toml:27:51: `ca` in [sink.three.tls]: the file `/nowhere/ca.pem` cannot be read: No such file or directory (os error 2)
      hint: create it, readable for this user
    viaduct.toml:27:70: unknown key `verify` in [sink.three.tls]
      hint: the keys here are required, first, ca, certificate, key, danger_accept_invalid_certificates
    8 mistakes in the configuration
    "#);
}

#[test]
fn sinks_in_each_others_way() {
    let text = format!(
        r#"{SOURCE}
[sink.one]
type = "file"
dir = "./events"
[sink.two]
type = "file"
dir = "./events"
[sink.three]
type = "stdout"
[sink.four]
type = "stdout"
[dead_letter]
sink = "four"
"#
    );
    assert_snapshot!(wrong(&text), @r"
    viaduct.toml:14:1: [sink.two] writes to the same place as another sink
      hint: give each its own dir
    viaduct.toml:19:1: [sink.four] writes to the same place as another sink
      hint: keep one of them; several routes may use it
    viaduct.toml:22:8: `sink` in [dead_letter] is stdout, which keeps nothing
      hint: use a kafka, nats or file sink, or remove [dead_letter]
    3 mistakes in the configuration
    ");
}

#[test]
fn properties_that_break_the_guarantee() {
    let text = format!(
        r#"{SOURCE}{SINK}
[sink.lake.properties]
acks = 1
enable.idempotence = false
max.in.flight = 10
message.timeout.ms = {{ env = "TIMEOUT" }}
partitioner = "random"
transactional.id = "mine"
"bootstrap.servers" = "localhost:9092"
compression.type = "zstd"
[sink.other]
type = "kafka"
bootstrap_servers = "localhost:9092"
properties = {{ acks = ["all"], "" = "x" }}
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:16:8: `acks` in [sink.lake.properties] is fixed: a record counts as durable only with acks=all
      hint: remove it
    viaduct.toml:17:22: `enable.idempotence` in [sink.lake.properties] is fixed: without the idempotent producer, retries reorder and duplicate records
      hint: remove it
    viaduct.toml:18:17: `max.in.flight` in [sink.lake.properties] must be 1 to 5: with more, the idempotent producer cannot keep the order
      hint: remove it
    viaduct.toml:19:22: `message.timeout.ms` in [sink.lake.properties] is fixed: a record never expires by itself, an outage is waited for
      hint: remove it
    viaduct.toml:19:30: `message.timeout.ms` in [sink.lake.properties] cannot be read: the environment variable `TIMEOUT` is not set
      hint: set TIMEOUT before the start
    viaduct.toml:20:15: `partitioner` in [sink.lake.properties] is fixed to murmur2_random, so that every client finds a key in the same partition
      hint: remove it
    viaduct.toml:21:20: `transactional.id` in [sink.lake.properties] is Viaduct's own: it names the owner that is fenced
      hint: remove it
    viaduct.toml:22:23: `bootstrap.servers` in [sink.lake.properties] has a key of its own in this configuration
      hint: use bootstrap_servers in [sink.lake]
    viaduct.toml:27:23: `acks` in [sink.other.properties] must be a string or a reference, not a list
      hint: write "text", { env = "NAME" } or { file = "path" }
    viaduct.toml:27:37: `` in [sink.other.properties] is no property of librdkafka
      hint: write it like security.protocol
    10 mistakes in the configuration
    "#);
}
