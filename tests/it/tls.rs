//! Certificates of an authority that this machine does not know: refused, trusted by `ca_file` and its like, and accepted
//! unseen only where the configuration says so, and then never in silence.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use viaduct_simulator::Settings;
use viaduct_testkit::kafka::KafkaBroker;
use viaduct_testkit::native::free_port;
use viaduct_testkit::nats::tls::TlsFiles;
use viaduct_testkit::nats::{NatsOptions, NatsServer};

use crate::kit::bridge::{Bridge, Site, viaduct};
use crate::kit::destinations::{Files, Stream, Topics};
use crate::kit::vendor::{Vendor, settings};

const DANGER: &str = "danger_accept_invalid_certificates = true";

async fn vendor() -> Vendor {
    Vendor::start(Settings { total: Some(50), ..settings() }).await
}

/// One without events: what cannot be published would hold up the end of a bridge.
async fn silent_vendor() -> Vendor {
    Vendor::start(settings()).await
}

/// Takes TLS off what comes, and hands it on to `target`. Returns its port.
async fn tls_in_front(
    target: SocketAddr,
    (certificate, key): &(std::path::PathBuf, std::path::PathBuf),
) -> u16 {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust the certificate goes away.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(target).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut inner).await;
            });
        }
    });
    port
}

/// All arrives, and nobody is told of a danger.
async fn flows_quietly(site: &Site, vendor: &Vendor) {
    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    assert_eq!(bridge.status().await["dangers"], serde_json::json!([]));
    assert!(bridge.terminate().await.0.success());
    assert!(!site.log().contains("DANGER"), "{}", site.log());
}

/// All arrives, and everybody is told.
async fn flows_loudly(site: &Site, vendor: &Vendor, what: &str) {
    let check = viaduct().args(["check", "-c"]).arg(site.config()).output().unwrap();
    assert_eq!(check.status.code(), Some(0));
    let said = String::from_utf8_lossy(&check.stdout) + String::from_utf8_lossy(&check.stderr);
    assert!(said.contains("DANGER: `danger_accept_invalid_certificates`"), "{said}");
    let strict = viaduct().args(["check", "--strict", "-c"]).arg(site.config()).output().unwrap();
    assert_eq!(strict.status.code(), Some(78));

    let mut bridge = site.start();
    vendor.all_acknowledged(Duration::from_secs(60)).await;
    let status = bridge.status().await;
    assert_eq!(status["dangers"], serde_json::json!([format!("Certificates of {what} are not verified.")]));
    assert_eq!(status["verdict"]["level"], "warning");
    let sentence = status["verdict"]["sentence"].as_str().unwrap();
    assert!(sentence.ends_with(&format!("DANGER: Certificates of {what} are not verified.")), "{sentence}");
    assert!(bridge.terminate().await.0.success());
    assert!(site.log().contains("DANGER: `danger_accept_invalid_certificates`"), "{}", site.log());
}

async fn refused(site: &Site, because: &str) {
    let mut bridge: Bridge = site.start();
    bridge.not_ready(because).await;
    bridge.terminate().await;
    assert!(!site.log().contains("failed to verify TLS certificate"), "each try is told\n{}", site.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vendor_behind_a_private_authority() {
    let folder = tempfile::tempdir().unwrap();
    let tls = TlsFiles::write(folder.path()).unwrap();
    let site = async |vendor: &Vendor, more: &str| {
        let target: SocketAddr = vendor.0.url().trim_start_matches("http://").parse().unwrap();
        let port = tls_in_front(target, &tls.server).await;
        let source =
            vendor.source(more).replace(&format!("http://{target}"), &format!("https://localhost:{port}"));
        assert!(!source.contains("http://"), "{source}");
        Site::new(&[source, Files(folder.path().join("events")).sink()].concat())
    };
    let silent = silent_vendor().await;
    let untrusting = site(&silent, "").await;
    refused(&untrusting, "an authority that this machine does not trust; ca_file of the source adds one")
        .await;
    assert_eq!(silent.report().tokens_issued, 0, "nobody got the credentials");

    let online = |site: &Site| {
        let check = || viaduct().args(["check", "--online", "-c"]).arg(site.config()).output().unwrap();
        String::from_utf8_lossy(&tokio::task::block_in_place(check).stdout).into_owned()
    };
    let said = online(&untrusting);
    assert!(said.contains("name the authority in ca_file of the source"), "{said}");

    let first = vendor().await;
    let trusting = site(&first, &format!("ca_file = {:?}", tls.authority)).await;
    let said = online(&trusting);
    assert!(said.contains("TLS, with a certificate that is trusted"), "{said}");
    flows_quietly(&trusting, &first).await;
    let second = vendor().await;
    let reckless = site(&second, DANGER).await;
    let said = online(&reckless);
    assert!(said.contains("with a certificate that nobody verifies"), "{said}");
    flows_loudly(&reckless, &second, "source main").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_behind_a_private_authority() {
    let folder = tempfile::tempdir().unwrap();
    let tls = TlsFiles::write(folder.path()).unwrap();
    let options = NatsOptions { config: tls.server_config(true) };
    let server = tokio::task::block_in_place(|| NatsServer::start_with(options));
    let stream = Stream::new(&server.url().replace("nats://127.0.0.1", "tls://localhost"));
    // The server asks for the client's certificate, too.
    let client = format!("[sink.bus.tls]\ncertificate = {:?}\nkey = {:?}\n", tls.client.0, tls.client.1);
    let site = |vendor: &Vendor, more: &str| {
        Site::new(&[vendor.source(""), stream.sink(&format!("{client}{more}\n"))].concat())
    };
    refused(&site(&silent_vendor().await, ""), "sink bus: cannot connect").await;
    let first = vendor().await;
    flows_quietly(&site(&first, &format!("ca = {:?}", tls.authority)), &first).await;
    let second = vendor().await;
    flows_loudly(&site(&second, DANGER), &second, "sink bus").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_broker_behind_a_private_authority() {
    let folder = tempfile::tempdir().unwrap();
    let tls = TlsFiles::write(folder.path()).unwrap();
    let both = folder.path().join("server-with-key.pem");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    std::fs::write(&both, read(&tls.server.1) + &read(&tls.server.0)).unwrap();
    let bootstrap = format!("127.0.0.1:{}", free_port().unwrap());
    let _broker = tokio::task::block_in_place(|| {
        KafkaBroker::start_with(&[
            ("listeners", &format!("{{listeners}},SECURE://{bootstrap}")),
            ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SSL"),
            ("listener.name.secure.ssl.keystore.type", "PEM"),
            ("listener.name.secure.ssl.keystore.location", &both.display().to_string()),
        ])
    });
    let topics = Topics::new(&bootstrap);
    let site = |vendor: &Vendor, more: &str, properties: &str| {
        let properties = format!("[sink.lake.properties]\nsecurity.protocol = \"SSL\"\n{properties}\n");
        Site::new(&[vendor.source(""), topics.sink(&format!("{more}\n{properties}"))].concat())
    };
    let silent = silent_vendor().await;
    refused(&site(&silent, "", ""), "sink lake").await;
    // Nobody switches it off by a property that was found somewhere.
    let sly = site(&silent, "", "enable.ssl.certificate.verification = false");
    let output = viaduct().args(["run", "-c"]).arg(sly.config()).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("is refused: the broker's certificate is not verified with it"), "{said}");

    let first = vendor().await;
    flows_quietly(&site(&first, "", &format!("ssl.ca.location = {:?}", tls.authority)), &first).await;
    let second = vendor().await;
    flows_loudly(&site(&second, DANGER, ""), &second, "sink lake").await;
}
