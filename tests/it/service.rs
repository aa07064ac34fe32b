//! What the bridge tells a service manager, seen by a socket that plays its part (sd_notify(3)).

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use viaduct_simulator::{Rate, Settings};

use crate::kit::bridge::{Site, viaduct};
use crate::kit::destinations::Files;
use crate::kit::vendor::{Vendor, settings};

/// The assignments of the next datagram for which `wanted` holds; those before it are let go.
fn next(
    socket: &UnixDatagram,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
) -> BTreeMap<String, String> {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).expect("the bridge tells something in time");
        let text = std::str::from_utf8(&buffer[..length]).expect("text");
        let told: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if wanted(&told) {
            return told;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told() {
    let vendor = Vendor::start(Settings { rate: Rate::PerSecond(50.0), total: None, ..settings() }).await;
    let folder = tempfile::tempdir().unwrap();
    let site = Site::new(&[vendor.source(""), Files(folder.path().to_owned()).sink()].concat());
    let path = site.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut bridge = viaduct()
        .args(["run", "-c"])
        .arg(site.config())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "600000")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = bridge.id().to_string();
    let exit = tokio::task::spawn_blocking(move || {
        let signal = |name: &str| {
            assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
        };
        next(&socket, |told| told.get("READY").is_some_and(|value| value == "1"));
        let alive = next(&socket, |told| told.contains_key("WATCHDOG"));
        assert!(!alive["STATUS"].is_empty());
        next(&socket, |told| {
            told.get("STATUS").is_some_and(|sentence| {
                sentence.starts_with("Everything received") || sentence.starts_with("Events flow")
            })
        });
        signal("-HUP");
        let reloading = next(&socket, |told| told.contains_key("RELOADING"));
        assert!(reloading["MONOTONIC_USEC"].parse::<u64>().is_ok_and(|now| now > 0), "{reloading:?}");
        next(&socket, |told| told.contains_key("READY"));
        signal("-TERM");
        next(&socket, |told| told.contains_key("STOPPING"));
        bridge.wait().unwrap()
    })
    .await
    .unwrap();
    assert_eq!(exit.code(), Some(0));
}
