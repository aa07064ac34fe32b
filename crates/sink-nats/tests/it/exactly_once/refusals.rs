//! What cannot be stored, in the middle of batches that can.

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use viaduct_sink::{Header, HeaderName, Refusal, RejectReason, Sink};
use viaduct_sink_nats::{NatsAuth, Secret};
use viaduct_testkit::nats::reader::read_stream_with;
use viaduct_testkit::nats::{NatsOptions, NatsServer};

use super::*;

fn rejection(outcome: &Outcome) -> RejectReason {
    match outcome {
        Outcome::Rejected(rejection) => rejection.reason,
        other => panic!("not rejected: {other:?}"),
    }
}

async fn context(url: &str) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(url).await.unwrap())
}

/// Records of the keys `k0` … `k9`, ten at a time, and which of them are not `bad`.
fn of_ten_keys(stream: &str, count: usize) -> Vec<Record> {
    (0..count)
        .map(|n| record(&format!("{stream}.s{}", n % 3), Some(&format!("k{}", n % 10)), n / 10))
        .collect()
}

#[tokio::test]
async fn a_limit_that_is_lowered_under_way_costs_only_what_is_larger() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    settle(&*sink, "main", &records(&stream, "before", 0..10)).await;
    let context = context(url).await;
    let mut config = context.get_stream(&stream).await.unwrap().cached_info().config.clone();
    config.max_message_size = 100_000;
    context.update_stream(config).await.unwrap();
    let mut all = records(&stream, "k", 0..900);
    let bad = [300, 301, 899];
    for (n, index) in bad.into_iter().enumerate() {
        all[index] = record(&format!("{stream}.x"), Some("bad"), n);
        all[index].value = vec![b'1'; 150_000].into();
    }
    // The others keep their numbers in a row.
    let mut next = 0;
    for (index, slot) in all.iter_mut().enumerate() {
        if !bad.contains(&index) {
            *slot = record(&format!("{stream}.s{}", next % 3), Some("k"), next);
            next += 1;
        }
    }
    let outcomes = publish(&*sink, &all).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        match bad.contains(&index) {
            true => assert_eq!(rejection(outcome), RejectReason::TooLarge),
            false => drop(sequence(outcome)),
        }
    }
    verify(url, &stream, &counts([("before", 10), ("k", 897)]), &["main"]).await;
}

/// The server rejects the whole batch and does not say because of which record.
#[tokio::test]
async fn a_record_that_is_not_named_is_found() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    let mut all = records(&stream, "k", 0..997);
    for place in [0, 500, 501, 996] {
        let mut bad = record(&format!("{stream}.x"), Some("bad"), place);
        let name = HeaderName::Literal("viaduct-reason".into());
        // More than the 64 KiB of headers that a stream takes.
        bad.headers.push(Header { name, value: "x".repeat(70_000).into() });
        all.insert(place, bad);
    }
    let outcomes = publish(&*sink, &all).await;
    let rejected: Vec<usize> =
        (0..all.len()).filter(|index| matches!(outcomes[*index], Outcome::Rejected(_))).collect();
    assert_eq!(rejected, [0, 500, 501, 996]);
    assert_eq!(rejection(&outcomes[500]), RejectReason::TooLarge);
    verify(url, &stream, &counts([("k", 997)]), &["main"]).await;
}

#[tokio::test]
async fn what_can_never_go_is_rejected_before_it_is_sent() {
    let server = NatsServer::start_with(NatsOptions { config: "max_payload: 20000\n".into() });
    let sink = connect(process(server.url(), "VIA", &["main"])).await;
    let mut all = records("VIA", "k", 0..4);
    let mut large = record("VIA.x", Some("bad"), 0);
    large.value = vec![b'1'; 19_900].into();
    let theirs = record(&format!("{CHECKPOINTS}main"), Some("bad"), 1);
    for (place, bad) in [large, theirs, record("a..b", Some("bad"), 2)].into_iter().enumerate() {
        all.insert(place + 1, bad);
    }
    let outcomes = publish(&*sink, &all).await;
    assert_eq!(rejection(&outcomes[1]), RejectReason::TooLarge);
    assert_eq!(rejection(&outcomes[2]), RejectReason::InvalidDestination);
    assert_eq!(rejection(&outcomes[3]), RejectReason::InvalidDestination);
    assert_eq!(server.connections().unwrap(), 1, "the connection was not lost over it");
    verify(server.url(), "VIA", &counts([("k", 4)]), &["main"]).await;
}

#[tokio::test]
async fn a_subject_without_a_stream_holds_back_its_keys_alone() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let sink = connect(process(url, &stream, &["main"])).await;
    let mut all = of_ten_keys(&stream, 100);
    all[13].destination = format!("{stream}-elsewhere.x").into();
    let outcomes = publish(&*sink, &all).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        match index {
            13 => assert_eq!(refusal(outcome), Some(Refusal::Missing)),
            _ if index > 13 && index % 10 == 3 => assert_eq!(refusal(outcome), None, "behind it"),
            _ => drop(sequence(outcome)),
        }
    }
    let context = context(url).await;
    let mut config = context.get_stream(&stream).await.unwrap().cached_info().config.clone();
    config.subjects.push(format!("{stream}-elsewhere.>"));
    context.update_stream(config).await.unwrap();
    settle(&*sink, "main", &all).await;
    let expected = (0..10).map(|key| (format!("k{key}"), 10)).collect();
    verify(url, &stream, &expected, &["main"]).await;
}

