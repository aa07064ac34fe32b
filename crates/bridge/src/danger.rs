//! Certificates that nobody verifies, where the configuration says so in so many words: accepted, and never in silence.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use tracing::warn;

use crate::config::{Config, SinkKind};

/// The property with which librdkafka stops to verify brokers.
pub(crate) const KAFKA_VERIFICATION: &str = "enable.ssl.certificate.verification";
/// How often the log is told again.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);

/// A sentence for each place where certificates are not verified.
pub(crate) fn of(config: &Config) -> Vec<String> {
    let sources = config.sources.iter().filter(|source| source.tls.accept_invalid_certificates);
    let sources = sources.map(|source| ("source", &source.name));
    let sinks = config.sinks.iter().filter(|sink| match &sink.kind {
        SinkKind::Kafka(kafka) => kafka.accept_invalid_certificates,
        SinkKind::Nats(nats) => nats.tls.accept_invalid_certificates,
        SinkKind::File(_) | SinkKind::Stdout => false,
    });
    let sinks = sinks.map(|sink| ("sink", &sink.name));
    sources
        .chain(sinks)
        .map(|(what, name)| format!("Certificates of {what} {name} are not verified."))
        .collect()
}

/// Repeats the dangers in the log, for ever. The start has told them.
pub(crate) async fn remind(dangers: Vec<String>) {
    if dangers.is_empty() {
        return;
    }
    loop {
        tokio::time::sleep(TOLD_AGAIN).await;
        for danger in &dangers {
            warn!(danger, "DANGER: danger_accept_invalid_certificates is in force");
        }
    }
}

/// Accepts every certificate.
pub(crate) fn accept_any() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AcceptAny(ring::default_provider()))
}

/// The peer still has to prove that it has the certificate's key, as TLS needs; whose certificate it is does not matter.
#[derive(Debug)]
struct AcceptAny(CryptoProvider);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_is_reminded_each_hour() {
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || Log(writer.clone())).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let dangers = vec!["Certificates of source main are not verified.".to_owned()];
        let _ = tokio::time::timeout(TOLD_AGAIN * 7 / 2, remind(dangers)).await;
        let text = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("danger_accept_invalid_certificates is in force").count(), 3, "{text}");
        assert!(text.contains("WARN") && text.contains("source main"), "{text}");
        remind(Vec::new()).await;
    }

    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
