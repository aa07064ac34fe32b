//! The state directory: one process at a time, and never trusted blindly.

use std::time::Duration;

use viaduct_simulator::{Rate, Settings};

use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::Files;
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

async fn flowing() -> (Vendor, tempfile::TempDir, Site) {
    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(200.0), total: None, ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    (vendor, folder, site)
}

/// Two bridges on one state directory: the second one refuses to start, the first one does not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused() {
    let (vendor, _folder, site) = flowing().await;
    let mut first = site.start();
    first.ready().await;
    let second = viaduct()
        .args(["run", "-c"])
        .arg(site.config())
        .args(["--set", "admin.listen=off"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(75));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("another process uses the state directory"), "{message}");
    assert!(message.contains("hint: stop the other viaduct"), "{message}");
    let before = vendor.report().acknowledged;
    until("the first one goes on", Duration::from_secs(30), async || {
        vendor.report().acknowledged > before + 50
    })
    .await;
    assert_eq!(first.terminate().await.0.code(), Some(0), "{}", site.log());
}

/// A saved session that cannot be read is set aside; one that is unknown to the vendor is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_or_stale_session_is_not_trusted() {
    let (vendor, _folder, site) = flowing().await;
    let mut bridge = site.start();
    bridge.ready().await;
    bridge.terminate().await;
    let saved = site.path("state/sessions/main.json");
    let text = std::fs::read_to_string(&saved).unwrap();
    let id = vendor.report().sessions[0].session_id.clone();
    assert!(text.contains(&id));

    std::fs::write(&saved, &text.as_bytes()[..text.len() / 2]).unwrap();
    let mut bridge = site.start();
    bridge.ready().await;
    bridge.terminate().await;
    assert_eq!(vendor.report().sessions_created, 2);
    let aside = std::fs::read_dir(site.path("state/sessions")).unwrap();
    let names: Vec<String> =
        aside.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.contains("corrupt")), "{names:?}");

    vendor.0.control().expire_all_sessions();
    let mut bridge = site.start();
    bridge.ready().await;
    bridge.terminate().await;
    assert_eq!(vendor.report().sessions_created, 3);
    assert!(vendor.report().misbehaviour.is_empty(), "{:?}", vendor.report().misbehaviour);
}

/// A state directory that cannot be made is a clear error, with the directory's name.
#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_state_directory() {
    let (_vendor, folder, site) = flowing().await;
    let file = folder.path().join("occupied");
    std::fs::write(&file, "").unwrap();
    let run = viaduct()
        .args(["run", "-c"])
        .arg(site.config())
        .arg("--set")
        .arg(format!("state.dir={}", file.join("state").display()))
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(73));
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(message.contains("occupied") && message.contains("hint: make it writable"), "{message}");
}
