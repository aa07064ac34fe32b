//! A NATS sink.

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use std::time::Duration;

use viaduct_testkit::nats::{NatsOptions, NatsServer};

use super::check;
use crate::kit::bridge::Site;
use crate::kit::destinations::unique;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

/// `[sink.bus]` and its route.
fn sink(url: &str, stream: &str, more: &str) -> String {
    format!(
        "[sink.bus]\ntype = \"nats\"\nurl = \"{url}\"\nstream = \"{stream}\"\n{more}\n\
         [[route]]\nmatch = [\"*\"]\nsink = \"bus\"\nto = \"{stream}.{{category}}.{{name}}\"\n"
    )
}

async fn context(url: &str) -> Context {
    jetstream::new(async_nats::connect(url).await.unwrap())
}

/// A stream as the sink would make it.
fn right(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![format!("{name}.>"), "_viaduct.checkpoint.viaduct.bus.>".to_owned()],
        allow_atomic_publish: true,
        allow_rollup: true,
        ..Config::default()
    }
}

async fn site_of(url: &str, name: &str, more: &str) -> (Vendor, Site) {
    let vendor = Vendor::start(settings()).await;
    let site = Site::new(&[vendor.source("").as_str(), &sink(url, name, more)].concat());
    (vendor, site)
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_holds_on_a_cluster() {
    let servers = tokio::task::block_in_place(|| NatsServer::start_cluster(3));
    let urls = servers.iter().map(NatsServer::url).collect::<Vec<_>>().join(",");
    let name = unique("ONLINE");
    let cluster = context(servers[0].url()).await;
    until("the stream can be made", Duration::from_secs(60), async || {
        cluster.create_stream(Config { num_replicas: 3, ..right(&name) }).await.is_ok()
    })
    .await;
    let more = "delivery = \"exactly_once\"\nrequire_durable = true\n";
    let (_vendor, site) = site_of(&urls, &name, more).await;
    let found = check(&site, &["--strict"]);
    assert_eq!(found.code, 0, "{}\n{:#}", found.said, found.document);
    assert_eq!(found.verdict(), ("holds", "exactly once to bus: holds"));
    assert_eq!(found.of("sink bus", "durability", &name), ("ok", "3 replicas, on file"));
    for server in &servers {
        let address = server.url().trim_start_matches("nats://").to_owned();
        assert_eq!(found.status("server", &address), "ok");
    }
    for (check, subject) in [
        ("version", ""),
        ("jetstream", ""),
        ("stream", &*name),
        ("atomic batches", &name),
        ("checkpoints", &name),
        ("subject", &format!("{name}.>")),
        ("subject", "_viaduct.checkpoint.viaduct.bus.>"),
        ("publish permission", &format!("{name}.>")),
    ] {
        assert_eq!(found.status(check, subject), "ok", "{check}");
    }
    servers[2].kill();
    let found = check(&site, &[]);
    assert_eq!(found.status("server", servers[2].url().trim_start_matches("nats://")), "warn");
    assert_eq!(found.code, 0, "{}", found.said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_missing_is_created_or_a_failure() {
    let url = NatsServer::shared().url();
    let name = unique("ONLINE");
    let (_vendor, site) = site_of(url, &name, "").await;
    let found = check(&site, &[]);
    assert_eq!((found.code, found.of("sink bus", "stream", &name)), (78, ("fail", "does not exist")));
    let create = ["--set", "sink.bus.create_stream=true"];
    let found = check(&site, &create);
    assert_eq!(found.code, 0, "{}\n{:#}", found.said, found.document);
    assert_eq!(found.of("sink bus", "stream", &name), ("ok", "does not exist yet, and is created"));
    assert_eq!(found.status("subject", &format!("{name}.>")), "ok");
    assert_eq!(found.status("durability", &name), "warn");
    let js = context(url).await;
    assert!(js.get_stream(&name).await.is_err(), "a check creates the stream");

    // A subject stands in one stream only.
    let other = unique("OTHER");
    let taken = Config { name: other.clone(), subjects: vec![format!("{name}.*.x")], ..Config::default() };
    js.create_stream(taken).await.unwrap();
    let found = check(&site, &create);
    let (status, detail) = found.of("sink bus", "subject", &format!("{name}.>"));
    assert_eq!((found.code, status), (78, "fail"));
    assert!(detail.contains(&other), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_do_not_keep_what_they_are_given() {
    let url = NatsServer::shared().url();
    let js = context(url).await;
    let name = unique("ONLINE");
    let weak = Config {
        name: name.clone(),
        subjects: vec![format!("{name}.engagementCenter.>")],
        storage: StorageType::Memory,
        retention: RetentionPolicy::Interest,
        discard: DiscardPolicy::Old,
        max_messages: 1_000,
        max_age: Duration::from_secs(60),
        duplicate_window: Duration::from_secs(10),
        max_message_size: 2_000,
        ..Config::default()
    };
    js.create_stream(weak).await.unwrap();
    let (_vendor, site) = site_of(url, &name, "").await;
    let found = check(&site, &[]);
    assert_eq!(found.code, 78, "{}", found.said);
    assert_eq!(found.of("sink bus", "subject", &format!("{name}.>")).0, "fail");
    for check in ["durability", "retention policy", "discard", "retention", "duplicate window", "record size"]
    {
        assert_eq!(found.status(check, &name), "warn", "{check}");
    }
    let (word, sentence) = found.verdict();
    assert_eq!(word, "does_not_hold", "{sentence}");

    // The same under exactly once: no atomic batches, and checkpoints that go.
    let exactly = ["--set", "sink.bus.delivery=exactly_once"];
    let found = check(&site, &exactly);
    assert_eq!((found.code, found.status("atomic batches", &name)), (78, "fail"));
    assert_eq!(found.status("checkpoints", &name), "warn");
    assert!(found.verdict().1.starts_with("exactly once to bus: does not hold"), "{}", found.verdict().1);
    let found = check(&site, &[&exactly[..], &["--set", "sink.bus.create_stream=true"]].concat());
    let (status, detail) = found.of("sink bus", "atomic batches", &name);
    assert_eq!((status, detail), ("ok", "allow_atomic and allow_rollup_hdrs are added at start"));
    let found = check(&site, &["--set", "sink.bus.require_durable=true"]);
    assert_eq!(found.status("durability", &name), "fail");
}

#[tokio::test(flavor = "multi_thread")]
async fn permissions_and_credentials() {
    let config = "authorization { users: [\n\
        { user: all, password: hunter2-all }\n\
        { user: some, password: hunter2-some, permissions: { publish: { allow: [\"$JS.API.>\", \"$SYS.REQ.USER.INFO\", \"other.>\"] } } }\n\
        { user: mute, password: hunter2-mute, permissions: { publish: { allow: [\"$JS.API.>\"] } } }\n\
        { user: nothing, password: hunter2-nothing, permissions: { publish: { allow: [\"x\"] } } }\n\
        ] }\n";
    let server = NatsServer::start_with(NatsOptions { config: config.to_owned() });
    let address = server.url().trim_start_matches("nats://");
    let url = |user: &str| format!("nats://{user}:hunter2-{user}@{address}");
    let name = unique("ONLINE");
    let options = async_nats::ConnectOptions::with_user_and_password("all".into(), "hunter2-all".into());
    let js = jetstream::new(options.connect(server.url()).await.unwrap());
    js.create_stream(right(&name)).await.unwrap();
    let subject = format!("{name}.>");
    let (vendor, site) = site_of(&url("all"), &name, "").await;
    let found = check(&site, &[]);
    assert_eq!((found.code, found.status("publish permission", &subject)), (0, "ok"), "{:#}", found.document);
    let with = |user: &str| Site::new(&[vendor.source("").as_str(), &sink(&url(user), &name, "")].concat());
    let found = check(&with("some"), &[]);
    assert_eq!(
        (found.code, found.status("publish permission", &subject)),
        (77, "fail"),
        "{:#}",
        found.document
    );
    let found = check(&with("mute"), &[]);
    assert_eq!((found.code, found.status("publish permission", &subject)), (0, "unverified"));
    let found = check(&with("nothing"), &[]);
    assert_eq!((found.code, found.status("stream", &name)), (0, "unverified"), "{:#}", found.document);
    assert_eq!(found.verdict().0, "unverified");

    let wrong = url("all").replace("hunter2-all", "hunter2-wrong");
    let site = Site::new(&[vendor.source("").as_str(), &sink(&wrong, &name, "")].concat());
    let found = check(&site, &[]);
    assert_eq!((found.code, found.status("server", address)), (77, "fail"), "{:#}", found.document);
    let site = Site::new(&[vendor.source("").as_str(), &sink("nats://127.0.0.1:1", &name, "")].concat());
    let found = check(&site, &[]);
    assert_eq!((found.code, found.status("server", "127.0.0.1:1")), (69, "fail"));
}
