//! No secret ever appears in anything that a person or a log can read.

use super::super::SecretRef;
use super::super::secret::SecretError;
use super::{load_with, wrong_with};

/// Stands wherever a secret can stand.
const CANARY: &str = "c4n4ryS3cret";

/// Every secret-bearing key with the canary in it, nothing wrong.
const RIGHT: &str = r#"
[source.main]
api_url = "https://acme.via.aspect-cloud.net"
org_id = "acme"
[source.main.auth]
token_url = "https://id.example.com/token"
client_id = "c4n4ryS3cret"
client_secret = "c4n4ryS3cret"
api_key = "c4n4ryS3cret"
[sink.lake]
type = "kafka"
bootstrap_servers = "localhost:9092"
[sink.lake.properties]
sasl.password = "c4n4ryS3cret"
sasl.username = "c4n4ryS3cret"
ssl.key.password = "c4n4ryS3cret"
ssl.key.pem = "c4n4ryS3cret"
ssl.keystore.password = "c4n4ryS3cret"
[sink.url]
type = "nats"
url = "nats://user:c4n4ryS3cret@localhost:4222"
stream = "VIA"
[sink.token]
type = "nats"
url = "nats://c4n4ryS3cret@localhost:4222"
stream = "VIA"
[sink.user]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
user = "user"
password = "c4n4ryS3cret"
[sink.nkey]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
nkey = "c4n4ryS3cret"
[sink.creds]
type = "nats"
url = "nats://localhost:4222"
stream = "VIA"
credentials = "c4n4ryS3cret"
[tracing]
otlp_endpoint = "http://localhost:4318"
[tracing.headers]
authorization = "c4n4ryS3cret"
"#;

#[test]
fn debug_and_warnings_show_none() {
    let loaded = load_with(RIGHT, &[], &[]).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let shown = format!("{loaded:?} {loaded:#?} {:?}", loaded.config.sources[0].auth.client_secret.read());
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(shown.contains("redacted"), "the secrets are not even mentioned: {shown}");
}

/// Puts something wrong in each line that holds the canary, one line at a time, in many ways.
#[test]
fn mistakes_show_none() {
    let lines: Vec<_> = RIGHT.lines().collect();
    let mut broken = 0;
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| line.contains(CANARY)) {
        let (key, _) = line.split_once(" = ").unwrap();
        let spoiled = [
            format!("{key} = {CANARY}"),
            format!("{key} = \"{CANARY}"),
            format!("{key} = '{CANARY}"),
            format!("{key} = \"\"\"{CANARY}"),
            format!("{key} \"{CANARY}\""),
            format!("{key} = \"{CANARY}\" \"{CANARY}\""),
            format!("{key} = \"{CANARY}\\q\""),
            format!("{key} = [\"{CANARY}\"]"),
            format!("{key} = {{ env = \"{CANARY} {CANARY}\" }}"),
            format!("{key} = {{ env = [\"{CANARY}\"] }}"),
            format!("{key} = {{ env = \"{CANARY} \", file = \"/{CANARY}\" }}"),
            format!("{key} = {{ value = \"{CANARY}\" }}"),
            format!("{key} = \"{CANARY}\"\n{key} = \"{CANARY}\""),
            format!("x{key} = \"{CANARY}\""),
            format!("{key} = \"CHANGE-ME {CANARY}\"\nextra = \"{CANARY}\""),
            format!("{key} = \"\\u0007{CANARY}\"\nextra = \"{CANARY}\""),
            format!("{key} = \"{CANARY}\"\nrequired = \"{CANARY}\"\norg_id = 5"),
        ];
        for instead in spoiled {
            let mut text: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            text[index].clone_from(&instead);
            let mistakes = match load_with(&text.join("\n"), &[], &[]) {
                Ok(loaded) => format!("{loaded:?}"),
                Err(mistakes) => {
                    broken += 1;
                    format!("{mistakes} {mistakes:?} {}", serde_json::to_string(&mistakes).unwrap())
                }
            };
            assert!(!mistakes.contains(CANARY), "{instead}\n{mistakes}");
        }
    }
    assert!(broken > 150, "only {broken} of these were refused");
}

#[test]
fn what_librdkafka_says_shows_none() {
    let text = RIGHT
        .replace("sasl.username =", "sasl.jaas.config =")
        .replace("sasl.password =", "security.protocol =");
    let mistakes = load_with(&text, &[], &[]).unwrap_err().to_string();
    assert!(!mistakes.contains(CANARY), "{mistakes}");
    assert!(mistakes.contains("sasl.jaas.config") && mistakes.contains("security.protocol"), "{mistakes}");
}

#[test]
fn values_of_every_other_key_show_none_either() {
    // A secret in the wrong place: every value of the file is the canary, in turn as text and as a list.
    for (index, line) in RIGHT.lines().enumerate() {
        let Some((key, _)) = line.split_once(" = ") else { continue };
        for value in
            [format!("\"{CANARY} {CANARY}\""), format!("[\"{CANARY}\"]"), format!("{{ a = \"{CANARY}\" }}")]
        {
            let text: Vec<_> = RIGHT
                .lines()
                .enumerate()
                .map(|(at, line)| if at == index { format!("{key} = {value}") } else { line.to_owned() })
                .collect();
            if let Err(mistakes) = load_with(&text.join("\n"), &[], &[]) {
                assert!(!mistakes.to_string().contains(CANARY), "{key} = {value}\n{mistakes}");
            }
        }
    }
}

#[test]
fn variables_and_flags_show_none() {
    let wrong = format!("{{ env = \"{CANARY} \" }}");
    let env = [
        ("VIADUCT__SOURCE__MAIN__AUTH__CLIENT_SECRET", wrong.as_str()),
        ("VIADUCT__SOURCE__MAIN__AUTH__PASSWORD", CANARY),
        ("VIADUCT__SOURCE__MAIN__AUTH", CANARY),
        ("VIADUCT__SINK__LAKE__PROPERTIES", CANARY),
        ("VIADUCT__SINK__USER__TOKEN", CANARY),
        ("VIADUCT__BRIDGE__SHUTDOWN_TIMEOUT", CANARY),
    ];
    let overrides =
        [("source.main.auth.secret", CANARY), ("sink.url.url", "http://user:c4n4ryS3cret@localhost")];
    let mistakes = wrong_with(RIGHT, &env, &overrides);
    assert!(!mistakes.contains(CANARY), "{mistakes}");
    assert!(mistakes.contains("VIADUCT__SOURCE__MAIN__AUTH"), "{mistakes}");
}

#[test]
fn a_secret_that_cannot_be_read_names_its_place_only() {
    let errors = [
        SecretRef::variable("VIADUCT_TEST_NEVER_SET").read().unwrap_err(),
        SecretRef::file("/nowhere/secret").read().unwrap_err(),
        SecretRef::literal("").read().unwrap_err(),
        SecretError::NotText("NAME".to_owned()),
    ];
    let shown: Vec<_> = errors.iter().map(|error| format!("{error} {error:?}")).collect();
    assert!(shown[0].contains("VIADUCT_TEST_NEVER_SET") && shown[1].contains("/nowhere/secret"), "{shown:?}");
}
