//! TLS and SASL against a broker that asks for them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use viaduct_sink::Sink;
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::native::free_port;
use viaduct_testkit::nats::tls::TlsFiles;

use super::{confirm, connect, records, settings, stored, topic, wait_until};
use crate::{Inspector, KafkaSettingsError, KafkaSink, Permission, TopicState};

const LOGIN: &str = "org.apache.kafka.common.security";

/// A token endpoint that gives everybody the same kind of token: unsigned, for `sub`, valid for `seconds`. Counts the
/// requests, and checks that they are what RFC 6749, section 4.4, asks for.
fn token_endpoint(sub: &'static str, seconds: u64) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut length, mut basic) = (0, false);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim_end().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                basic |= line.starts_with("authorization: basic ");
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body = String::from_utf8(body).unwrap();
            let right =
                basic && body.contains("grant_type=client_credentials") && body.contains("scope=kafka");
            counter.fetch_add(1, Ordering::SeqCst);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let claims = format!(r#"{{"sub":"{sub}","iat":{now},"exp":{}}}"#, now + seconds);
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let token = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims));
            let (status, answer) = if right {
                (
                    "200 OK",
                    format!(r#"{{"access_token":"{token}","expires_in":{seconds},"token_type":"Bearer"}}"#),
                )
            } else {
                ("400 Bad Request", r#"{"error":"invalid_request"}"#.to_owned())
            };
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
                answer.len()
            );
        }
    });
    (url, asked)
}

/// A broker with a second listener that takes TLS alone, and on it PLAIN, SCRAM and OAUTHBEARER.
struct Secured {
    broker: KafkaBroker,
    bootstrap: String,
    authority: String,
    _files: tempfile::TempDir,
}

