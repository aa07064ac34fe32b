//! The HTTP clients, and what every call has in common: timeouts, limits, what an answer means.
//!
//! Each lane of a source (session, acknowledgements, tokens) has connections of its own. Over a shared one, a request
//! could go out right behind the other lane's answer, before anybody has read the Retry-After in it.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER};
use reqwest::{Client, Request, RequestBuilder, Response, redirect};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{CertificateError, ClientConfig};
use rustls_platform_verifier::Verifier;
use serde::Deserialize;

use crate::error::BuildError;
use crate::failure::{CallError, FailureKind, retry_after, says_expired};
use crate::observe::{Observation, Observer, Operation};
use crate::settings::TlsSettings;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call other than the long poll may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What the client waits longer than the vendor holds a GET.
pub(crate) const POLL_GRACE: Duration = Duration::from_secs(10);
/// Largest body of GET /events that is read. It bounds memory: a larger one is asked for again with a smaller
/// `maxEvents`.
pub(crate) const MAX_EVENTS_BODY: usize = 256 * 1024 * 1024;
/// Largest body of any other answer.
pub(crate) const MAX_BODY: usize = 8 * 1024 * 1024;
/// Longest piece of a vendor's error message that is shown.
const MAX_MESSAGE: usize = 200;

/// A client with connections of its own, of which it keeps `idle` when nothing is asked. Redirects are not followed: they
/// would carry the credentials elsewhere.
fn client(settings: &TlsSettings, idle: usize) -> Result<Client, BuildError> {
    Client::builder()
        .pool_max_idle_per_host(idle)
        .tls_backend_preconfigured(tls(settings)?)
        .user_agent(concat!("viaduct-poller/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(redirect::Policy::none())
        .tcp_keepalive(Duration::from_secs(30))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| BuildError::Http(chain(&error)))
}

/// What TLS connections are made with. Where there are no settings of its own, it is read once per process: the system's
/// trusted certificates take 130 KB and 10 ms each time.
pub(crate) fn tls(settings: &TlsSettings) -> Result<ClientConfig, BuildError> {
    static USUAL: OnceLock<Result<ClientConfig, String>> = OnceLock::new();
    let tls = match settings {
        TlsSettings { ca_file: None, verifier: None } => USUAL.get_or_init(|| tls_with(settings)).clone(),
        _ => tls_with(settings),
    };
    tls.map_err(BuildError::Http)
}

fn tls_with(settings: &TlsSettings) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = match (&settings.verifier, &settings.ca_file) {
        (Some(verifier), _) => verifier.clone(),
        (None, file) => {
            let authorities = file.as_deref().map(authorities).transpose()?.unwrap_or_default();
            let verifier = Verifier::new_with_extra_roots(authorities, provider.clone());
            Arc::new(verifier.map_err(|error| error.to_string())?) as Arc<dyn ServerCertVerifier>
        }
    };
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

/// The certificates of a PEM file.
fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: pem::Error| format!("{}: {error}", file.display());
    CertificateDer::pem_file_iter(file).and_then(Iterator::collect).map_err(wrong)
}

/// A complete answer with a good status, or what of it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    /// Why the body is not whole. Only given where the caller wants torn bodies.
    pub(crate) torn: Option<CallError>,
}

/// Sends requests of one lane and tells the observer of each.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) http: Client,
    observer: Arc<dyn Observer>,
}

impl Caller {
    /// With connections of its own. A lane has one call under way.
    pub(crate) fn new(observer: Arc<dyn Observer>, tls: &TlsSettings) -> Result<Self, BuildError> {
        Ok(Self { http: client(tls, 1)?, observer })
    }

    /// With a connection per call, for calls that are an hour apart: a kept connection would be a good part of an idle
    /// source's memory. So nothing is lost either if one client serves all sources without TLS settings of their own.
    pub(crate) fn for_tokens(observer: Arc<dyn Observer>, tls: &TlsSettings) -> Result<Self, BuildError> {
        static USUAL: OnceLock<Result<Client, BuildError>> = OnceLock::new();
        let http = match tls {
            TlsSettings { ca_file: None, verifier: None } => USUAL.get_or_init(|| client(tls, 0)).clone(),
            _ => client(tls, 0),
        };
        Ok(Self { http: http?, observer })
    }

