//! A request, taken apart; and the checks that every operation makes first.

use std::time::Instant;

use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use url::form_urlencoded;

use crate::answer::{INVALID_SESSION, Refusal};
use crate::connection::Connection;
use crate::fault::Operation;
use crate::report::MisbehaviourKind;
use crate::route::Target;
use crate::settings::Settings;
use crate::simulation::Core;

/// A request. Holds credentials: it has no `Debug`.
pub(crate) struct Call {
    pub(crate) target: Target,
    pub(crate) connection: Connection,
    pub(crate) body: Bytes,
    /// The bearer token.
    pub(crate) token: Option<String>,
    /// Client id and secret of HTTP Basic authentication.
    pub(crate) basic: Option<(String, String)>,
    pub(crate) session: Option<String>,
    /// A fault asks for the first event of the answer to be in it twice.
    pub(crate) repeat: bool,
    api_key: Option<String>,
    query: String,
}

impl Call {
    pub(crate) fn new(target: Target, parts: &Parts, body: Bytes, connection: Connection) -> Self {
        let header =
            |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let authorization = header(AUTHORIZATION.as_str()).unwrap_or_default();
        let (scheme, credentials) = authorization.split_once(' ').unwrap_or_default();
        let token = scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim().to_owned());
        let basic = scheme.eq_ignore_ascii_case("basic").then(|| read_basic(credentials)).flatten();
        Self {
            target,
            connection,
            body,
            token,
            basic,
            session: header("via-client-sessionid"),
            repeat: false,
            api_key: header("x-api-key"),
            query: parts.uri.query().unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn operation(&self) -> Operation {
        self.target.operation
    }

    pub(crate) fn query(&self, name: &str) -> Option<String> {
        field(self.query.as_bytes(), name)
    }

    /// A field of the body, read as a form.
    pub(crate) fn form(&self, name: &str) -> Option<String> {
        field(&self.body, name)
    }

    /// The client id that the caller gives itself, or that its token was given to.
    pub(crate) fn client(&self, core: &Core) -> Option<String> {
        match self.operation() {
            Operation::Token => {
                self.basic.as_ref().map(|(id, _)| id.clone()).or_else(|| self.form("client_id"))
            }
            _ => core.tokens.client(self.token.as_deref()?).map(str::to_owned),
        }
    }

    /// Whether the caller may use the API of this organisation. Vendor document: 401 without a body, 404.
    pub(crate) fn admit(&self, settings: &Settings, core: &Core, now: Instant) -> Result<(), Refusal> {
        let key_fits = match (&self.api_key, &settings.api_key) {
            (Some(given), Some(accepted)) => given == accepted,
            (Some(given), None) => !given.is_empty(),
            (None, _) => false,
        };
        let token_fits = self.token.as_ref().is_some_and(|token| core.tokens.is_valid(token, now));
        if !key_fits || !token_fits {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, ""));
        }
        if self.target.org != settings.org {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "Organization not found"));
        }
        Ok(())
    }
}

impl Core {
    /// The live session that a call names. `same_version`: the path has to be of the version that the session was created
    /// with; that does not hold for subscriptions, which exist under V2 paths only.
    pub(crate) fn session_of(&mut self, call: &Call, same_version: bool) -> Result<String, Refusal> {
        let Some(id) = &call.session else {
            return Err(Refusal::bad_request("Header via-client-sessionid is missing"));
        };
        let now = Instant::now();
        let Some(session) = self.sessions.get(id) else {
            self.refuse_session(id, call.operation(), call.connection.number, now);
            return Err(Refusal::bad_request(INVALID_SESSION));
        };
        let (created, called) = (session.version.number(), call.target.version.number());
        if same_version && created != called {
            let detail = format!("session {id:?} of v{created} used under a v{called} path");
            self.conduct.note(MisbehaviourKind::VersionsMixed, call.operation(), detail, now);
            return Err(Refusal::bad_request("Streaming V2 and V3 APIs cannot be used in combination"));
        }
        Ok(id.clone())
    }
}

fn read_basic(credentials: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    // RFC 6749, section 2.3.1: both are form-encoded first.
    let decoded = |text: &str| field(format!("v={text}").as_bytes(), "v").unwrap_or_default();
    Some((decoded(id), decoded(secret)))
}

fn field(text: &[u8], name: &str) -> Option<String> {
    form_urlencoded::parse(text).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
