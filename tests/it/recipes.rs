//! docs/recipes.md: the rights that it names are enough.

use std::time::Duration;

use viaduct_simulator::Settings;
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::native::free_port;
use viaduct_testkit::nats::{NatsOptions, NatsServer};

use crate::kit::bridge::Site;
use crate::kit::destinations::unique;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

const EVENTS: u64 = 500;

/// Everything is published and acknowledged, and nothing of it is a dead letter.
async fn everything_arrives(destination: &str) {
    let vendor = Vendor::start(Settings { total: Some(EVENTS), ..settings() }).await;
    let site = Site::new(&[vendor.source("").as_str(), destination].concat());
    let mut bridge = site.start();
    bridge.ready().await;
    // Shorter than `refused_after`: what is not permitted would still wait.
    until("everything is acknowledged", Duration::from_secs(45), async || {
        vendor.report().acknowledged == EVENTS
    })
    .await;
    let status = bridge.status().await;
    assert_eq!(status["sources"]["main"]["published"], EVENTS, "{status}");
    assert_eq!(status["sources"]["main"]["dead_lettered"], serde_json::json!({}), "{status}");
    assert_eq!(bridge.terminate().await.0.code(), Some(0), "{}", site.log());
}

/// A broker with a listener for SASL PLAIN, where alice may do what the rules say and nothing else.
fn guarded() -> (KafkaBroker, String) {
    let bootstrap = format!("127.0.0.1:{}", free_port().expect("a free port"));
    let listeners = format!("{{listeners}},GUARDED://{bootstrap}");
    let login =
        "org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"hunter2-alice\";";
    let broker = KafkaBroker::start_with(&[
        ("listeners", &listeners),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,GUARDED:SASL_PLAINTEXT"),
        ("listener.name.guarded.sasl.enabled.mechanisms", "PLAIN"),
        ("listener.name.guarded.plain.sasl.jaas.config", login),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("super.users", "User:ANONYMOUS"),
    ]);
    (broker, bootstrap)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_in_kafka() {
    let (broker, bootstrap) = tokio::task::block_in_place(guarded);
    let prefix = unique("rights");
    let allow = |operations: &[&str], resource: &[&str]| {
        let mut words =
            vec!["--bootstrap-server", broker.bootstrap(), "--add", "--allow-principal", "User:alice"];
        words.extend(operations.iter().flat_map(|operation| ["--operation", *operation]));
        words.extend(resource);
        tokio::task::block_in_place(|| broker.tool("org.apache.kafka.tools.AclCommand", &words))
            .expect("rules can be added");
    };
    let prefixed = ["--resource-pattern-type", "prefixed"];
    allow(&["Write", "Describe", "Create"], &[["--topic", &prefix], prefixed].concat());
    allow(&["Write", "Describe"], &[["--transactional-id", "viaduct.lake."], prefixed].concat());
    let own = ["Read", "Write", "Describe", "Create", "DescribeConfigs"];
    allow(&own, &["--topic", "_viaduct.checkpoints"]);
    everything_arrives(&format!(
        "[sink.lake]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\ndelivery = \"exactly_once\"\ncreate_topics = true\n\
         [sink.lake.properties]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
         \"sasl.username\" = \"alice\"\n\"sasl.password\" = \"hunter2-alice\"\n\
         [[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nto = \"{prefix}.{{category}}\"\n"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_in_nats() {
    let publish = [
        "via.>",
        "_viaduct.checkpoint.>",
        "$JS.API.STREAM.INFO.VIA",
        "$JS.API.STREAM.CREATE.VIA",
        "$JS.API.STREAM.UPDATE.VIA",
        "$JS.API.STREAM.MSG.GET.VIA",
    ];
    let config = format!(
        "authorization {{ users: [ {{ user: alice, password: \"hunter2-alice\", \
         permissions: {{ publish: {publish:?}, subscribe: [\"_INBOX.>\"] }} }} ] }}\n"
    );
    let server = NatsServer::start_with(NatsOptions { config });
    everything_arrives(&format!(
        "[sink.bus]\ntype = \"nats\"\nurl = \"{}\"\nuser = \"alice\"\npassword = \"hunter2-alice\"\n\
         delivery = \"exactly_once\"\nstream = \"VIA\"\ncreate_stream = true\n",
        server.url()
    ))
    .await;
}
