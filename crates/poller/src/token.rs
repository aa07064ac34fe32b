//! Access tokens by OAuth2 client credentials (vendor document, "Authentication"; RFC 6749, section 4.4).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::error::BuildError;
use crate::failure::{CallError, FailureKind};
use crate::http::{CALL_TIMEOUT, Caller, MAX_BODY};
use crate::observe::{Observer, Operation};
use crate::secret::Secret;
use crate::settings::{AuthSettings, ClientAuth, RealmIn, TlsSettings};

/// Lifetime of a token whose answer does not tell it.
const ASSUMED_LIFETIME: Duration = Duration::from_secs(300);

/// What every API call carries. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct Access {
    pub(crate) bearer: HeaderValue,
    pub(crate) api_key: HeaderValue,
    lifetime: Duration,
}

impl Access {
    /// How long it is good for, from the moment it was asked for.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

/// Fetches access tokens of one source. Secrets are read again each time.
#[derive(Clone)]
pub struct TokenProvider {
    caller: Caller,
    settings: AuthSettings,
}

impl TokenProvider {
    /// A provider.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub fn new(settings: AuthSettings, observer: Arc<dyn Observer>) -> Result<Self, BuildError> {
        Ok(Self::with(Caller::for_tokens(observer, &TlsSettings::default())?, settings))
    }

    pub(crate) fn with(caller: Caller, settings: AuthSettings) -> Self {
        Self { caller, settings }
    }

    /// Asks for a token.
    ///
    /// # Errors
    /// [`FailureKind::Credentials`] where the answer is "no", [`FailureKind::Secret`] where a secret cannot be read;
    /// everything else may be tried again.
    pub async fn fetch(&self) -> Result<Access, CallError> {
        let settings = &self.settings;
        let client_id = read("client_id", &settings.client_id)?;
        let client_secret = read("client_secret", &settings.client_secret)?;
        let api_key = header("api_key", read("api_key", &settings.api_key)?.expose_secret())?;
        let mut form = vec![("grant_type", "client_credentials"), ("scope", settings.scope.as_str())];
        let mut url = settings.token_url.clone();
        match (&settings.realm, settings.realm_in) {
            (Some(realm), RealmIn::Form) => form.push(("realm", realm)),
            (Some(realm), RealmIn::Query) => {
                url.query_pairs_mut().append_pair("realm", realm);
            }
            (None, _) => {}
        }
        let mut request = self.caller.http.post(url).timeout(CALL_TIMEOUT).header(ACCEPT, "application/json");
        match settings.client_auth {
            ClientAuth::Basic => {
                let [id, secret] =
                    [&client_id, &client_secret].map(|text| form_encoded(text.expose_secret()));
                request = request.basic_auth(id, Some(secret));
            }
            ClientAuth::Post => {
                form.push(("client_id", client_id.expose_secret()));
                form.push(("client_secret", client_secret.expose_secret()));
            }
        }
        let answer = self.caller.call(Operation::Token, request.form(&form), MAX_BODY, false).await?;
        let token: TokenAnswer = serde_json::from_slice(&answer.body)
            .map_err(|_| unreadable("the answer is not JSON with an access_token"))?;
        let lifetime = token.lifetime().unwrap_or(ASSUMED_LIFETIME);
        Ok(Access {
            bearer: header("access token", &format!("Bearer {}", token.access_token))?,
            api_key,
            lifetime,
        })
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenProvider").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
}

impl TokenAnswer {
    /// Seconds, which some servers write as a string.
    fn lifetime(&self) -> Option<Duration> {
        let seconds = match self.expires_in.as_ref()? {
            serde_json::Value::Number(number) => number.as_f64()?,
            serde_json::Value::String(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// RFC 6749, section 2.3.1: identifier and secret are form-encoded before they go into the Basic header.
fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn read(name: &str, secret: &Secret) -> Result<SecretString, CallError> {
    secret.read().map_err(|reason| CallError {
        operation: Operation::Token,
        kind: FailureKind::Secret,
        retry_after: None,
        detail: format!("{name} cannot be read: {reason}"),
    })
}

fn header(name: &str, value: &str) -> Result<HeaderValue, CallError> {
    let mut value = HeaderValue::from_str(value.trim_end_matches(['\r', '\n'])).map_err(|_| CallError {
        operation: Operation::Token,
        kind: FailureKind::Secret,
        retry_after: None,
        detail: format!("{name} has characters that no HTTP header may have"),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn unreadable(detail: &str) -> CallError {
    CallError {
        operation: Operation::Token,
        kind: FailureKind::Unreadable,
        retry_after: None,
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(text: &str) -> Option<u64> {
        serde_json::from_str::<TokenAnswer>(text).unwrap().lifetime().map(|lifetime| lifetime.as_secs())
    }

    #[test]
    fn lifetimes_come_in_several_dresses() {
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":3599}"#), Some(3599));
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":"3599"}"#), Some(3599));
        assert_eq!(lifetime(r#"{"access_token":"t","expires_in":-1}"#), None);
        assert_eq!(lifetime(r#"{"access_token":"t"}"#), None);
    }

    #[test]
    fn credentials_are_form_encoded() {
        assert_eq!(form_encoded("a:b+c d%"), "a%3Ab%2Bc+d%25");
    }
}
