//! SIGHUP: what changes in a running bridge, what is refused, and what waits for a restart.

use std::collections::HashSet;
use std::time::Duration;

use viaduct_simulator::{Rate, Settings};

use crate::kit::bridge::{Bridge, Site};
use crate::kit::destinations::{Files, lines};
use crate::kit::invariants::{no_duplicates, nothing_lost, well_behaved};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

/// Changes the configuration and sends the signal.
fn reload(site: &Site, bridge: &Bridge, from: &str, to: &str) {
    let text = std::fs::read_to_string(site.config()).unwrap();
    assert!(text.contains(from), "{from:?} is not in\n{text}");
    std::fs::write(site.config(), text.replace(from, to)).unwrap();
    bridge.signal("HUP");
}

async fn logged(site: &Site, text: &str) {
    until(&format!("the log says {text:?}"), Duration::from_secs(20), async || site.log().contains(text))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_routes_and_nothing_is_lost_by_it() {
    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(500.0), total: None, ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let files = Files(folder.path().to_owned());
    let site = Site::new(&[vendor.source(""), files.sink()].concat());
    let mut bridge = site.start();
    until("events flow", Duration::from_secs(30), async || vendor.report().acknowledged > 200).await;

    reload(&site, &bridge, "to = \"{category}\"", "to = \"new-{category}\"");
    logged(&site, "configuration reloaded changed=\"route\"").await;
    until("records go to the new place", Duration::from_secs(20), async || {
        lines(folder.path()).iter().any(|(file, _)| file.starts_with("new-engagementCenter"))
    })
    .await;

    // With mistakes: nothing changes.
    reload(&site, &bridge, "to = \"new-{category}\"", "to = \"{nonsense\"\nformt = \"raw\"");
    logged(&site, "the new configuration is refused, the bridge runs on with the old one").await;
    assert!(site.log().contains("formt"), "the mistakes are named");
    let before = vendor.report().acknowledged;
    until("events still flow", Duration::from_secs(20), async || vendor.report().acknowledged > before + 200)
        .await;

    // What needs a restart is named, each time.
    reload(&site, &bridge, "to = \"{nonsense\"\nformt = \"raw\"", "to = \"{category}\"");
    let reloads = || site.log().matches("configuration reloaded changed=\"route\"").count();
    until("it is mended", Duration::from_secs(20), async || reloads() == 2).await;
    let reload_twice = "max_in_flight = 1000\norg_id = \"acme\"";
    reload(&site, &bridge, "org_id = \"acme\"", reload_twice);
    logged(
        &site,
        "these changes need a restart, and do nothing until then keys=\"source.main.max_in_flight\"",
    )
    .await;
    let count = || site.log().matches("keys=\"source.main.max_in_flight\"").count();
    bridge.signal("HUP");
    until("it is told again", Duration::from_secs(20), async || count() == 2).await;

    // The level of the log, both ways.
    reload(&site, &bridge, "level = \"info,", "level = \"error,");
    logged(&site, "configuration reloaded changed=\"log.level\"").await;

    vendor.0.control().pause();
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
    let journal = vendor.journal();
    well_behaved(&journal.report).none();
    assert_eq!(journal.report.sessions_created, 1, "one session through all reloads");
    nothing_lost("files", &journal, &files.read(), &HashSet::new()).none();
    no_duplicates("files", &files.read()).none();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_log_level() {
    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(10.0), total: None, ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let text = std::fs::read_to_string(site.config()).unwrap();
    let level = text.lines().find(|line| line.starts_with("level = ")).unwrap().to_owned();
    std::fs::write(site.config(), text.replace(&level, "level = \"info\"")).unwrap();
    let mut bridge = site.start();
    bridge.ready().await;
    let reloads = || site.log().matches("configuration reloaded").count();
    reload(&site, &bridge, "level = \"info\"", "level = \"off\"");
    // Nothing is logged any more, this reload included; so the next one is what shows.
    reload(&site, &bridge, "level = \"off\"", "level = \"debug\"");
    logged(&site, "configuration reloaded").await;
    vendor.0.control().revoke_tokens();
    logged(&site, "DEBUG").await;
    assert!(reloads() <= 2, "{}", site.log());
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_credentials() {
    let vendor = Vendor::start(Settings {
        client_secret: Some("hunter2-secret".to_owned()),
        rate: Rate::PerSecond(100.0),
        total: None,
        ..settings()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let mut bridge = site.start();
    bridge.ready().await;
    reload(&site, &bridge, "\"hunter2-secret\"", "\"hunter2-mistyped\"");
    logged(&site, "configuration reloaded changed=\"source.main.auth.client_secret\"").await;
    vendor.0.control().revoke_tokens();
    bridge.not_ready("credentials").await;
    reload(&site, &bridge, "\"hunter2-mistyped\"", "\"hunter2-secret\"");
    bridge.ready().await;
    assert_eq!(vendor.report().sessions_created, 1);
    let (exit, _) = bridge.terminate().await;
    assert_eq!(exit.code(), Some(0), "{}", site.log());
}