fn secured() -> Secured {
    let files = tempfile::tempdir().unwrap();
    let tls = TlsFiles::write(files.path()).unwrap();
    let both = files.path().join("server-with-key.pem");
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    std::fs::write(&both, read(&tls.server.1) + &read(&tls.server.0)).unwrap();
    let bootstrap = format!("127.0.0.1:{}", free_port().unwrap());
    let listener = |name: &str| format!("listener.name.secure.{name}");
    let properties = [
        ("listeners".to_owned(), format!("{{listeners}},SECURE://{bootstrap}")),
        (
            "listener.security.protocol.map".to_owned(),
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL".to_owned(),
        ),
        (listener("ssl.keystore.type"), "PEM".to_owned()),
        (listener("ssl.keystore.location"), both.display().to_string()),
        (listener("sasl.enabled.mechanisms"), "PLAIN,SCRAM-SHA-512,OAUTHBEARER".to_owned()),
        (
            listener("plain.sasl.jaas.config"),
            format!(r#"{LOGIN}.plain.PlainLoginModule required user_alice="plain-secret";"#),
        ),
        (listener("scram-sha-512.sasl.jaas.config"), format!("{LOGIN}.scram.ScramLoginModule required;")),
        (
            listener("oauthbearer.sasl.jaas.config"),
            format!(
                r#"{LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";"#
            ),
        ),
    ];
    let properties: Vec<(&str, &str)> =
        properties.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let broker = KafkaBroker::start_with(&properties);
    let add = "SCRAM-SHA-512=[password=scram-secret]";
    let words = ["--bootstrap-server", broker.bootstrap(), "--alter", "--add-config", add];
    let user = ["--entity-type", "users", "--entity-name", "alice"];
    broker.tool("kafka.admin.ConfigCommand", &[words.as_slice(), &user].concat()).unwrap();
    Secured { broker, bootstrap, authority: tls.authority.display().to_string(), _files: files }
}

async fn publishes(secured: &Secured, properties: &[(&str, &str)]) {
    let topic = topic(secured.broker.bootstrap(), "secure", 1, &[]).await;
    let mut all = vec![("security.protocol", "SASL_SSL"), ("ssl.ca.location", secured.authority.as_str())];
    all.extend(properties);
    let sink = connect(&secured.bootstrap, &all).await;
    confirm(&sink, &records(&topic, "k", 0..20)).await;
    sink.close().await;
    assert_eq!(stored(secured.broker.bootstrap(), &topic, Some("k")).await, (0..20).collect::<Vec<_>>());
}

async fn down_for(sink: &KafkaSink, reason: &str) {
    wait_until(&mut sink.health(), reason, |health| !health.up && health.reason.contains(reason)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_with_plain_scram_and_oauthbearer() {
    let secured = tokio::task::block_in_place(secured);
    publishes(
        &secured,
        &[("sasl.mechanism", "PLAIN"), ("sasl.username", "alice"), ("sasl.password", "plain-secret")],
    )
    .await;
    publishes(
        &secured,
        &[("sasl.mechanism", "SCRAM-SHA-512"), ("sasl.username", "alice"), ("sasl.password", "scram-secret")],
    )
    .await;
    let (endpoint, asked) = token_endpoint("alice", 300);
    let oauth = [
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", "me"),
        ("sasl.oauthbearer.client.secret", "oauth-secret"),
        ("sasl.oauthbearer.token.endpoint.url", endpoint.as_str()),
        ("sasl.oauthbearer.scope", "kafka"),
    ];
    publishes(&secured, &oauth).await;
    // Once for each of the two producers that are there from the start.
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // A look into the cluster needs a token too; settings cannot be asked for.
    let mut secure = oauth.to_vec();
    secure.extend([("security.protocol", "SASL_SSL"), ("ssl.ca.location", secured.authority.as_str())]);
    let looked_at = topic(secured.broker.bootstrap(), "seen", 2, &[]).await;
    let inspector = Inspector::new(settings(&secured.bootstrap, &secure)).await.unwrap();
    assert_eq!(inspector.cluster(Duration::from_secs(20)).await.unwrap().brokers.len(), 1);
    let TopicState::Exists(facts) = inspector.topic(&looked_at).await else {
        panic!("the topic is not seen")
    };
    assert_eq!((facts.partitions, facts.replication_factor), (2, 1));
    assert!(facts.settings.is_err());
    assert!(matches!(inspector.may_write(&facts).await, Permission::Unknown(_)));
    assert_eq!(inspector.may_read(&looked_at).await, Permission::Granted);
    assert_eq!(inspector.may_transact("viaduct.lake.0").await, Permission::Granted);

    // Wrong credentials, an endpoint that says no, and an authority that nobody knows: down, with the reason.
    let refused = [
        (
            vec![("sasl.mechanism", "PLAIN"), ("sasl.username", "alice"), ("sasl.password", "wrong")],
            "credentials",
        ),
        (oauth[..5].to_vec(), "no OAuth token for Kafka: the token endpoint answers 400"),
    ];
    for (mut properties, reason) in refused {
        properties
            .extend([("security.protocol", "SASL_SSL"), ("ssl.ca.location", secured.authority.as_str())]);
        let sink = connect(&secured.bootstrap, &properties).await;
        down_for(&sink, reason).await;
    }
    let untrusted = [("security.protocol", "SSL")];
    let sink = connect(&secured.bootstrap, &untrusted).await;
    down_for(&sink, "certificate").await;
}

/// A token is fetched again before it ends, and records go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_ahead_of_its_end() {
    let secured = tokio::task::block_in_place(secured);
    let (endpoint, asked) = token_endpoint("alice", 5);
    let properties = [
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", secured.authority.as_str()),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.method", "oidc"),
        ("sasl.oauthbearer.client.id", "me"),
        ("sasl.oauthbearer.client.secret", "oauth-secret"),
        ("sasl.oauthbearer.token.endpoint.url", endpoint.as_str()),
        ("sasl.oauthbearer.scope", "kafka"),
    ];
    let topic = topic(secured.broker.bootstrap(), "renewed", 1, &[]).await;
    let sink = connect(&secured.bootstrap, &properties).await;
    let mut number = 0;
    // Two producers: by the fifth time one of them has got its token anew twice.
    while asked.load(Ordering::SeqCst) < 5 {
        confirm(&sink, &records(&topic, "k", number..number + 1)).await;
        number += 1;
        assert!(number < 10_000, "the token is never renewed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    confirm(&sink, &records(&topic, "k", number..number + 1)).await;
    assert_eq!(stored(secured.broker.bootstrap(), &topic, Some("k")).await, (0..=number).collect::<Vec<_>>());
}

#[tokio::test]
async fn topics_cannot_be_created_with_oauth_tokens() {
    let mut settings = settings(
        "localhost:1",
        &[
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.id", "me"),
            ("sasl.oauthbearer.client.secret", "hunter2"),
            ("sasl.oauthbearer.token.endpoint.url", "http://localhost:1"),
        ],
    );
    settings.create_topics = true;
    assert!(matches!(KafkaSink::connect(settings).await, Err(KafkaSettingsError::NoCreation)));
}
