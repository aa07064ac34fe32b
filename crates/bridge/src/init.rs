//! `viaduct init`: a commented configuration to start from.
//!
//! Prose starts with `# `; a line that starts with `#` and no blank is a key at its default or with an example, to be
//! switched on by removing the `#`. What has to be filled in is called `CHANGE-ME`, which the configuration refuses.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use crate::cli::{InitArgs, SIMULATOR_ADDRESS};
use crate::exit::{Exit, Failure};

/// Writes the file and tells what to do next.
///
/// # Errors
/// 73 where the file exists already or cannot be written.
pub(crate) fn init(args: &InitArgs, out: &mut impl Write) -> Result<(), Failure> {
    let path = &args.output;
    write_new(path, &template(args)).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(
            Exit::CantCreate,
            format!("{} exists already; it is left as it is", path.display()),
            "remove it first, or write elsewhere with --output",
        ),
        _ => Failure::new(
            Exit::CantCreate,
            format!("{} cannot be written: {error}", path.display()),
            "choose another place with --output",
        ),
    })?;
    let file = path.display();
    let next = if args.simulator {
        format!("next: `viaduct simulate` in one terminal, `viaduct run -c {file}` in another")
    } else {
        format!(
            "next: replace each CHANGE-ME in it, then `viaduct check -c {file}` and `viaduct run -c {file}`"
        )
    };
    // The file is what counts; whether anybody reads this does not.
    let _ = writeln!(out, "wrote {file}\n{next}");
    Ok(())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The text; without any broker, with a file sink.
fn template(args: &InitArgs) -> String {
    let file_only = !args.kafka && !args.nats;
    let parts = [
        (true, HEAD),
        (!args.simulator, VENDOR),
        (args.simulator, SIMULATOR),
        (true, SOURCE_OPTIONS),
        (args.kafka, KAFKA),
        (args.kafka && args.simulator, LOCAL_KAFKA),
        (args.kafka && !args.simulator, DISTANT_KAFKA),
        (args.nats, NATS),
        (args.nats && args.simulator, LOCAL_NATS),
        (args.nats && !args.simulator, DISTANT_NATS),
        (file_only, FILE),
        (true, ROUTES),
        (args.kafka, KAFKA_ROUTE),
        (args.nats, NATS_ROUTE),
        (file_only, FILE_ROUTE),
        (true, TAIL),
    ];
    parts
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, part)| part.replace("{simulator}", SIMULATOR_ADDRESS))
        .collect()
}

const HEAD: &str = r#"# Viaduct's configuration.
#
# `viaduct check` reports everything that is wrong with it, `viaduct run` starts the bridge.
# The variable VIADUCT__SOURCE__MAIN__ORG_ID sets org_id in [source.main]; a flag (--set) wins over both.
# A secret is { env = "NAME" }, { file = "path" } or a text. Relative paths start at the working directory.

[bridge]
# Identity of this deployment: with exactly_once, of two running bridges of one name the later one takes over.
name = "viaduct"
# How long a shutdown waits for publishes in flight and their acknowledgements.
#shutdown_timeout = "25s"
# More producers for many sources. Fixed for the life of a deployment.
#shards = 1
"#;

const VENDOR: &str = r#"
# A source is one organisation and credential of the vendor; its name is part of the saved state and of the metrics.
[source.main]
api_url = "https://CHANGE-ME.via.aspect-cloud.net"
org_id = "CHANGE-ME"

# OAuth2 client credentials.
[source.main.auth]
token_url = "https://myaspect.id.aspect-cloud.net/tokenservice/oauth2/access_token"
client_id = { env = "VIA_CLIENT_ID" }
client_secret = { env = "VIA_CLIENT_SECRET" }
api_key = { env = "VIA_API_KEY" }

# To try it with `viaduct simulate` as the vendor, use these instead:
#   api_url = "http://{simulator}"
#   org_id = "acme"
#   token_url = "http://{simulator}/tokenservice/oauth2/access_token"
#   client_id = "any"
#   client_secret = "any"
#   api_key = "any"
"#;

const SIMULATOR: &str = r#"
# A source is one organisation and credential of the vendor; its name is part of the saved state and of the metrics.
# This one is `viaduct simulate`; a real api_url is like "https://acme.via.aspect-cloud.net".
[source.main]
api_url = "http://{simulator}"
org_id = "acme"

# OAuth2 client credentials. The simulator takes any; real ones are better kept in { env = "NAME" }.
[source.main.auth]
token_url = "http://{simulator}/tokenservice/oauth2/access_token"
client_id = "any"
client_secret = "any"
api_key = "any"
"#;