#[tokio::test]
async fn a_subject_that_is_not_permitted_is_refused_and_the_rest_goes() {
    let publish_to =
        format!(r#"publish: ["VIA.open.>", "{CHECKPOINTS}>", "$JS.API.>"], subscribe: ["_INBOX.>"]"#);
    let server = NatsServer::start_with(NatsOptions {
        config: format!(
            "accounts {{ APP {{ jetstream: enabled, users: [ {{ user: admin, password: admin }},
               {{ user: via, password: via, permissions: {{ {publish_to} }} }} ] }} }}\n"
        ),
    });
    let mut settings = process(server.url(), "VIA", &["main"]);
    settings.auth = NatsAuth::UserPassword { user: "via".into(), password: Secret::fixed("via") };
    let sink = connect(settings).await;
    let mut all = records("VIA.open", "k", 0..400);
    for (n, place) in [0, 200, 399].into_iter().enumerate() {
        all.insert(place, record("VIA.closed.x", Some("closed"), n));
    }
    let outcomes = publish(&*sink, &all).await;
    assert_eq!(refusal(&outcomes[0]), Some(Refusal::NotPermitted));
    assert_eq!(refusal(&outcomes[200]), None, "behind the first of its key");
    let confirmed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Confirmed(_))).count();
    assert_eq!(confirmed, 400);
    assert!(sink.health().borrow().up, "the connection is fine");
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let admin = admin.connect(server.url()).await.unwrap();
    let stored = read_stream_with(&admin, "VIA").await.unwrap();
    verify_messages(stored, &counts([("k", 400)]), &["main"]);
}

/// Without the checkpoint's subject, or the right to read it, nothing is published, and it is told what is missing.
#[tokio::test]
async fn what_checkpoints_need_is_told_where_it_is_not_permitted() {
    for (rights, says) in [
        (r#""VIA.>", "$JS.API.>""#, "publish to _viaduct.checkpoint"),
        (r#""VIA.>", "_viaduct.>", "$JS.API.STREAM.INFO.*""#, "$JS.API.STREAM.MSG.GET.VIA"),
    ] {
        let server = NatsServer::start_with(NatsOptions {
            config: format!(
                "accounts {{ APP {{ jetstream: enabled, users: [ {{ user: admin, password: admin }},
                   {{ user: via, password: via, permissions: {{ publish: [{rights}], subscribe: [\"_INBOX.>\"] }} }} ] }} }}\n"
            ),
        });
        let user = |name: &str| NatsAuth::UserPassword { user: name.into(), password: Secret::fixed(name) };
        let mut settings = process(server.url(), "VIA", &["main"]);
        settings.auth = user("admin");
        health(&*connect(settings.clone()).await, true).await;
        settings.auth = user("via");
        settings.create_stream = false;
        let sink = connect(settings).await;
        for outcome in publish(&*sink, &records("VIA", "k", 0..10)).await {
            let Outcome::Retry(retry) = outcome else { panic!("not a retry: {outcome:?}") };
            assert_eq!(retry.refusal, Some(Refusal::NotPermitted));
            assert!(retry.detail.contains(says), "{}", retry.detail);
        }
    }
}

#[tokio::test]
async fn a_full_stream_refuses_the_batch_whole_and_recovers() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let config = Config {
        name: stream.clone(),
        subjects: vec![format!("{stream}.>")],
        max_messages: 20,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    make_stream(url, config).await;
    let sink = connect(process(url, &stream, &["main"])).await;
    settle(&*sink, "main", &records(&stream, "k", 0..10)).await;
    let more = records(&stream, "k", 10..40);
    let outcomes = publish(&*sink, &more).await;
    assert!(outcomes.iter().all(|outcome| refusal(outcome) == Some(Refusal::Full)), "{outcomes:?}");
    down_because(&*sink, "maximum messages exceeded").await;
    verify(url, &stream, &counts([("k", 10)]), &["main"]).await;
    let context = context(url).await;
    let mut config = context.get_stream(&stream).await.unwrap().cached_info().config.clone();
    config.max_messages = 100;
    context.update_stream(config).await.unwrap();
    settle(&*sink, "main", &more).await;
    assert_eq!(health(&*sink, true).await, "");
    verify(url, &stream, &counts([("k", 40)]), &["main"]).await;
}

#[tokio::test]
async fn a_full_subject_holds_back_its_keys_alone() {
    let server = NatsServer::start_own();
    let (url, stream) = (server.url(), stream_name());
    let config = Config {
        name: stream.clone(),
        subjects: vec![format!("{stream}.>")],
        max_messages_per_subject: 2,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        ..Config::default()
    };
    make_stream(url, config).await;
    let sink = connect(process(url, &stream, &["main"])).await;
    let mut all: Vec<Record> = (0..200).map(|n| record(&format!("{stream}.s{n}"), Some("k"), n)).collect();
    for (n, place) in [10, 60, 61, 150].into_iter().enumerate() {
        all.insert(place, record(&format!("{stream}.small"), Some("small"), n));
    }
    let outcomes = publish(&*sink, &all).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        match index {
            61 => assert_eq!(refusal(outcome), Some(Refusal::Full)),
            150 => assert_eq!(refusal(outcome), None),
            _ => drop(sequence(outcome)),
        }
    }
    verify(url, &stream, &counts([("k", 200), ("small", 2)]), &["main"]).await;
}
