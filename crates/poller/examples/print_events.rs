//! Prints the events of a streaming session, and acknowledges each line once it has been written.
//!
//! Against a simulator that it starts itself (ten events per second, Ctrl-C ends it, `--events N` ends it by itself):
//!
//! ```sh
//! cargo run -p viaduct-poller --example print_events -- --events 20
//! ```

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use viaduct_poller::{
    ApiVersion, AuthSettings, ClientAuth, Crowd, DurabilityProof, Finished, MemoryStore, NoObserver,
    OnShutdown, Parts, Poller, RealmIn, RetrySettings, Secret, SessionSettings, SourceSettings, TlsSettings,
};
use viaduct_simulator::{Rate, Settings, Simulator};

/// Exists only after the line was flushed: good enough for a program that prints.
struct Written(());

impl DurabilityProof for Written {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let events: Option<usize> = match (arguments.next().as_deref(), arguments.next()) {
        (Some("--events"), Some(count)) => Some(count.parse()?),
        (None, _) => None,
        _ => return Err("usage: print_events [--events N]".into()),
    };
    let vendor = Simulator::start(Settings { rate: Rate::PerSecond(10.0), ..Settings::default() }).await?;

    let settings = SourceSettings {
        name: "example".to_owned(),
        api_url: vendor.url().parse()?,
        org_id: "acme".to_owned(),
        api: ApiVersion::V3,
        max_events: 200,
        max_in_flight: 2000,
        auth: AuthSettings {
            token_url: vendor.token_url().parse()?,
            client_id: Secret::literal("id"),
            client_secret: Secret::literal("secret"),
            api_key: Secret::literal("key"),
            scope: "streamingapi".to_owned(),
            realm: None,
            realm_in: RealmIn::Form,
            client_auth: ClientAuth::Basic,
        },
        tls: TlsSettings::default(),
        session: SessionSettings {
            inactivity_delay: Duration::from_secs(120),
            resume: false,
            on_shutdown: OnShutdown::Delete,
            poll_timeout: Duration::from_secs(15),
            properties: Default::default(),
            end_events: Vec::new(),
        },
        subscriptions: Vec::new(),
        prune: false,
        retry: RetrySettings { initial: Duration::from_millis(200), max: Duration::from_secs(30) },
    };
    let parts = Parts {
        store: Box::new(MemoryStore::default()),
        observer: Arc::new(NoObserver),
        spool: None,
        crowd: Crowd::default(),
    };
    let (poller, mut deliveries) = Poller::new(settings, parts)?;

    let stop = CancellationToken::new();
    let running = tokio::spawn(poller.run(stop.clone()));
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let mut printed = 0;
    while let Some(response) = deliveries.next().await {
        for delivery in response.items {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", delivery.entry.raw())?;
            out.flush()?;
            delivery.token.acknowledge(Written(()));
            printed += 1;
        }
        if events.is_some_and(|events| printed >= events) {
            stop.cancel();
        }
    }
    let Finished::Stopped { unacknowledged } = running.await?? else { return Ok(()) };
    let report = vendor.stop().await;
    eprintln!("{printed} printed, {} acknowledged, {unacknowledged} not", report.acknowledged);
    Ok(())
}
