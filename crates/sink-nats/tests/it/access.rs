//! Servers that ask who is there.

use async_nats::ConnectOptions;
use std::fs;
use viaduct_sink::{Refusal, Sink};
use viaduct_sink_nats::{NatsAuth, NatsSettings, NatsSink, Secret};
use viaduct_testkit::nats::identity::{Operator, UserNkey};
use viaduct_testkit::nats::reader::read_stream_with;
use viaduct_testkit::nats::tls::TlsFiles;
use viaduct_testkit::nats::{NatsOptions, NatsServer};

use crate::support::*;

fn server(config: &str) -> NatsServer {
    NatsServer::start_with(NatsOptions { config: config.to_owned() })
}

fn with_auth(server: &NatsServer, auth: NatsAuth) -> NatsSettings {
    let mut settings = settings(server.url(), "VIA");
    settings.auth = auth;
    settings
}

/// The right credentials publish, others are told so and nothing of them shows.
async fn right_and_wrong(server: &NatsServer, right: NatsAuth, wrong: NatsAuth) {
    let sink = NatsSink::connect(with_auth(server, right)).await.unwrap();
    sequence(&publish(&sink, &[record("VIA.x", None, 0)]).await[0]);
    let refused = NatsSink::connect(with_auth(server, wrong)).await.unwrap();
    down_because(&refused, "authorization violation").await;
    assert!(!refused.health().borrow().reason.contains("canary"));
}

#[tokio::test]
async fn a_token() {
    let server = server("authorization { token: \"right\" }\n");
    let token = |text: &str| NatsAuth::Token(Secret::fixed(text));
    right_and_wrong(&server, token("right"), token("canary")).await;
}

#[tokio::test]
async fn user_and_password() {
    let server = server("authorization { user: via, password: \"right\" }\n");
    let auth = |text: &str| NatsAuth::UserPassword { user: "via".into(), password: Secret::fixed(text) };
    right_and_wrong(&server, auth("right\n"), auth("canary")).await;
}

#[tokio::test]
async fn an_nkey() {
    let (right, wrong) = (UserNkey::generate().unwrap(), UserNkey::generate().unwrap());
    let server = server(&format!("authorization {{ users: [ {{ nkey: {} }} ] }}\n", right.public));
    let nkey = |key: &UserNkey| NatsAuth::Nkey(Secret::fixed(key.seed.clone()));
    right_and_wrong(&server, nkey(&right), nkey(&wrong)).await;
}

#[tokio::test]
async fn credentials_as_text_and_as_a_file() {
    let (right, wrong) = (Operator::generate().unwrap(), Operator::generate().unwrap());
    let server = server(&right.config);
    let text = |operator: &Operator| NatsAuth::Credentials(Secret::fixed(operator.credentials.clone()));
    right_and_wrong(&server, text(&right), text(&wrong)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bridge.creds");
    fs::write(&file, &right.credentials).unwrap();
    let sink = NatsSink::connect(with_auth(&server, NatsAuth::CredentialsFile(file))).await.unwrap();
    sequence(&publish(&sink, &[record("VIA.x", None, 1)]).await[0]);
    let client =
        ConnectOptions::with_credentials(&right.credentials).unwrap().connect(server.url()).await.unwrap();
    assert_eq!(read_stream_with(&client, "VIA").await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_rotated_secret_is_picked_up() {
    let server = server("authorization { token: \"new\" }\n");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, "old").unwrap();
    let path = file.clone();
    let secret = Secret::reading(move || match fs::read_to_string(&path) {
        Ok(text) => Ok(text.into()),
        Err(error) => Err(error.to_string()),
    });
    let sink = NatsSink::connect(with_auth(&server, NatsAuth::Token(secret))).await.unwrap();
    down_because(&sink, "authorization violation").await;
    fs::write(&file, "new\n").unwrap();
    assert_eq!(health(&sink, true).await, "");
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let files = TlsFiles::write(dir.path()).unwrap();
    let server = server(&files.server_config(true));
    let mut settings = settings(&server.url().replace("nats://", "tls://"), "VIA");
    settings.tls.authorities = Some(files.authority.clone());
    let without = NatsSink::connect(settings.clone()).await.unwrap();
    settings.tls.client = Some(files.client.clone());
    let sink = NatsSink::connect(settings).await.unwrap();
    sequence(&publish(&sink, &[record("VIA.x", None, 0)]).await[0]);
    down_because(&without, "").await;
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_required() {
    let server = NatsServer::shared();
    let mut settings = settings(server.url(), &stream_name());
    settings.tls.required = true;
    let sink = NatsSink::connect(settings).await.unwrap();
    down_because(&sink, "cannot connect").await;
}

/// `users` of one account with JetStream; `own` is what the sink's user may do.
fn limited(own: &str) -> NatsServer {
    server(&format!(
        "accounts {{ APP {{ jetstream: enabled, users: [ {{ user: admin, password: admin }},
           {{ user: via, password: via, permissions: {{ {own} }} }} ] }} }}\n"
    ))
}

fn via() -> NatsAuth {
    NatsAuth::UserPassword { user: "via".into(), password: Secret::fixed("via") }
}

#[tokio::test]
async fn a_subject_that_is_not_permitted_is_refused_and_holds_the_others_not_back() {
    let server = limited(r#"publish: ["VIA.open.>", "$JS.API.>"], subscribe: ["_INBOX.>"]"#);
    let sink = NatsSink::connect(with_auth(&server, via())).await.unwrap();
    let records: Vec<_> = (0..40)
        .map(|number| match number % 2 {
            0 => record("VIA.open.x", Some("open"), number / 2),
            _ => record("VIA.closed.x", Some("closed"), number / 2),
        })
        .collect();
    for (number, outcome) in publish(&sink, &records).await.iter().enumerate() {
        match number {
            _ if number % 2 == 0 => drop(sequence(outcome)),
            1 => assert_eq!(refusal(outcome), Some(Refusal::NotPermitted)),
            _ => drop(refusal(outcome)),
        }
    }
    assert!(sink.health().borrow().up, "the connection is fine");
}

#[tokio::test]
async fn a_user_without_jetstreams_interface_publishes_all_the_same() {
    let server = limited(r#"publish: ["VIA.>"], subscribe: ["_INBOX.>"]"#);
    let admin = NatsAuth::UserPassword { user: "admin".into(), password: Secret::fixed("admin") };
    let maker = NatsSink::connect(with_auth(&server, admin)).await.unwrap();
    health(&maker, true).await;
    let mut settings = with_auth(&server, via());
    settings.create_stream = false;
    let sink = NatsSink::connect(settings).await.unwrap();
    let records: Vec<_> = (0..300).map(|number| record("VIA.x", Some("k"), number)).collect();
    assert!(publish(&sink, &records).await.iter().map(sequence).is_sorted());
    assert!(sink.health().borrow().up);
    let lost = record("OTHER.x", None, 0);
    assert_eq!(refusal(&publish(&sink, &[lost]).await[0]), Some(Refusal::NotPermitted));
}

#[tokio::test]
async fn an_inbox_that_is_not_permitted_is_told_and_another_prefix_helps() {
    let server = limited(r#"publish: [">"], subscribe: ["_INBOX_via.>"]"#);
    let mut settings = with_auth(&server, via());
    let sink = NatsSink::connect(settings.clone()).await.unwrap();
    down_because(&sink, "does not permit to subscribe to _INBOX").await;
    settings.inbox_prefix = Some("_INBOX_via".into());
    let sink = NatsSink::connect(settings).await.unwrap();
    sequence(&publish(&sink, &[record("VIA.x", None, 0)]).await[0]);
}