    /// Sends `request`; every status but 2xx is an error. With `keep_torn`, what came of a body that broke off is given.
    pub(crate) async fn call(
        &self,
        operation: Operation,
        request: RequestBuilder,
        limit: usize,
        keep_torn: bool,
    ) -> Result<Answer, CallError> {
        let started = Instant::now();
        let mut status = None;
        let result = self.exchange(operation, request, limit, keep_torn, &mut status).await;
        let status = if result.as_ref().is_ok_and(|answer| answer.torn.is_none()) {
            status
        } else {
            // An answer that broke off has a status, and was no answer.
            status.filter(|&status| status >= 300)
        };
        self.observer.observe(Observation::Request { operation, status, took: started.elapsed() });
        result
    }

    async fn exchange(
        &self,
        operation: Operation,
        request: RequestBuilder,
        limit: usize,
        keep_torn: bool,
        status: &mut Option<u16>,
    ) -> Result<Answer, CallError> {
        let request = request.build().map_err(|error| transport_error(operation, &error))?;
        let secrets = secrets_of(&request);
        let response =
            self.http.execute(request).await.map_err(|error| transport_error(operation, &error))?;
        *status = Some(response.status().as_u16());
        if response.status().is_success() {
            return read(operation, response, limit, keep_torn).await;
        }
        let mut error = refusal(operation, response).await;
        for secret in secrets {
            error.detail = error.detail.replace(&secret, "***");
        }
        Err(error)
    }
}

/// What a vendor must not repeat into our logs.
fn secrets_of(request: &Request) -> Vec<String> {
    let values = [AUTHORIZATION, HeaderName::from_static("x-api-key")];
    let values = values.iter().filter_map(|name| request.headers().get(name)?.to_str().ok());
    values
        .map(|value| value.trim_start_matches("Bearer ").to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

async fn read(
    operation: Operation,
    mut response: Response,
    limit: usize,
    keep_torn: bool,
) -> Result<Answer, CallError> {
    let code = response.status().as_u16();
    let mut body = Vec::with_capacity(response.content_length().unwrap_or(0).min(1 << 20) as usize);
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                let detail = format!("the answer is larger than {limit} bytes");
                return Err(CallError { operation, kind: FailureKind::TooLarge, retry_after: None, detail });
            }
            Ok(None) => return Ok(Answer { status: code, body, torn: None }),
            Err(error) => {
                let kind = if error.is_timeout() { FailureKind::TimedOut } else { FailureKind::Unreadable };
                let detail = format!("the answer broke off after {} bytes ({})", body.len(), chain(&error));
                let torn = CallError { operation, kind, retry_after: None, detail };
                if keep_torn && !body.is_empty() {
                    return Ok(Answer { status: code, body, torn: Some(torn) });
                }
                return Err(torn);
            }
        }
    }
}

fn transport_error(operation: Operation, error: &reqwest::Error) -> CallError {
    // A connection that cannot be made in time is unreachable too.
    let (kind, what) = if error.is_connect() {
        (FailureKind::Unreachable, "no connection")
    } else if error.is_timeout() {
        (FailureKind::TimedOut, "no answer in time")
    } else if error.is_builder() {
        (FailureKind::Refused, "the request cannot be made")
    } else {
        (FailureKind::Broken, "the connection broke")
    };
    CallError { operation, kind, retry_after: None, detail: format!("{what} ({})", chain(error)) }
}

/// The innermost cause; the outer layers repeat the address, which may carry a realm.
fn chain(error: &reqwest::Error) -> String {
    let Some(mut innermost) = std::error::Error::source(error) else { return "HTTP".to_owned() };
    loop {
        if let Some(untrusted) = untrusted(innermost) {
            return untrusted.to_owned();
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => return shorten(&innermost.to_string()),
        }
    }
}

/// What is wrong with a certificate, where that is the cause, and what to do.
fn untrusted(cause: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    // The source of an I/O error is not what is in it, but one further.
    if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return untrusted(inner);
    }
    let error = cause.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(reason) = error else { return None };
    Some(match reason {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate comes from an authority that this machine does not trust; ca_file of the source adds one"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet; is the clock right?"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the certificate is for another name"
        }
        _ => return None,
    })
}

