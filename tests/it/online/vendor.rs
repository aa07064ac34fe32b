//! The vendor's side: addresses, certificates, credentials, the session for trial, subscriptions.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use viaduct_simulator::{CatalogType, Settings};
use viaduct_testkit::nats::tls::TlsFiles;

use super::{check, run_with, shown};
use crate::kit::bridge::Site;
use crate::kit::destinations::Files;
use crate::kit::vendor::{Vendor, settings};

const SUBSCRIPTIONS: &str = "[[source.main.subscription]]\ndescription = \"mine\"\n\
     catalog_type = \"changeNotification\"\nevents = [\"all\"]\n\
     [[source.main.subscription]]\ndescription = \"screens\"\n\
     catalog_type = \"engagementCenterThirdParty\"\nevents = [\"ScreenPop\"]\n";

fn site(source: &str) -> Site {
    let folder = tempfile::tempdir().unwrap().keep();
    Site::new(&[source, SUBSCRIPTIONS, &Files(folder).sink()].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_right() {
    for api in ["v3", "v2"] {
        let vendor = Vendor::start(settings()).await;
        let site = site(&vendor.source(&format!("api = \"{api}\"")));
        let found = check(&site, &["--strict"]);
        assert_eq!(found.code, 0, "{:#}", found.document);
        for (name, subject) in [
            ("dns", "api_url 127.0.0.1"),
            ("connection", "api_url 127.0.0.1"),
            ("token", ""),
            ("api key", ""),
            ("session", ""),
            ("acknowledgement", ""),
            ("subscription", "\"mine\""),
            ("subscription", "\"screens\""),
            ("session deleted", ""),
        ] {
            assert_eq!(found.of("source main", name, subject).0, "ok", "{name}");
        }
        assert_eq!(found.verdict(), ("holds", "at least once to archive: holds"));
        let report = vendor.report();
        assert_eq!((report.sessions_created, report.sessions_deleted), (1, 1), "a session is left");
        assert!(!report.requests.contains_key("events"), "events were fetched: {:?}", report.requests);
        assert!(report.misbehaviour.is_empty(), "{:?}", report.misbehaviour_cases);
        // Nothing was created either: what the bridge would make is only tried.
        assert!(!site.path("state").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_what_they_may_do() {
    let strict = Settings {
        client_secret: Some("hunter2-secret".to_owned()),
        api_key: Some("hunter2-key".to_owned()),
        granted_inactivity: Some(Duration::from_secs(60)),
        catalog_types: vec![CatalogType::ChangeNotification],
        ..settings()
    };
    let vendor = Vendor::start(strict).await;
    let site = site(&vendor.source(""));
    let found = check(&site, &["--set", "source.main.auth.client_secret=hunter2-wrong"]);
    assert_eq!(found.code, 77);
    let (status, detail) = found.of("source main", "token", "");
    assert_eq!(status, "fail");
    assert!(detail.contains("HTTP 401"), "{detail}");

    let found = check(&site, &["--set", "source.main.auth.api_key=hunter2-wrong"]);
    assert_eq!((found.code, found.of("source main", "api key", "").0), (77, "fail"), "{:#}", found.document);
    assert_eq!(found.of("source main", "token", "").0, "ok");

    let found = check(&site, &[]);
    assert_eq!(found.code, 78, "{}", found.said);
    assert_eq!(found.of("source main", "subscription", "\"mine\"").0, "ok");
    let (status, detail) = found.of("source main", "subscription", "\"screens\"");
    assert_eq!(status, "fail");
    assert!(detail.contains("engagementCenterThirdParty"), "{detail}");
    let (status, detail) = found.of("source main", "session", "");
    assert_eq!(status, "warn");
    assert!(detail.contains("granted an inactivity delay of 60s, asked for 2m"), "{detail}");
    let report = vendor.report();
    assert_eq!(report.sessions_created, report.sessions_deleted, "a session is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_that_cannot_be_reached() {
    let vendor = Vendor::start(settings()).await;
    let site = site(&vendor.source(""));
    let found = check(&site, &["--set", "source.main.api_url=http://no-such-host.invalid:80"]);
    assert_eq!((found.code, found.of("source main", "dns", "api_url no-such-host.invalid").0), (69, "fail"));
    assert_eq!(found.of("source main", "token", "").0, "ok", "the token is tried all the same");
    let (code, text) = shown(&site, &["--set", "source.main.api_url=http://127.0.0.1:1"]);
    assert_eq!(code, 69);
    assert!(
        text.contains(
            "the connection is refused: nothing listens there\n              hint: check host and port"
        ),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "colours off a terminal");
    vendor.0.control().set_faults("session_create:503:100%".parse().unwrap());
    let found = check(&site, &[]);
    assert_eq!((found.code, found.of("source main", "session", "").0), (69, "fail"));
}

/// Takes TLS connections with this certificate and says nothing.
async fn greeter((certificate, key): &(PathBuf, PathBuf)) -> u16 {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not like the certificate goes away.
            drop(acceptor.accept(stream).await);
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let tls = TlsFiles::write(folder.path()).unwrap();
    let vendor = Vendor::start(settings()).await;
    let site = site(&vendor.source(""));
    let trusted = tls.authority.display().to_string();
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let stranger = TlsFiles::write(&other).unwrap().authority;
    for (certificate, trusts, status, says) in [
        (&tls.server, &trusted, "ok", "trusted"),
        (&tls.expired, &trusted, "fail", "has expired"),
        (&tls.elsewhere, &trusted, "fail", "for another name"),
        (&tls.server, &stranger.display().to_string(), "fail", "does not trust"),
    ] {
        let port = greeter(certificate).await;
        let url = format!("source.main.api_url=https://127.0.0.1:{port}");
        let output = run_with(&site, &["--json", "--set", &url], &[("SSL_CERT_FILE", trusts)]);
        assert_eq!(output.status.code(), Some(69));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = document["checks"].as_array().unwrap();
        let found = checks
            .iter()
            .find(|check| check["check"] == "connection" && check["subject"] == "api_url 127.0.0.1")
            .unwrap();
        assert_eq!(found["status"], status, "{found}");
        assert!(found["detail"].as_str().unwrap().contains(says), "{found}");
    }
}
