//! State directories that cannot be written: a clear error at the start, or in `/readyz` where it comes later. (Corrupt
//! files, and two processes on one directory: `state.rs`.)

use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;
use viaduct_simulator::{Rate, Settings};

use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::{Files, lines};
use crate::kit::vendor::{Vendor, settings};
use crate::kit::wait::until;

async fn quiet() -> (Vendor, tempfile::TempDir, String) {
    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(0.000_1), total: None, ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let only_messaging = Files(folder.path().to_owned()).sink().replace("[\"*\"]", "[\"messaging.*\"]");
    let configuration = [vendor.source(""), only_messaging].concat();
    (vendor, folder, configuration)
}

/// Not even root writes there.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_state_directory_is_told_at_the_start() {
    let (_vendor, _folder, configuration) = quiet().await;
    let site = Site::new(&configuration);
    let run = viaduct()
        .args(["run", "-c"])
        .arg(site.config())
        .args(["--set", "state.dir=/proc/viaduct-state"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(73));
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(
        message.contains("/proc/viaduct-state") && message.contains("hint: make it writable"),
        "{message}"
    );
}

/// The disk fills up while the bridge runs: the dead letter is not acknowledged, `/readyz` says why, and when there is room
/// again all is well by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_dead_letters_back() {
    let (vendor, _folder, configuration) = quiet().await;
    let site = Site::new(&configuration);
    let mut bridge = site.start();
    bridge.ready().await;
    let file = site.path("state/dead-letters/dead-letters.jsonl");
    symlink("/dev/full", &file).unwrap();
    let entry = json!({"kind": "k", "eventId": "1-0", "eventType": "outreach.status", "payload": "{}",
                       "publishedTime": "2018-01-30T14:04:20.539Z"});
    vendor.0.control().emit_raw(&entry.to_string()).unwrap();
    let reason = bridge.not_ready("No space left on device").await;
    assert!(reason.contains("dead"), "{reason}");
    assert_eq!(vendor.report().acknowledged, 0);
    std::fs::remove_file(&file).unwrap();
    until("the dead letter is acknowledged", Duration::from_secs(30), async || {
        vendor.report().acknowledged == 1
    })
    .await;
    bridge.ready().await;
    assert_eq!(lines(&site.path("state/dead-letters")).len(), 1);
    assert_eq!(bridge.terminate().await.0.code(), Some(0), "{}", site.log());
}