const SOURCE_OPTIONS: &str = r#"
# Further settings of the token request.
#scope = "streamingapi"
# Where the credentials go: "basic" (header) or "post" (form).
#client_auth = "basic"
#realm = "acme"
#realm_in = "form"

[source.main.session]
# The vendor drops a session that is not polled for this long; 60s to 600s.
inactivity_delay = "120s"
# Go on with the same session after a restart.
#resume = true
# "keep" the session at a shutdown, or "delete" it.
#on_shutdown = "keep"

# How calls to the vendor are repeated.
#[source.main.retry]
#initial = "200ms"
#max = "30s"

# Subscriptions are declared in each new session, before its first events are fetched.
#[[source.main.subscription]]
#description = "third party events"
#catalog_type = "engagementCenterThirdParty"
#events = ["all"]
#resource_type = "users"
#resource_ids = []
"#;

const KAFKA: &str = r#"
[sink.kafka]
type = "kafka"
"#;

const DISTANT_KAFKA: &str = r#"bootstrap_servers = "CHANGE-ME:9092"
# Create missing topics, with the broker's defaults or these. Otherwise they have to exist.
create_topics = false
#partitions = 6
#replication_factor = 3
# Or once, also over crashes: by transactions. Consumers then need isolation.level=read_committed.
#delivery = "exactly_once"
# An event is acknowledged only after every required sink has it.
#required = true
# How long a missing topic or permission is waited for before those events become dead letters; or "never".
#refused_after = "60s"

# librdkafka's properties; each may be a secret.
#[sink.kafka.properties]
#security.protocol = "SASL_SSL"
#sasl.mechanism = "SCRAM-SHA-512"
#sasl.username = "viaduct"
#sasl.password = { env = "KAFKA_PASSWORD" }
#compression.type = "zstd"
"#;

const LOCAL_KAFKA: &str = r#"bootstrap_servers = "localhost:9092"
# Create missing topics, with the broker's defaults.
create_topics = true
"#;

const NATS: &str = r#"
[sink.nats]
type = "nats"
# The stream that holds all subjects of this sink.
stream = "VIA"
"#;

const DISTANT_NATS: &str = r#"# Comma-separated.
url = "nats://CHANGE-ME:4222"
# One way of proving who we are: credentials (a .creds file), nkey (its seed), user and password, or token.
credentials = { file = "CHANGE-ME.creds" }
# Create the stream if it is missing. Otherwise it has to exist.
create_stream = false
#replicas = 3
# Or once, also over crashes: by atomic batches (nats-server 2.12 or newer).
#delivery = "exactly_once"
# An event is acknowledged only after every required sink has it.
#required = true
# How long a missing stream or permission is waited for before those events become dead letters; or "never".
#refused_after = "60s"

# A tls:// URL is enough where the server's certificate is a public one.
#[sink.nats.tls]
#required = true
"#;

const LOCAL_NATS: &str = r#"url = "nats://localhost:4222"
# Create the stream if it is missing.
create_stream = true
"#;

const FILE: &str = r#"
# `viaduct init --kafka --nats` writes sinks for brokers.
[sink.archive]
type = "file"
# JSON Lines, one file per destination.
dir = "./events"
#rotate_size = "64MiB"
"#;

const ROUTES: &str = r#"
# All matching routes apply, the first match per sink wins. "*" in a pattern stands for any characters, "!" takes back:
# match = ["engagementCenter.*", "!*.Idle"]. `viaduct check --routes` shows where each type of event would go.
# An event that no route matches becomes a dead letter; sink = "none" drops those it matches.
"#;

const KAFKA_ROUTE: &str = r#"
[[route]]
match = ["*"]
sink = "kafka"
# Fields in braces: org, source, category, name, eventType, kind, and any field of the event, also by its path.
to = "via.{category}"
# The first of these fields that an event has is its key: what has one key keeps its order.
key = ["interactionId", "sessionId", "userId", "ehubSessionId", "correlationId"]
# "unwrapped": the payload as JSON; "raw": the vendor's bytes; "payload": that alone; "cloudevents": structured JSON.
#format = "unwrapped"
# Further headers, constant or made of the event's fields.
#headers = { x-team = "billing", x-agent = "{userId}" }
"#;

const NATS_ROUTE: &str = r#"
[[route]]
match = ["*"]
sink = "nats"
to = "via.{org}.{category}.{name}"
#key = ["interactionId", "sessionId", "userId", "ehubSessionId", "correlationId"]
#format = "unwrapped"
"#;

