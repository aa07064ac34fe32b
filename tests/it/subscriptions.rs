//! Declared subscriptions, and the commands that show and apply them.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use viaduct_simulator::{CatalogType, Settings};

use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::Files;
use crate::kit::page::Page;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

const MINE: &str = "[[source.main.subscription]]\ndescription = \"mine\"\n\
                    catalog_type = \"changeNotification\"\nevents = [\"all\"]\n";

fn subscriptions(verb: &str, config: &Path, more: &[&str]) -> Output {
    let dir = config.parent().expect("a folder");
    let output = viaduct()
        .args(["subscriptions", verb, "-c"])
        .arg(config)
        .args(more)
        .current_dir(dir)
        .output()
        .expect("viaduct starts");
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("hunter2"), "a secret is shown");
    output
}

fn json(verb: &str, config: &Path) -> Value {
    let output = subscriptions(verb, config, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["sources"][0].take()
}

fn actions(report: &Value) -> Vec<(String, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().expect("text").to_owned();
    let lines = report["subscriptions"].as_array().expect("a list");
    lines.iter().map(|line| (text(line, "action"), text(line, "description"))).collect()
}

/// The page is followed from top to bottom, by a bridge whose vendor then takes the catalog type away.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_subscriptions_is_right() {
    let vendor = Vendor::start(Settings { total: Some(50), ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let strict = Settings { catalog_types: vec![CatalogType::ChangeNotification], ..settings() };
    let strict = Vendor::start(strict).await;
    let page = Page::read("subscriptions.md")
        .with("http://127.0.0.1:8900", &vendor.0.url())
        .with("./events", &folder.path().display().to_string());
    let site = Site::new(page.of("toml")[0].text());
    let dir = site.path("");
    let configuration = std::fs::read_to_string(site.config()).unwrap();
    let elsewhere = configuration.replace(&vendor.0.url(), &strict.0.url());

    let consoles = page.of("console");
    let [before, during @ .., without, refused] = consoles.as_slice() else { panic!("blocks are missing") };
    tokio::task::block_in_place(|| before.run_in(&dir));
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    for block in during {
        tokio::task::block_in_place(|| block.run_in(&dir));
    }
    // The bridge was not disturbed: the same session, more events, and nothing that a client must not do.
    vendor.0.control().emit(50);
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    let (status, _) = bridge.terminate().await;
    assert_eq!(status.code(), Some(0));
    let report = vendor.report();
    assert_eq!((report.sessions_created, report.acknowledged), (1, 100));
    assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);

    tokio::task::block_in_place(|| without.run_in(&dir));
    std::fs::write(site.config(), elsewhere).unwrap();
    tokio::task::block_in_place(|| refused.run_in(&dir));
    let report = strict.report();
    assert_eq!((report.sessions_created, report.sessions_deleted), (1, 1), "the trial left a session behind");
    assert!(!report.requests.contains_key("events"), "a trial fetches events: {:?}", report.requests);
}

/// A session that the vendor dropped: said so, its id used once and never again.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_recognised_and_forgotten() {
    let vendor = Vendor::start(Settings { total: Some(10), ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let site =
        Site::new(&[vendor.source("").as_str(), MINE, &Files(folder.path().to_owned()).sink()].concat());
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    bridge.terminate().await;
    vendor.0.control().expire_all_sessions();
    tokio::task::block_in_place(|| {
        assert_eq!(json("plan", &site.config())["session"]["state"], "expired");
        let plan = json("plan", &site.config());
        assert_eq!(plan["session"]["state"], "none");
        assert_eq!(actions(&plan), [("create".to_owned(), "mine".to_owned())]);
    });
    assert!(vendor.report().misbehaviour.is_empty(), "{:?}", vendor.report().misbehaviour_cases);
}

/// What is not declared: shown, left alone, and deleted by a source that prunes, before it polls.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_subscription_goes_only_where_the_source_prunes() {
    let vendor = Vendor::start(Settings { total: Some(10), ..settings() }).await;
    let foreign = MINE.replace("mine", "somebody else's");
    let folder = tempfile::tempdir().unwrap();
    let sink = Files(folder.path().to_owned()).sink();
    let site = Site::new(&[vendor.source("").as_str(), MINE, &foreign, &sink].concat());
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(30)).await;
    bridge.terminate().await;

    let with_both = std::fs::read_to_string(site.config()).unwrap();
    let only_mine = with_both.replace(&foreign, "");
    std::fs::write(site.config(), &only_mine).unwrap();
    let pair = |action: &str, description: &str| (action.to_owned(), description.to_owned());
    tokio::task::block_in_place(|| {
        let plan = json("plan", &site.config());
        assert_eq!(actions(&plan), [pair("keep", "mine"), pair("foreign", "somebody else's")]);
        assert_eq!(subscriptions("apply", &site.config(), &[]).status.code(), Some(0));
        assert_eq!(actions(&json("list", &site.config())).len(), 2);
    });
    std::fs::write(site.config(), only_mine.replacen("org_id", "prune = true\norg_id", 1)).unwrap();
    tokio::task::block_in_place(|| {
        let plan = json("plan", &site.config());
        assert_eq!(actions(&plan), [pair("delete", "somebody else's"), pair("keep", "mine")]);
    });
    let mut bridge = site.start();
    until("the foreign one is gone", Duration::from_secs(30), async || {
        let session = vendor.report().sessions.remove(0);
        session.subscriptions.len() == 1
    })
    .await;
    bridge.terminate().await;
    assert_eq!(vendor.report().sessions_created, 1);
    tokio::task::block_in_place(|| {
        assert_eq!(actions(&json("plan", &site.config())), [pair("keep", "mine")])
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_have_their_exit_codes() {
    let vendor = Vendor::start(settings()).await;
    let folder = tempfile::tempdir().unwrap();
    let site =
        Site::new(&[vendor.source("").as_str(), MINE, &Files(folder.path().to_owned()).sink()].concat());
    let run = |verb: &str, more: &[&str]| {
        tokio::task::block_in_place(|| {
            let output = subscriptions(verb, &site.config(), more);
            (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
        })
    };
    let (code, said) = run("list", &["--source", "other"]);
    assert_eq!(code, Some(64));
    assert!(said.contains("there is no source other") && said.contains("the sources are main"), "{said}");
    let (code, said) = run("apply", &["--trial", "--set", "source.main.auth.client_secret="]);
    assert_eq!(code, Some(78), "{said}");
    let (code, said) = run("apply", &["--trial", "--set", "source.main.api_url=http://127.0.0.1:1"]);
    assert_eq!(code, Some(69), "{said}");
    assert!(said.contains("source main: session_create: failed"), "{said}");
    vendor.0.control().set_faults("token:401:100%".parse().unwrap());
    let (code, said) = run("apply", &["--trial"]);
    assert_eq!(code, Some(77), "{said}");
    assert!(said.contains("the vendor refuses the credentials"), "{said}");
}
