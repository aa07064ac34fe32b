//! Broken configurations, and every word that a person reads about them.

use insta::assert_snapshot;

use super::{SINK, SOURCE, doubts, wrong};

#[test]
fn an_empty_file() {
    assert_snapshot!(wrong(""), @r#"
    viaduct.toml: a sink is missing
      hint: add [sink.lake] with type = "kafka"; `viaduct init` writes an example
    viaduct.toml: a source is missing
      hint: add [source.main]; `viaduct init` writes an example
    2 mistakes in the configuration
    "#);
}

#[test]
fn unknown_keys_and_tables() {
    let text = r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
max_event = 200
colour = "red"
[source.main.auth]
token_url = "https://id.example.com/token"
client_id = "id"
client_secrets = "s3cret"
api_key = "key"
[source.main.retry]
inital = "1s"
[sorce.other]
org_id = "other"
[sink.lake]
type = "kafka"
bootstrap_server = "localhost:9092"
stream = "VIA"
"#;
    assert_snapshot!(wrong(text), @r#"
    viaduct.toml:5:1: unknown key `max_event` in [source.main]
      hint: did you mean `max_events`?
    viaduct.toml:6:1: unknown key `colour` in [source.main]
      hint: the keys here are api_url, org_id, api, max_events, max_in_flight, source_uri, auth, ca_file, danger_accept_invalid_certificates, session, subscription, retry, prune, validate
    viaduct.toml:7:1: `client_secret` in [source.main.auth] is missing
      hint: add client_secret = { env = "NAME" }, or { file = "path" }, or "text"
    viaduct.toml:10:1: unknown key `client_secrets` in [source.main.auth]
      hint: did you mean `client_secret`?
    viaduct.toml:13:1: unknown key `inital` in [source.main.retry]
      hint: did you mean `initial`?
    viaduct.toml:14:2: unknown key `sorce` in the configuration
      hint: did you mean `source`?
    viaduct.toml:16:1: `bootstrap_servers` in [sink.lake] is missing
      hint: add bootstrap_servers = "localhost:9092"
    viaduct.toml:18:1: unknown key `bootstrap_server` in [sink.lake]
      hint: did you mean `bootstrap_servers`?
    viaduct.toml:19:1: unknown key `stream` in [sink.lake]
      hint: the keys here are type, delivery, required, refused_after, require_durable, bootstrap_servers, create_topics, partitions, replication_factor, danger_accept_invalid_certificates, properties
    9 mistakes in the configuration
    "#);
}

#[test]
fn wrong_types() {
    let text = r#"
route = "everything"
[bridge]
shutdown_timeout = 25
name = ["viaduct"]
[source.main]
api_url = true
org_id = 17
max_events = "200"
max_in_flight = 2000.5
auth = "secret"
subscription = { description = "one" }
[source.main.session]
resume = "yes"
end_events = "engagementCenter.Disconnected"
[sink]
lake = "kafka"
[sink.bus]
type = 5
[admin]
listen = 9464
[log]
level = 1979-05-27
"#;
    assert_snapshot!(wrong(text), @r#"
    viaduct.toml:2:9: `route` in the configuration must be a list, not a string
      hint: write it in brackets, as in ["one", "two"]
    viaduct.toml:4:20: `shutdown_timeout` in [bridge] must be a string, not a whole number
      hint: write it in "quotes"
    viaduct.toml:5:8: `name` in [bridge] must be a string, not a list
      hint: write it in "quotes"
    viaduct.toml:7:11: `api_url` in [source.main] must be a string, not a boolean
      hint: write it in "quotes"
    viaduct.toml:8:10: `org_id` in [source.main] must be a string, not a whole number
      hint: write it in "quotes"
    viaduct.toml:9:14: `max_events` in [source.main] must be a whole number, not a string
      hint: write digits, without quotes
    viaduct.toml:10:17: `max_in_flight` in [source.main] must be a whole number, not a number with a fraction
      hint: write digits, without quotes
    viaduct.toml:11:8: `auth` in [source.main] must be a table, not a string
      hint: write it as a table: [source.main.auth]
    viaduct.toml:12:16: `subscription` in [source.main] must be a list, not a table
      hint: write [[source.main.subscription]] with two brackets
    viaduct.toml:14:10: `resume` in [source.main.session] must be true or false, not a string
      hint: write true or false, without quotes
    viaduct.toml:15:14: `end_events` in [source.main.session] must be a list, not a string
      hint: write it in brackets, as in ["one", "two"]
    viaduct.toml:17:8: `lake` in [sink] must be a table, not a string
      hint: write it as a table: [sink.lake]
    viaduct.toml:19:8: `type` in [sink.bus] must be a string, not a whole number
      hint: write "kafka" or "nats" or "file" or "stdout"
    viaduct.toml:21:10: `listen` in [admin] must be a string, not a whole number
      hint: write it in "quotes"
    viaduct.toml:23:9: `level` in [log] must be a string, not a date or time
      hint: write it in "quotes"
    15 mistakes in the configuration
    "#);
}

#[test]
fn out_of_range() {
    let text = r#"
[bridge]
shutdown_timeout = "2h"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
max_events = 201
max_in_flight = 100
[source.main.session]
inactivity_delay = "30s"
poll_timeout = "5m"
[source.main.retry]
initial = "1ms"
max = "1h"
[source.main.auth]
token_url = "https://id.example.com/token"
client_id = "id"
client_secret = "s3cret"
api_key = "key"
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
create_topics = true
partitions = 0
replication_factor = -1
refused_after = "0s"
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
create_stream = true
replicas = 99999999999999999999
[sink.archive]
type = "file"
dir = "./events"
rotate_size = "1B"
"#;
    assert_snapshot!(wrong(text), @r#"
    viaduct.toml:3:20: `shutdown_timeout` in [bridge] must be between 1s and 1h
      hint: write shutdown_timeout = "25s"
    viaduct.toml:7:14: `max_events` in [source.main] must be between 1 and 200
      hint: write max_events = 200
    viaduct.toml:8:17: `max_in_flight` in [source.main] must be between 264 and 1000000
      hint: write max_in_flight = 2000
    viaduct.toml:10:20: `inactivity_delay` in [source.main.session] must be between 60s and 10m
      hint: write inactivity_delay = "2m"
    viaduct.toml:11:16: `poll_timeout` in [source.main.session] must be between 1s and 2m
      hint: write poll_timeout = "15s"
    viaduct.toml:13:11: `initial` in [source.main.retry] must be between 10ms and 60s
      hint: write initial = "200ms"
    viaduct.toml:14:7: `max` in [source.main.retry] must be between 10ms and 10m
      hint: write max = "30s"
    viaduct.toml:24:14: `partitions` in [sink.lake] must be between 1 and 10000
      hint: write partitions = 3
    viaduct.toml:25:22: `replication_factor` in [sink.lake] must be between 1 and 100
      hint: write replication_factor = 3
    viaduct.toml:26:17: `refused_after` in [sink.lake] must be between 1s and 168h
      hint: write refused_after = "60s"
    viaduct.toml:32:12: `replicas` in [sink.bus] is too large
      hint: take a smaller number
    viaduct.toml:36:15: `rotate_size` in [sink.archive] must be between 1KiB and 1024GiB
      hint: write rotate_size = "64MiB"
    12 mistakes in the configuration
    "#);
}

#[test]
fn bad_durations_and_sizes() {
    let text = format!(
        r#"{SOURCE}
[source.main.session]
inactivity_delay = "two minutes"
poll_timeout = "-15s"
[source.main.retry]
initial = "5"
max = "1 fortnight"
[sink.archive]
type = "file"
dir = "./events"
refused_after = "always"
rotate_size = "64 megabytes"
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:12:20: `inactivity_delay` in [source.main.session] must be a duration
      hint: write inactivity_delay = "2m"
    viaduct.toml:13:16: `poll_timeout` in [source.main.session] must be a duration
      hint: write poll_timeout = "15s"
    viaduct.toml:15:11: `initial` in [source.main.retry] must be a duration
      hint: write initial = "200ms"
    viaduct.toml:16:7: `max` in [source.main.retry] must be a duration
      hint: write max = "30s"
    viaduct.toml:20:17: `refused_after` in [sink.archive] must be a duration
      hint: write refused_after = "60s"
    viaduct.toml:21:15: `rotate_size` in [sink.archive] must be a size
      hint: write rotate_size = "64MiB"
    6 mistakes in the configuration
    "#);
}

#[test]
fn values_that_do_not_fit_together() {
    let text = format!(
        r#"{SOURCE}
[source.main.session]
inactivity_delay = "60s"
poll_timeout = "55s"
properties = {{ inactivityDelay = "300" }}
[source.main.retry]
initial = "10s"
max = "1s"
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
create_topics = true
replication_factor = 1
require_durable = true
[sink.out]
type = "stdout"
require_durable = true
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:13:16: `poll_timeout` in [source.main.session] must stay 10s below `inactivity_delay`: the session would expire during a poll
      hint: write poll_timeout = "15s", which is what the vendor holds a GET for
    viaduct.toml:14:14: `properties` in [source.main.session] exist for v2 sessions only
      hint: remove them, or write api = "v2"
    viaduct.toml:14:34: `properties` in [source.main.session] must not contain `inactivityDelay`
      hint: use the key inactivity_delay
    viaduct.toml:17:7: `max` in [source.main.retry] is below `initial`
      hint: write max = "30s"
    viaduct.toml:23:19: `require_durable` in [sink.lake] refuses the topics that it would create: replication_factor is 1
      hint: write replication_factor = 3
    viaduct.toml:26:19: `require_durable` in [sink.out]: stdout keeps nothing
      hint: remove it, or use type = "file"
    6 mistakes in the configuration
    "#);
}

#[test]
fn bad_urls() {
    let text = r#"
[source.main]
api_url = "acme.via.aspect-cloud.net"
org_id = "acme/streaming"
source_uri = "via: acme"
[source.main.auth]
token_url = "https://id:s3cret@id.example.com/token"
client_id = "id"
client_secret = "s3cret"
api_key = "key"
[source.other]
api_url = "https://acme.via.aspect-cloud.net/via/v3"
org_id = "acme"
[source.other.auth]
token_url = "ftp://id.example.com/token?realm=acme"
client_id = "id"
client_secret = "s3cret"
api_key = "key"
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092, user:s3cret@kafka:9092"
[sink.bus]
type = "nats"
url = "nats://one:4222,http://two:4222"
stream = "VIA"
[sink.bare]
type = "nats"
url = "localhost:4222"
stream = "VIA.events"
"#;
    assert_snapshot!(wrong(text), @r#"
    viaduct.toml:3:11: `api_url` in [source.main] must be an http or https URL
      hint: write api_url = "https://<org>.via.aspect-cloud.net"
    viaduct.toml:4:10: `org_id` in [source.main] contains a character that no organisation has
      hint: write the id alone, as in org_id = "acme"
    viaduct.toml:5:14: `source_uri` in [source.main] contains white space
      hint: write a URI, as in source_uri = "via://acme"
    viaduct.toml:7:13: `token_url` in [source.main.auth] contains credentials
      hint: credentials belong into the [source.<name>.auth] keys
    viaduct.toml:12:11: `api_url` in [source.other] has a path
      hint: keep scheme and host only; the paths of the API are added
    viaduct.toml:15:13: `token_url` in [source.other.auth] must be an http or https URL
      hint: write token_url = "https://myaspect.id.aspect-cloud.net/tokenservice/oauth2/access_token"
    viaduct.toml:21:21: `bootstrap_servers` in [sink.lake] must be host:port, comma-separated
      hint: write bootstrap_servers = "kafka-1:9092,kafka-2:9092"
    viaduct.toml:24:7: `url` in [sink.bus] must be nats:// or tls:// URLs, comma-separated
      hint: write url = "nats://localhost:4222"
    viaduct.toml:28:7: `url` in [sink.bare] must be nats:// or tls:// URLs, comma-separated
      hint: write url = "nats://localhost:4222"
    viaduct.toml:29:10: `stream` in [sink.bare] contains a character that no stream's name can have
      hint: use letters, digits, `_` and `-`, as in stream = "VIA"
    10 mistakes in the configuration
    "#);
}

#[test]
fn missing_keys() {
    let text = r#"
[source.main]
[source.other]
org_id = "acme"
[source.other.auth]
client_id = "id"
[[source.other.subscription]]
[sink.lake]
type = "kafka"
[sink.bus]
type = "nats"
user = "viaduct"
[sink.archive]
type = "file"
[sink.what]
dir = "./events"
[[route]]
[dead_letter]
to = "via.dead-letter"
"#;
    assert_snapshot!(wrong(text), @r#"
    viaduct.toml:2:1: [source.main.auth] is missing
      hint: add it with token_url, client_id, client_secret and api_key
    viaduct.toml:2:1: `api_url` in [source.main] is missing
      hint: add api_url = "https://<org>.via.aspect-cloud.net"
    viaduct.toml:2:1: `org_id` in [source.main] is missing
      hint: add org_id = "<your organisation>"
    viaduct.toml:3:1: `api_url` in [source.other] is missing
      hint: add api_url = "https://<org>.via.aspect-cloud.net"
    viaduct.toml:5:1: `api_key` in [source.other.auth] is missing
      hint: add api_key = { env = "NAME" }, or { file = "path" }, or "text"
    viaduct.toml:5:1: `client_secret` in [source.other.auth] is missing
      hint: add client_secret = { env = "NAME" }, or { file = "path" }, or "text"
    viaduct.toml:5:1: `token_url` in [source.other.auth] is missing
      hint: add token_url = "https://myaspect.id.aspect-cloud.net/tokenservice/oauth2/access_token"
    viaduct.toml:7:1: `catalog_type` in [[source.other.subscription]] number 1 is missing
      hint: add catalog_type = "engagementCenterThirdParty" or "changeNotification"
    viaduct.toml:7:1: `description` in [[source.other.subscription]] number 1 is missing
      hint: add description = "third party events"
    viaduct.toml:7:1: `events` in [[source.other.subscription]] number 1 is missing
      hint: add events = ["all"]
    viaduct.toml:8:1: `bootstrap_servers` in [sink.lake] is missing
      hint: add bootstrap_servers = "localhost:9092"
    viaduct.toml:10:1: `password` in [sink.bus] is missing
      hint: add password = { env = "NAME" }, or { file = "path" }, or "text"
    viaduct.toml:10:1: `stream` in [sink.bus] is missing
      hint: add stream = "VIA"
    viaduct.toml:10:1: `url` in [sink.bus] is missing
      hint: add url = "nats://localhost:4222"
    viaduct.toml:13:1: `dir` in [sink.archive] is missing
      hint: add dir = "./events"
    viaduct.toml:15:1: `type` is missing in [sink.what]
      hint: write type = "kafka" or "nats" or "file" or "stdout"
    viaduct.toml:17:1: `match` in [[route]] number 1 is missing
      hint: add match = ["*"]
    viaduct.toml:17:1: `sink` in [[route]] number 1 is missing
      hint: add sink = "lake"
    viaduct.toml:18:1: `sink` in [dead_letter] is missing
      hint: add sink = "lake"
    19 mistakes in the configuration
    "#);
}

#[test]
fn duplicate_keys_and_tables() {
    let text = format!(
        r#"{SOURCE}
[source.main.session]
resume = true
poll_timeout = "15s"
resume = false
{SINK}
[sink.lake.properties]
"compression.type" = "zstd"
compression.type = "lz4"
[sink.lake]
type = "stdout"
[log]
level = "inof"
"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:14:1: duplicate key `resume`
      hint: keep one of the two
    viaduct.toml:22:13: duplicate key `compression.type`
      hint: keep one of the two
    viaduct.toml:23:7: duplicate key `lake`
      hint: keep one of the two
    viaduct.toml:24:1: duplicate key `type`
      hint: keep one of the two
    viaduct.toml:26:9: `level` in [log] must be one of `error`, `warn`, `info`, `debug`, `trace`, `off`, or target=level pairs
      hint: did you mean "info"?
    5 mistakes in the configuration
    "#);
}

#[test]
fn not_toml() {
    let text = r#"
[bridge]
name = viaduct
shutdown_timeout "25s"
[source.main]
api_url = "https://acme.via.aspect-cloud.net
org_id = 'acme
max_events = 500
[sink.bus]
type "nats"
[sink.lake
type = "kafka"
[log]
levle = "info"
"#;
    assert_snapshot!(wrong(text), @r#"
    viaduct.toml:3:8: not valid TOML: string values must be quoted, expected literal string
      hint: strings stand in "quotes", lists in [brackets], one key = value per line
    viaduct.toml:4:18: not valid TOML: key with no value, expected `=`
      hint: strings stand in "quotes", lists in [brackets], one key = value per line
    viaduct.toml:6:45: not valid TOML: invalid basic string, expected `"`
      hint: strings stand in "quotes", lists in [brackets], one key = value per line
    viaduct.toml:7:15: not valid TOML: invalid literal string, expected `'`
      hint: strings stand in "quotes", lists in [brackets], one key = value per line
    viaduct.toml:8:14: `max_events` in [source.main] must be between 1 and 200
      hint: write max_events = 200
    viaduct.toml:10:6: not valid TOML: key with no value, expected `=`
      hint: strings stand in "quotes", lists in [brackets], one key = value per line
    viaduct.toml:11:11: not valid TOML: unclosed table, expected `]`
      hint: strings stand in "quotes", lists in [brackets], one key = value per line
    viaduct.toml:14:1: unknown key `levle` in [log]
      hint: did you mean `level`?
    8 mistakes in the configuration
    "#);
}

#[test]
fn an_unclosed_list_and_text() {
    let text = format!(
        r#"{SOURCE}
[[route]]
match = ["engagementCenter.*",
sink = "lake"
[log]
level = """info
"#
    );
    assert_snapshot!(wrong(&text), @r"
    viaduct.toml:13:6: not valid TOML: a list before this place is not closed
      hint: close it with `]`
    1 mistake in the configuration
    ");
}

#[test]
fn bad_names_and_words() {
    let text = r#"
[bridge]
name = "my bridge"
[source."main source"]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
api = "v4"
[source."main source".auth]
token_url = "https://id.example.com/token"
client_id = "id"
client_secret = "s3cret"
api_key = "key"
realm_in = "body"
client_auth = "digest"
[source."main source".session]
on_shutdown = "drop"
[sink.none]
type = "kafak"
[sink."data.lake"]
type = "stdout"
[sink.out]
type = "stdout"
[admin]
listen = "localhost:9464"
[log]
level = "info,viaduct_poller=debgu"
format = "xml"
"#;
    assert_snapshot!(wrong(text), @r#"
    viaduct.toml:3:8: the bridge cannot be called `my bridge`
      hint: use letters, digits, `_` and `-` only
    viaduct.toml:4:1: a source cannot be called `main source`
      hint: use letters, digits, `_` and `-` only
    viaduct.toml:7:7: `api` in [source.main source] must be one of `v2`, `v3`
      hint: write "v2" or "v3"
    viaduct.toml:13:12: `realm_in` in [source.main source.auth] must be one of `form`, `query`
      hint: write "form" or "query"
    viaduct.toml:14:15: `client_auth` in [source.main source.auth] must be one of `basic`, `post`
      hint: write "basic" or "post"
    viaduct.toml:16:15: `on_shutdown` in [source.main source.session] must be one of `keep`, `delete`
      hint: write "keep" or "delete"
    viaduct.toml:18:8: `type` in [sink.none] must be one of `kafka`, `nats`, `file`, `stdout`
      hint: did you mean "kafka"?
    viaduct.toml:19:1: a sink cannot be called `data.lake`
      hint: use letters, digits, `_` and `-` only
    viaduct.toml:24:10: `listen` in [admin] must be an IP address and a port, or "off"
      hint: write listen = "127.0.0.1:9464", or "0.0.0.0:9464" for all interfaces
    viaduct.toml:26:9: `level` in [log] must be one of `error`, `warn`, `info`, `debug`, `trace`, `off`, or target=level pairs
      hint: did you mean "debug"?
    viaduct.toml:27:10: `format` in [log] must be one of `auto`, `text`, `json`
      hint: write "auto" or "text" or "json"
    11 mistakes in the configuration
    "#);
}

#[test]
fn bad_subscriptions() {
    let text = format!(
        r#"{SOURCE}
[[source.main.subscription]]
description = "one"
catalog_type = "engagementCenterThirdParty"
events = []
resource_type = "teams"
[[source.main.subscription]]
description = "one"
catalog_type = "engagementCenter"
events = "all"
resource_type = "agents"
[[source.main.subscription]]
description = " "
events = ["user", 5]
resource_ids = "2d890d0d2a6ac46"
{SINK}"#
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:14:10: `events` in [[source.main.subscription]] number 1 is empty
      hint: write events = ["all"]
    viaduct.toml:15:17: `resource_type` in [[source.main.subscription]] number 1 cannot be teams for this catalogue
      hint: write resource_type = "users"
    viaduct.toml:17:15: `description` in [[source.main.subscription]] number 2 is used twice
      hint: subscriptions are matched by it: give each its own
    viaduct.toml:18:16: `catalog_type` in [[source.main.subscription]] number 2 must be one of `changeNotification`, `engagementCenterThirdParty`
      hint: did you mean "engagementCenterThirdParty"?
    viaduct.toml:19:10: `events` in [[source.main.subscription]] number 2 must be a list, not a string
      hint: write it in brackets, as in ["one", "two"]
    viaduct.toml:20:17: `resource_type` in [[source.main.subscription]] number 2 must be one of `users`, `teams`, `*`
      hint: write "users" or "teams" or "*"
    viaduct.toml:21:1: `catalog_type` in [[source.main.subscription]] number 3 is missing
      hint: add catalog_type = "engagementCenterThirdParty" or "changeNotification"
    viaduct.toml:22:15: `description` in [[source.main.subscription]] number 3 is empty
      hint: write description = "third party events"
    viaduct.toml:23:19: number 2 of `events` in [[source.main.subscription]] number 3 must be a string, not a whole number
      hint: write it in "quotes"
    viaduct.toml:24:16: `resource_ids` in [[source.main.subscription]] number 3 must be a list, not a string
      hint: write it in brackets, as in ["one", "two"]
    10 mistakes in the configuration
    "#);
}

#[test]
fn warnings() {
    let text = r#"
[source.main]
api_url = "http://acme.example.com"
org_id = "acme"
[source.main.auth]
token_url = "http://localhost:8900/token"
client_id = "${VIA_CLIENT_ID}"
client_secret = "s3cret"
api_key = "key"
realm_in = "query"
[[source.main.subscription]]
description = "third party events"
catalog_type = "engagementCenterThirdParty"
events = ["ScreenPopp", "Idle"]
resource_ids = ["2d890d0d2a6ac46"]
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
required = false
partitions = 3
[sink.bus]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
required = false
replicas = 3
[[route]]
match = ["*"]
sink = "lake"
to = "via/{category}"
[[route]]
match = ["engagementCenter.*"]
sink = "lake"
"#;
    assert_snapshot!(doubts(text), @r#"
    viaduct.toml:3:11: `api_url` in [source.main] is not encrypted: credentials travel readable
      hint: use https
    viaduct.toml:7:13: `client_id` in [source.main.auth] looks like a shell variable, which is not replaced
      hint: write { env = "NAME" } to take the value of a variable
    viaduct.toml:10:12: `realm_in` in [source.main.auth] has no effect without `realm`
      hint: add realm, or remove realm_in
    viaduct.toml:14:11: `events` in [[source.main.subscription]] number 1 names an event that its catalogue lacks
      hint: did you mean "ScreenPop"?
    viaduct.toml:15:16: `resource_ids` in [[source.main.subscription]] number 1 are ignored by the vendor for every resource
      hint: write resource_type = "users" or "teams"
    viaduct.toml:16:2: no sink is required: events are acknowledged whether or not they are anywhere
      hint: write required = true in at least one sink
    viaduct.toml:20:14: `partitions` in [sink.lake] has no effect without create_topics = true
      hint: add create_topics = true, or remove it
    viaduct.toml:21:1: [sink.bus] receives nothing: no route goes to it
      hint: add a [[route]] with sink = "bus", or remove it
    viaduct.toml:26:12: `replicas` in [sink.bus] has no effect without create_stream = true
      hint: add create_stream = true, or remove it
    viaduct.toml:30:6: `to` in [[route]] number 1 has characters that this sink does not allow
      hint: they become `_`; use letters, digits, `.`, `_` and `-`
    viaduct.toml:31:1: [[route]] number 2 never applies: an earlier route to this sink matches first
      hint: move it up, or remove it
    "#);
}
