//! The way to the collector. That it is away is told once, and now and then again, never for every export.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;
use tokio::runtime::Handle;
use tracing::{info, warn};

use super::EXPORT_TIMEOUT;
use crate::config::{SecretRef, Tracing};

/// How often an outage is told again.
const TOLD_AGAIN: Duration = Duration::from_secs(3600);
/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

/// An HTTP client for the exporter, whose own thread has no runtime.
#[derive(Debug)]
pub(super) struct Collector {
    http: reqwest::Client,
    runtime: Handle,
    endpoint: String,
    headers: Vec<(HeaderName, SecretRef)>,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    told: Instant,
}

impl Collector {
    /// For the endpoint and with the headers of `[tracing]`.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(super) fn new(tracing: &Tracing, runtime: Handle) -> Result<Self, reqwest::Error> {
        // Somebody else's choice of a provider is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(EXPORT_TIMEOUT)
            // They would carry the headers elsewhere.
            .redirect(Policy::none())
            .user_agent(concat!("viaduct/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self {
            http,
            runtime,
            endpoint: tracing.endpoint.to_string(),
            headers: tracing.headers.clone(),
            outage: Mutex::default(),
        })
    }

    /// The request with our headers, which are read again each time: a rotated file takes effect.
    fn request(&self, request: Request<Bytes>) -> Result<reqwest::Request, String> {
        let mut request = reqwest::Request::try_from(request).map_err(|error| error.to_string())?;
        for (name, secret) in &self.headers {
            let value = secret.read().map_err(|error| format!("header {name}: {error}"))?;
            let mut value = HeaderValue::from_str(value.expose_secret())
                .map_err(|_| format!("header {name}: {secret} is not text that a header can have"))?;
            value.set_sensitive(true);
            request.headers_mut().insert(name.clone(), value);
        }
        Ok(request)
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let request = self.request(request)?;
        let http = self.http.clone();
        let exchange = self.runtime.spawn(async move {
            let mut answer = http.execute(request).await.map_err(|error| reason(&error))?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(|error| reason(&error))? {
                if body.len() + chunk.len() > MAX_ANSWER {
                    return Err("the answer is too large".to_owned());
                }
                body.extend_from_slice(&chunk);
            }
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = answer.status();
            *response.headers_mut() = std::mem::take(answer.headers_mut());
            Ok(response)
        });
        exchange.await.map_err(|_| "the bridge is ending".to_owned())?
    }

    fn tell(&self, problem: Option<&str>) {
        let now = Instant::now();
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match (problem, *outage) {
            (None, None) => {}
            (None, Some(Outage { since, .. })) => {
                *outage = None;
                info!(seconds = since.elapsed().as_secs(), "the trace collector takes spans again");
            }
            (Some(_), Some(Outage { told, .. })) if now - told < TOLD_AGAIN => {}
            (Some(reason), before) => {
                let since = before.map_or(now, |outage| outage.since);
                *outage = Some(Outage { since, told: now });
                warn!(
                    endpoint = self.endpoint,
                    reason,
                    seconds = since.elapsed().as_secs(),
                    "spans cannot be exported and are lost; events are not concerned"
                );
            }
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        match self.exchange(request).await {
            Ok(response) => {
                let status = response.status();
                let problem = (!status.is_success()).then(|| format!("HTTP {}", status.as_u16()));
                self.tell(problem.as_deref());
                Ok(response)
            }
            Err(reason) => {
                self.tell(Some(&reason));
                Err(reason.into())
            }
        }
    }
}

/// The innermost cause: the outer ones repeat the address.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
