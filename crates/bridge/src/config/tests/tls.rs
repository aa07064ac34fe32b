//! Whose certificates are trusted: the safe keys, the dangerous one, and how loud it is.

use insta::assert_snapshot;

use super::{SINK, SOURCE, doubts, load_with, right, wrong};
use crate::danger;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn source(line: &str) -> String {
    SOURCE.replace("org_id = \"acme\"\n", &format!("org_id = \"acme\"\n{line}\n"))
}

#[test]
fn nothing_dangerous_is_the_default() {
    let config = right(&format!("{SOURCE}{SINK}")).config;
    assert_eq!(config.sources[0].tls, crate::config::VendorTls::default());
    assert!(danger::of(&config).is_empty());
}

#[test]
fn every_danger_is_a_warning_and_is_remembered() {
    let danger = "danger_accept_invalid_certificates = true";
    let text = format!(
        "{}{SINK}{danger}\n[sink.bus]\ntype = \"nats\"\nurl = \"tls://localhost\"\nstream = \"VIA\"\n[sink.bus.tls]\n{danger}\n",
        source(danger)
    );
    assert_snapshot!(doubts(&text), @"
    viaduct.toml:5:38: DANGER: `danger_accept_invalid_certificates` in [source.main]: whoever is between here and the vendor can read and change everything, credentials too
      hint: remove it; an authority of your own is trusted with `ca_file` (source), `ca` (nats) or ssl.ca.location (kafka)
    viaduct.toml:15:38: DANGER: `danger_accept_invalid_certificates` in [sink.lake]: whoever is between here and the broker can read and change everything, credentials too
      hint: remove it; an authority of your own is trusted with `ca_file` (source), `ca` (nats) or ssl.ca.location (kafka)
    viaduct.toml:21:38: DANGER: `danger_accept_invalid_certificates` in [sink.bus.tls]: whoever is between here and the server can read and change everything, credentials too
      hint: remove it; an authority of your own is trusted with `ca_file` (source), `ca` (nats) or ssl.ca.location (kafka)
    ");
    assert_eq!(
        danger::of(&right(&text).config),
        ["source main", "sink lake", "sink bus"]
            .map(|what| format!("Certificates of {what} are not verified."))
    );
}

#[test]
fn an_authority_has_to_be_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, PEM).unwrap();
    let config = right(&format!("{}{SINK}", source(&format!("ca_file = {file:?}")))).config;
    assert_eq!(config.sources[0].tls.ca_file.as_deref(), Some(file.as_path()));
    std::fs::write(&file, "no PEM").unwrap();
    let complaint = wrong(&format!("{}{SINK}", source(&format!("ca_file = {file:?}"))));
    assert_snapshot!(complaint.replace(&*dir.path().to_string_lossy(), ""), @"
    viaduct.toml:5:11: `ca_file` in [source.main]: there is no certificate in it
      hint: name a PEM file, as openssl writes them: -----BEGIN CERTIFICATE-----
    1 mistake in the configuration
    ");
    assert_snapshot!(wrong(&format!("{}{SINK}", source("ca_file = \"/nowhere/ca.pem\""))), @"
    viaduct.toml:5:11: `ca_file` in [source.main]: the file `/nowhere/ca.pem` cannot be read: No such file or directory (os error 2)
      hint: create it, readable for this user
    1 mistake in the configuration
    ");
}

#[test]
fn no_property_switches_verification_off_by_itself() {
    let text = |danger: &str| {
        format!(
            "{SOURCE}{SINK}{danger}\n[sink.lake.properties]\nenable.ssl.certificate.verification = false\n\
             ssl.endpoint.identification.algorithm = \"none\"\n"
        )
    };
    assert_snapshot!(wrong(&text("")), @"
    viaduct.toml:16:39: `enable.ssl.certificate.verification` in [sink.lake.properties] is refused: the broker's certificate is not verified with it
      hint: remove it; or, if it has to be, write danger_accept_invalid_certificates = true in [sink.lake]
    viaduct.toml:17:41: `ssl.endpoint.identification.algorithm` in [sink.lake.properties] is refused: the broker's name is not verified with it
      hint: remove it; or, if it has to be, write danger_accept_invalid_certificates = true in [sink.lake]
    2 mistakes in the configuration
    ");
    right(&text("danger_accept_invalid_certificates = true"));
    let safe = "[sink.lake.properties]\nenable.ssl.certificate.verification = true\nssl.endpoint.identification.algorithm = \"https\"\n";
    assert_eq!(doubts(&format!("{SOURCE}{SINK}{safe}")), "");
    // What stands elsewhere may be another value tomorrow.
    let elsewhere =
        "[sink.lake.properties]\nssl.endpoint.identification.algorithm = { env = \"ALGORITHM\" }\n";
    let refused =
        load_with(&format!("{SOURCE}{SINK}{elsewhere}"), &[("ALGORITHM", "https")], &[]).unwrap_err();
    assert!(refused.to_string().contains("is refused"), "{refused}");
}
