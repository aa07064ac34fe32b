//! Whose certificates are trusted.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::super::checked::VendorTls;
use super::super::field::{Field, Given, Named, Property, TextOrReference};
use super::super::raw;
use super::{Checks, Section};
use crate::danger::KAFKA_VERIFICATION;

const DANGER: &str = "danger_accept_invalid_certificates";

impl Checks<'_> {
    pub(super) fn vendor_tls(&mut self, raw: &raw::Source, section: &Section) -> Option<VendorTls> {
        let ca_file = match &raw.ca_file {
            Field::Absent => Some(None),
            Field::Wrong => None,
            Field::Given(given) => self.file(&raw.ca_file, "ca_file", section).and_then(|path| {
                let all =
                    CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                if all.is_ok_and(|all| !all.is_empty()) {
                    return Some(Some(path));
                }
                let message = format!("`ca_file` in {}: there is no certificate in it", section.label);
                self.wrong(
                    given.at,
                    message,
                    "name a PEM file, as openssl writes them: -----BEGIN CERTIFICATE-----",
                );
                None
            }),
        };
        let accepts = self.accepts_invalid(&raw.danger_accept_invalid_certificates, "the vendor", section);
        if accepts == Some(true) && raw.ca_file.given().is_some() {
            let message = format!("`ca_file` in {} has no effect beside {DANGER} = true", section.label);
            self.warn(raw.ca_file.at(), message, format!("remove {DANGER}"));
        }
        Some(VendorTls { ca_file: ca_file?, accept_invalid_certificates: accepts? })
    }

    /// Whether certificates are not verified, which nobody shall do without knowing.
    pub(super) fn accepts_invalid(
        &mut self,
        field: &Field<bool>,
        whose: &str,
        section: &Section,
    ) -> Option<bool> {
        let accepts = field.or(false)?;
        if accepts {
            let message = format!(
                "DANGER: `{DANGER}` in {}: whoever is between here and {whose} can read and change everything, credentials too",
                section.label
            );
            self.warn(
                field.at(),
                message,
                "remove it; an authority of your own is trusted with `ca_file` \
                (source), `ca` (nats) or ssl.ca.location (kafka)",
            );
        }
        Some(accepts)
    }

    /// Whether no property of librdkafka switches off the verification of the broker's certificate.
    pub(super) fn verifies_certificates(&mut self, raw: &Field<Named<Property>>, section: &Section) -> bool {
        let Some(named) = raw.given() else { return true };
        let mut verifies = true;
        for (name, field) in &named.value.0 {
            let Some(Given { value, at }) = field.given() else { continue };
            let (safe, what): (&[&str], &str) = match name.as_str() {
                KAFKA_VERIFICATION => (&["true", "t", "1"], "the broker's certificate is not verified"),
                "ssl.endpoint.identification.algorithm" => (&["https"], "the broker's name is not verified"),
                _ => continue,
            };
            // A value from elsewhere could say anything tomorrow.
            let is_safe = match &value.0 {
                TextOrReference::Text(text) => safe.contains(&text.to_ascii_lowercase().as_str()),
                TextOrReference::Reference(_) => false,
            };
            if !is_safe {
                let of = format!("{}.properties]", section.label.trim_end_matches(']'));
                let message = format!("`{name}` in {of} is refused: {what} with it");
                let hint =
                    format!("remove it; or, if it has to be, write {DANGER} = true in {}", section.label);
                self.wrong(*at, message, hint);
                verifies = false;
            }
        }
        verifies
    }
}
