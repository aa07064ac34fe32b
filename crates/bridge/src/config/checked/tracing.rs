//! `[tracing]` after every check.

use reqwest::header::HeaderName;
use url::Url;

use crate::config::secret::SecretRef;

/// `[tracing]`: spans for OpenTelemetry.
#[derive(Debug, Clone)]
pub(crate) struct Tracing {
    /// Where the spans go: the whole URL, with the path of OTLP/HTTP; never with credentials in it.
    pub(crate) endpoint: Url,
    /// The part of the polls that are traced, 0..=1.
    pub(crate) sample_ratio: f64,
    /// `service.name`; `None`: what the process's environment says, else `viaduct`.
    pub(crate) service_name: Option<String>,
    /// Further headers of an export.
    pub(crate) headers: Vec<(HeaderName, SecretRef)>,
}
