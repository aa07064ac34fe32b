//! `[tracing]`.

use reqwest::header::{HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use url::Url;

use super::super::checked::Tracing;
use super::super::field::Field;
use super::super::raw;
use super::super::secret::SecretRef;
use super::{Checks, Section};

/// Where a collector takes traces over OTLP/HTTP (OpenTelemetry protocol, "OTLP/HTTP Request").
const PATH: &str = "/v1/traces";
const EXAMPLE: &str = "\"http://localhost:4318\"";

impl Checks<'_> {
    /// `Some(None)`: off.
    pub(super) fn tracing(&mut self, raw: &Field<raw::Tracing>) -> Option<Option<Tracing>> {
        if matches!(raw, Field::Absent) {
            return Some(None);
        }
        let (raw, section) = self.section(raw, "[tracing]")?;
        let off = raw.otlp_endpoint.given().is_some_and(|given| given.value == "off");
        let endpoint = if off { None } else { self.otlp_endpoint(&raw, &section) };
        let sample_ratio = raw.sample_ratio.or(1.0).filter(|ratio| {
            let right = (0.0..=1.0).contains(ratio);
            if !right {
                let message = "`sample_ratio` in [tracing] must be between 0 and 1";
                self.wrong(raw.sample_ratio.at(), message, "write sample_ratio = 0.1 for every tenth poll");
            }
            right
        });
        let service_name = match &raw.service_name {
            Field::Absent => Some(None),
            name => {
                self.text(name, "service_name", &section, "\"viaduct\"").map(|name| Some(name.value.clone()))
            }
        };
        let headers = self.export_headers(&raw);
        let (sample_ratio, service_name, headers) = (sample_ratio?, service_name?, headers?);
        if off {
            return Some(None);
        }
        Some(Some(Tracing { endpoint: endpoint?, sample_ratio, service_name, headers }))
    }

    fn otlp_endpoint(&mut self, raw: &raw::Tracing, section: &Section) -> Option<Url> {
        let given = self.text(&raw.otlp_endpoint, "otlp_endpoint", section, EXAMPLE)?;
        let url = Url::parse(&given.value).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(mut url) = url else {
            let message = "`otlp_endpoint` in [tracing] must be an http or https URL, or \"off\"";
            self.wrong(given.at, message, format!("write otlp_endpoint = {EXAMPLE}"));
            return None;
        };
        if !url.username().is_empty() || url.password().is_some() {
            let hint = "write them as [tracing.headers] Authorization = { env = \"NAME\" }";
            self.wrong(given.at, "`otlp_endpoint` in [tracing] contains credentials", hint);
            return None;
        }
        if url.query().is_some() || url.fragment().is_some() {
            let message = "`otlp_endpoint` in [tracing] has a query or a fragment";
            self.wrong(given.at, message, "remove what follows `?` or `#`");
            return None;
        }
        if url.port() == Some(4317) {
            let message =
                "`otlp_endpoint` in [tracing] has the port of OTLP over gRPC, which is not spoken here";
            self.warn(given.at, message, "use OTLP over HTTP, which collectors take at port 4318");
        }
        if !url.path().ends_with(PATH) {
            let path = format!("{}{PATH}", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        Some(url)
    }

    fn export_headers(&mut self, raw: &raw::Tracing) -> Option<Vec<(HeaderName, SecretRef)>> {
        let named = match &raw.headers {
            Field::Absent => return Some(Vec::new()),
            Field::Wrong => return None,
            Field::Given(given) => &given.value.0,
        };
        let mut headers = Vec::new();
        for (name, value) in named {
            let given = value.given()?;
            let what = format!("`{}` in [tracing.headers]", name.escape_debug());
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                self.wrong(
                    given.at,
                    format!("{what} is no name of an HTTP header"),
                    "use letters, digits and `-`",
                );
                continue;
            };
            let Some(secret) = self.given_secret(&given.value.0, given.at, &what) else { continue };
            let fits =
                self.read(&secret).is_ok_and(|text| HeaderValue::from_str(text.expose_secret()).is_ok());
            if fits {
                headers.push((header, secret));
            } else {
                self.wrong(
                    given.at,
                    format!("{what} has characters that no HTTP header can have"),
                    "write one line of ASCII",
                );
            }
        }
        (headers.len() == named.len()).then_some(headers)
    }
}