/// The vendor's error body (vendor document, ErrorResponse), as far as it is one.
#[derive(Debug, Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: Option<Vec<ErrorDetail>>,
    /// OAuth2's error code (RFC 6749, section 5.2).
    #[serde(default)]
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: Option<String>,
}

async fn refusal(operation: Operation, mut response: Response) -> CallError {
    let status = response.status().as_u16();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let retry_after =
        header(RETRY_AFTER).and_then(|value| retry_after(value, header(DATE), SystemTime::now()));
    let content_type = header(CONTENT_TYPE).unwrap_or("no content type").to_owned();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > 64 * 1024 {
            break;
        }
    }
    let parsed = serde_json::from_slice::<ErrorBody>(&body).ok();
    let kind = kind_of(operation, status, parsed.as_ref());
    let message = parsed.and_then(|body| match (operation, body.error) {
        // A description could repeat what was sent; the code cannot.
        (Operation::Token, Some(serde_json::Value::String(code))) => Some(code),
        (Operation::Token, _) => None,
        _ => body.message,
    });
    let detail = match message {
        Some(message) if !message.is_empty() => format!("HTTP {status}: {}", shorten(&message)),
        _ => format!("HTTP {status} ({})", shorten(&content_type)),
    };
    CallError { operation, kind, retry_after, detail }
}

fn kind_of(operation: Operation, status: u16, body: Option<&ErrorBody>) -> FailureKind {
    let expired = || {
        body.is_some_and(|body| {
            let details = body.errors.iter().flatten().filter_map(|detail| detail.message.as_deref());
            body.message.as_deref().into_iter().chain(details).any(says_expired)
        })
    };
    match (operation, status) {
        (Operation::Token, 400 | 401 | 403) => FailureKind::Credentials,
        (Operation::Token | Operation::SessionCreate, 410) => FailureKind::Refused,
        (_, 400 | 404 | 410) if operation != Operation::SessionCreate && expired() => FailureKind::Expired,
        (_, 401) => FailureKind::Unauthorized,
        (_, 403) => FailureKind::Forbidden,
        (_, 404) => FailureKind::NotFound,
        (_, 408) => FailureKind::TimedOut,
        (_, 429) => FailureKind::Throttled,
        (_, 300..=499) => FailureKind::Refused,
        _ => FailureKind::Server,
    }
}

/// One line of bounded length.
fn shorten(text: &str) -> String {
    let mut short: String =
        text.chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> ErrorBody {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_status_means_one_thing() {
        use FailureKind as K;
        let expired = body(r#"{"code":400,"message":"Invalid or expired session"}"#);
        let nested = body(
            r#"{"code":400,"message":"bad request","errors":[{"message":"invalid or expired session."}]}"#,
        );
        let other = body(r#"{"code":400,"message":"maxEvents is invalid"}"#);
        assert_eq!(kind_of(Operation::Events, 400, Some(&expired)), K::Expired);
        assert_eq!(kind_of(Operation::Acknowledge, 400, Some(&nested)), K::Expired);
        assert_eq!(kind_of(Operation::Events, 400, Some(&other)), K::Refused);
        assert_eq!(kind_of(Operation::SessionCreate, 400, Some(&expired)), K::Refused);
        assert_eq!(kind_of(Operation::Events, 401, Some(&expired)), K::Unauthorized);
        assert_eq!(kind_of(Operation::Token, 401, None), K::Credentials);
        for (status, kind) in [
            (302, K::Refused),
            (403, K::Forbidden),
            (404, K::NotFound),
            (405, K::Refused),
            (408, K::TimedOut),
            (429, K::Throttled),
            (500, K::Server),
            (503, K::Server),
        ] {
            assert_eq!(kind_of(Operation::Events, status, None), kind, "{status}");
        }
    }

    #[test]
    fn messages_are_one_short_line() {
        assert_eq!(shorten("a\nb"), "a b");
        assert_eq!(shorten(&"é".repeat(500)).chars().count(), MAX_MESSAGE + 1);
    }
}
