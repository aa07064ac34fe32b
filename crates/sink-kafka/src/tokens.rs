//! Access tokens for SASL OAUTHBEARER (KIP-255, and the client credentials of KIP-768).
//!
//! librdkafka could fetch them itself if it were built with libcurl, which it is not here. So the properties that
//! librdkafka documents for `sasl.oauthbearer.method=oidc` are taken out of its configuration, and whenever it asks for a
//! token, one is fetched with them (OAuth 2.0, RFC 6749 section 4.4) over this workspace's own TLS.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::runtime::Handle;

use crate::settings::KafkaSettingsError;

/// Which way OAUTHBEARER gets its tokens; only `oidc` is known.
pub(crate) const METHOD: &str = "sasl.oauthbearer.method";
const CLIENT_ID: &str = "sasl.oauthbearer.client.id";
const CLIENT_SECRET: &str = "sasl.oauthbearer.client.secret";
const ENDPOINT: &str = "sasl.oauthbearer.token.endpoint.url";
const SCOPE: &str = "sasl.oauthbearer.scope";

/// The properties that are read here and kept from librdkafka.
pub(crate) const OURS: [&str; 5] = [METHOD, CLIENT_ID, CLIENT_SECRET, ENDPOINT, SCOPE];
/// Those without which no token can be fetched.
pub(crate) const NEEDED: [&str; 4] = [METHOD, CLIENT_ID, CLIENT_SECRET, ENDPOINT];

/// How long the token endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a token counts that does not say so itself.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(300);
/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 1 << 20;

/// Fetches tokens for one sink.
pub(crate) struct Tokens {
    endpoint: String,
    client_id: String,
    client_secret: SecretString,
    scope: Option<String>,
    http: reqwest::Client,
    runtime: Handle,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: Option<u64>,
}

/// The claims that Kafka's own client reads from a JSON Web Token.
#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
}

impl Tokens {
    /// For these properties, of which [`NEEDED`] are there. To be called in a tokio runtime, which the requests use.
    ///
    /// # Errors
    /// No HTTP client can be made.
    pub(crate) fn new(properties: &BTreeMap<String, SecretString>) -> Result<Self, KafkaSettingsError> {
        let text = |key: &str| properties.get(key).map(|value| value.expose_secret().to_owned());
        // Somebody else's choice of a provider is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            // They would carry the credentials elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| KafkaSettingsError::Client(format!("no HTTP client can be made: {error}")))?;
        Ok(Self {
            endpoint: text(ENDPOINT).unwrap_or_default(),
            client_id: text(CLIENT_ID).unwrap_or_default(),
            client_secret: properties.get(CLIENT_SECRET).cloned().unwrap_or_default(),
            scope: text(SCOPE).filter(|scope| !scope.is_empty()),
            http,
            runtime: Handle::current(),
        })
    }

    /// Fetches one. Blocks; never to be called on a thread of the runtime.
    ///
    /// # Errors
    /// A sentence without any secret.
    pub(crate) fn fetch(&self) -> Result<OAuthToken, String> {
        let answer = self.runtime.block_on(self.ask())?;
        Ok(self.read(answer, SystemTime::now()))
    }

    async fn ask(&self) -> Result<Answer, String> {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
        let request = self
            .http
            .post(&self.endpoint)
            .basic_auth(&self.client_id, Some(self.client_secret.expose_secret()))
            .header("accept", "application/json")
            .form(&form);
        // Without its URL, which may carry more than an address.
        let failed =
            |error: reqwest::Error| format!("the token endpoint cannot be asked: {}", error.without_url());
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("the token endpoint answers {status}"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                return Err("the token endpoint's answer is too long".to_owned());
            }
        }
        // serde's message could quote the token.
        serde_json::from_slice(&body)
            .map_err(|_| "the token endpoint's answer holds no access_token".to_owned())
    }

    /// What librdkafka needs to know of a token: until when it counts, and whose it is.
    fn read(&self, answer: Answer, now: SystemTime) -> OAuthToken {
        let claims = claims(&answer.access_token);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let stated = claims.as_ref().and_then(|claims| claims.exp).map(Duration::try_from_secs_f64);
        let until = match (stated, answer.expires_in) {
            (Some(Ok(at)), _) => at,
            (_, Some(seconds)) => now.saturating_add(Duration::from_secs(seconds)),
            _ => now + UNKNOWN_LIFETIME,
        };
        OAuthToken {
            token: answer.access_token,
            principal_name: claims.and_then(|claims| claims.sub).unwrap_or_else(|| self.client_id.clone()),
            lifetime_ms: i64::try_from(until.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(..)")
    }
}

/// The claims of a JSON Web Token; `None` where it is another kind of token.
fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Tokens {
        let properties =
            [(CLIENT_ID, "me"), (CLIENT_SECRET, "hunter2"), (ENDPOINT, "http://localhost:1/token")];
        Tokens::new(&properties.map(|(key, value)| (key.to_owned(), value.to_owned().into())).into()).unwrap()
    }

    fn read(token: &str, expires_in: Option<u64>) -> (String, i64) {
        let answer = Answer { access_token: token.to_owned(), expires_in };
        let token = tokens().read(answer, UNIX_EPOCH + Duration::from_secs(1_000));
        (token.principal_name, token.lifetime_ms)
    }

    #[tokio::test]
    async fn a_token_tells_whose_it_is_and_until_when() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(read(&token(r#"{"sub":"alice","exp":2000}"#), Some(5)), ("alice".to_owned(), 2_000_000));
        assert_eq!(read(&token(r#"{"exp":-1}"#), Some(5)), ("me".to_owned(), 1_005_000));
        assert_eq!(read("opaque", Some(60)), ("me".to_owned(), 1_060_000));
        assert_eq!(read("opaque", None), ("me".to_owned(), 1_300_000));
    }

    #[test]
    fn an_endpoint_that_does_not_answer_is_an_error_without_secrets() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let tokens = runtime.block_on(async { tokens() });
        let error = tokens.fetch().err().expect("nobody listens there");
        assert!(error.starts_with("the token endpoint cannot be asked"), "{error}");
        assert!(!format!("{error} {tokens:?}").contains("hunter2"), "{error}");
    }
}