const FILE_ROUTE: &str = r#"
[[route]]
match = ["*"]
sink = "archive"
to = "{category}"
#key = ["interactionId", "sessionId", "userId", "ehubSessionId", "correlationId"]
#format = "unwrapped"
"#;

const TAIL: &str = r#"
# What nobody behind the bridge may see: "redact", "last4", "hash" (with hash_key, at least 16 characters) or "drop".
#[mask]
#fields = { phoneNumber = "last4", "*.lastName" = "redact" }
#honour_is_masked = true

# Events that can never be published as routed are kept as JSON Lines under state.dir, with the reason.

[state]
# Session ids, spools, dead letters. One process at a time.
dir = "./viaduct-state"

[admin]
# /livez /readyz /metrics /status; "off" for none.
listen = "127.0.0.1:9464"
# What `viaduct tap --records` sees: "masked" or "clear". The port has no authentication.
#records = "masked"

# Spans for OpenTelemetry, and `traceparent` in records.
#[tracing]
#otlp_endpoint = "http://localhost:4318"
#sample_ratio = 1.0

[log]
#level = "info"
# "auto": text on a terminal, JSON elsewhere; or "text", "json".
#format = "auto"
"#;

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::config::{LoadInput, Loaded, Mistakes, load};

    fn every_choice() -> impl Iterator<Item = InitArgs> {
        (0..8).map(|bits| InitArgs {
            kafka: bits & 1 != 0,
            nats: bits & 2 != 0,
            simulator: bits & 4 != 0,
            output: "viaduct.toml".into(),
        })
    }

    fn loaded(text: &str) -> Result<Loaded, Mistakes> {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("viaduct.toml");
        fs::write(dir.path().join("acme.creds"), "creds").unwrap();
        fs::write(&file, text.replace("\"acme.creds\"", &format!("{:?}", dir.path().join("acme.creds"))))
            .unwrap();
        let names = ["VIA_CLIENT_ID", "VIA_CLIENT_SECRET", "VIA_API_KEY", "KAFKA_PASSWORD"];
        let env = names.map(|name| (name.to_owned(), "given".to_owned())).to_vec();
        load(LoadInput { file: Some(file), env, overrides: Vec::new() })
    }

    #[test]
    fn every_choice_is_right_once_the_places_are_filled_in() {
        for args in every_choice() {
            let text = template(&args);
            let loaded = loaded(&text.replace("CHANGE-ME", "acme"));
            let loaded = loaded.unwrap_or_else(|mistakes| panic!("{args:?}\n{text}\n{mistakes}"));
            assert_eq!(loaded.warnings, [], "{args:?}");
            assert_eq!(text.contains("CHANGE-ME"), !args.simulator, "{args:?}");
        }
    }

    #[test]
    fn every_commented_key_is_accepted() {
        for args in every_choice() {
            let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
            let text = template(&args)
                .replace("CHANGE-ME", "acme")
                .replace("create_topics = false", "create_topics = true");
            let text = text.replace("create_stream = false", "create_stream = true");
            let switched_on: Vec<_> =
                text.lines().map(|line| if is_key(line) { &line[1..] } else { line }).collect();
            let loaded = loaded(&switched_on.join("\n"));
            let loaded =
                loaded.unwrap_or_else(|mistakes| panic!("{args:?}\n{}\n{mistakes}", switched_on.join("\n")));
            assert_eq!(loaded.warnings, [], "{args:?}");
        }
    }

    #[test]
    fn what_is_left_to_fill_in_is_refused() {
        for args in every_choice().filter(|args| !args.simulator) {
            let mistakes = loaded(&template(&args)).unwrap_err().to_string();
            let places = template(&args).lines().filter(|line| line.contains("CHANGE-ME")).count();
            assert_eq!(mistakes.matches("CHANGE-ME").count(), places, "{mistakes}");
        }
    }

    #[test]
    fn a_file_that_exists_is_left_as_it_is() {
        let dir = TempDir::new().unwrap();
        let output = dir.path().join("viaduct.toml");
        let args = InitArgs { kafka: true, nats: false, simulator: true, output: output.clone() };
        let mut out = Vec::new();
        init(&args, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("wrote "));
        fs::write(&output, "mine").unwrap();
        let failure = init(&args, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.exit(), Exit::CantCreate);
        assert!(failure.to_string().contains("exists already"), "{failure}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let args =
            InitArgs { kafka: true, nats: true, simulator: false, output: "/nowhere/viaduct.toml".into() };
        let failure = init(&args, &mut Vec::new()).unwrap_err();
        assert_eq!(failure.exit(), Exit::CantCreate);
        assert!(failure.to_string().contains("/nowhere/viaduct.toml"), "{failure}");
    }
}
