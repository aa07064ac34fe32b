//! The vendor's API, one method per call, each exactly one HTTP request. Nothing is retried here.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::BuildError;
use crate::failure::{CallError, FailureKind};
use crate::http::{Answer, CALL_TIMEOUT, Caller, MAX_BODY, MAX_EVENTS_BODY, POLL_GRACE};
use crate::observe::{Observer, Operation};
use crate::settings::{ApiVersion, SourceSettings, Subscription};
use crate::store::SessionId;
use crate::subscriptions::{ActualSubscription, SubscriptionChange, Wire, WireList};
use crate::token::{Access, TokenProvider};

/// A session as the vendor granted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantedSession {
    /// Its identifier.
    pub id: SessionId,
    /// The granted `inactivityDelay`.
    pub inactivity_delay: Duration,
    /// Whether events stay at the vendor until they are acknowledged; always false for v2.
    pub acknowledges: bool,
}

/// The body of a GET /events answer.
#[derive(Debug)]
pub(crate) struct EventsBody {
    pub(crate) body: Vec<u8>,
    /// Why it is not whole (v2 only, where the rest is lost and what came is not).
    pub(crate) torn: Option<CallError>,
}

/// What the vendor said about acknowledged ids.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcknowledgeAnswer {
    /// It said yes to all of them: nothing but yes (204 or an empty body), or the very list.
    pub everything: bool,
    /// `eventIdsAcknowledged`.
    pub acknowledged: HashSet<String>,
    /// `eventIdsNotFound`.
    pub not_found: HashSet<String>,
}

impl AcknowledgeAnswer {
    /// Acknowledged (`true`), not found (`false`), or not mentioned.
    #[must_use]
    pub fn verdict(&self, id: &str) -> Option<bool> {
        if self.everything || self.acknowledged.contains(id) {
            return Some(true);
        }
        self.not_found.contains(id).then_some(false)
    }
}

/// Calls the streaming API of one source.
#[derive(Clone)]
pub struct VendorClient {
    caller: Caller,
    acknowledgements: Caller,
    tokens: Caller,
    settings: Arc<SourceSettings>,
}

impl VendorClient {
    /// A client with connections of its own.
    ///
    /// # Errors
    /// Settings out of range, or the HTTP client cannot be set up.
    pub fn new(settings: SourceSettings, observer: Arc<dyn Observer>) -> Result<Self, BuildError> {
        settings.check()?;
        Ok(Self {
            caller: Caller::new(observer.clone(), &settings.tls)?,
            acknowledgements: Caller::new(observer.clone(), &settings.tls)?,
            tokens: Caller::for_tokens(observer, &settings.tls)?,
            settings: Arc::new(settings),
        })
    }

    /// A token provider for the same source.
    #[must_use]
    pub fn token_provider(&self) -> TokenProvider {
        TokenProvider::with(self.tokens.clone(), self.settings.auth.clone())
    }

    fn url(&self, version: ApiVersion, path: &[&str]) -> Url {
        let mut url = self.settings.api_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            let org = self.settings.org_id.as_str();
            segments
                .pop_if_empty()
                .extend(["via", version.as_str(), "organizations", org, "streaming"])
                .extend(path);
        }
        url
    }

    fn request(&self, method: Method, url: Url, access: &Access) -> RequestBuilder {
        self.caller
            .http
            .request(method, url)
            .timeout(CALL_TIMEOUT)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, access.bearer.clone())
            .header("x-api-key", access.api_key.clone())
    }

    fn in_session(
        &self,
        method: Method,
        url: Url,
        access: &Access,
        session: &SessionId,
        operation: Operation,
    ) -> Result<RequestBuilder, CallError> {
        let id = HeaderValue::from_str(session.as_str())
            .map_err(|_| unreadable(operation, "the session id cannot be sent in a header"))?;
        Ok(self.request(method, url, access).header("via-client-sessionid", id))
    }

    /// POST session (vendor document, "Create Streaming Session"). A v3 session asks for acknowledgement.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn create_session(&self, access: &Access) -> Result<GrantedSession, CallError> {
        let operation = Operation::SessionCreate;
        let (api, session) = (self.settings.api, &self.settings.session);
        let asked = session.inactivity_delay.as_secs();
        let request = self.request(Method::POST, self.url(api, &["session"]), access);
        let request = match api {
            ApiVersion::V3 => {
                request.json(&NewSessionV3 { inactivity_delay: asked, require_acknowledgement: true })
            }
            ApiVersion::V2 => {
                let asked = asked.to_string();
                let delay = SessionProperty { property_name: "inactivityDelay", property_value: &asked };
                let others = session.properties.iter().filter(|(name, _)| *name != "inactivityDelay");
                let others = others
                    .map(|(name, value)| SessionProperty { property_name: name, property_value: value });
                request.json(&std::iter::once(delay).chain(others).collect::<Vec<_>>())
            }
        };
        let answer = self.caller.call(operation, request, MAX_BODY, false).await?;
        let granted: SessionAnswer = json(operation, &answer)?;
        if granted.session_id.is_empty() {
            return Err(unreadable(operation, "the answer has an empty sessionId"));
        }
        Ok(GrantedSession {
            id: granted.session_id.as_str().into(),
            inactivity_delay: granted.delay().unwrap_or(session.inactivity_delay),
            acknowledges: api == ApiVersion::V3 && granted.require_acknowledgement != Some(false),
        })
    }

    /// DELETE session.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn delete_session(&self, access: &Access, session: &SessionId) -> Result<(), CallError> {
        let operation = Operation::SessionDelete;
        let url = self.url(self.settings.api, &["session"]);
        let request = self.in_session(Method::DELETE, url, access, session, operation)?;
        self.caller.call(operation, request, MAX_BODY, false).await.map(|_| ())
    }

    /// GET events: waits up to `poll_timeout` and 10 s more.
    pub(crate) async fn events(
        &self,
        access: &Access,
        session: &SessionId,
        max_events: u16,
    ) -> Result<EventsBody, CallError> {
        let operation = Operation::Events;
        let mut url = self.url(self.settings.api, &["events"]);
        url.query_pairs_mut().append_pair("maxEvents", &max_events.to_string());
        let request = self
            .in_session(Method::GET, url, access, session, operation)?
            .timeout(self.settings.session.poll_timeout + POLL_GRACE);
        let keep_torn = self.settings.api == ApiVersion::V2;
        let answer = self.caller.call(operation, request, MAX_EVENTS_BODY, keep_torn).await?;
        Ok(EventsBody { body: answer.body, torn: answer.torn })
    }

    /// POST acknowledge (v3).
    ///
    /// # Errors
    /// See [`FailureKind`]. Repeating it is safe.
    pub async fn acknowledge(
        &self,
        access: &Access,
        session: &SessionId,
        ids: &[Arc<str>],
    ) -> Result<AcknowledgeAnswer, CallError> {
        let operation = Operation::Acknowledge;
        let url = self.url(ApiVersion::V3, &["acknowledge"]);
        let events = ids.iter().map(|id| AcknowledgeEvent { event_id: id }).collect();
        let request = self
            .in_session(Method::POST, url, access, session, operation)?
            .json(&AcknowledgePayload { events });
        let answer = self.acknowledgements.call(operation, request, MAX_BODY, false).await?;
        if answer.status == 204 || answer.body.trim_ascii().is_empty() {
            return Ok(AcknowledgeAnswer { everything: true, ..AcknowledgeAnswer::default() });
        }
        let answer: AcknowledgeResponse<'_> = json(operation, &answer)?;
        Ok(answer.about(ids))
    }

    /// GET subscriptions of a session.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn list_subscriptions(
        &self,
        access: &Access,
        session: &SessionId,
    ) -> Result<Vec<ActualSubscription>, CallError> {
        let operation = Operation::SubscriptionList;
        let url = self.url(ApiVersion::V2, &["subscriptions"]);
        let request = self.in_session(Method::GET, url, access, session, operation)?;
        let answer = self.caller.call(operation, request, MAX_BODY, false).await?;
        if answer.status == 204 || answer.body.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        let list: WireList = json(operation, &answer)?;
        Ok(list.subscriptions.into_iter().map(Wire::into_actual).collect())
    }

    /// POST subscriptions.
    ///
    /// # Errors
    /// See [`FailureKind`]; [`FailureKind::Refused`] where the catalog type is not enabled.
    pub async fn create_subscription(
        &self,
        access: &Access,
        session: &SessionId,
        subscription: &Subscription,
    ) -> Result<(), CallError> {
        let operation = Operation::SubscriptionCreate;
        let url = self.url(ApiVersion::V2, &["subscriptions"]);
        let request = self.in_session(Method::POST, url, access, session, operation)?;
        let request = request.json(&Wire::declared(subscription));
        self.caller.call(operation, request, MAX_BODY, false).await.map(|_| ())
    }

    /// PUT subscriptions/{id}: replaces it, or creates it under this id.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn update_subscription(
        &self,
        access: &Access,
        session: &SessionId,
        id: &str,
        subscription: &Subscription,
    ) -> Result<(), CallError> {
        let operation = Operation::SubscriptionUpdate;
        let url = self.url(ApiVersion::V2, &["subscriptions", id]);
        let request = self.in_session(Method::PUT, url, access, session, operation)?;
        let request = request.json(&Wire::declared(subscription));
        self.caller.call(operation, request, MAX_BODY, false).await.map(|_| ())
    }

    /// Makes one change of a plan for `declared`; see [`crate::plan_subscriptions`].
    ///
    /// # Errors
    /// See [`FailureKind`]. A subscription that is to be deleted and is gone already is no error.
    pub async fn change_subscription(
        &self,
        access: &Access,
        session: &SessionId,
        declared: &[Subscription],
        change: &SubscriptionChange,
    ) -> Result<(), CallError> {
        match change {
            SubscriptionChange::Create(index) => {
                self.create_subscription(access, session, &declared[*index]).await
            }
            SubscriptionChange::Update(index, id) => {
                self.update_subscription(access, session, id, &declared[*index]).await
            }
            SubscriptionChange::Delete { id, .. } => {
                match self.delete_subscription(access, session, id).await {
                    Err(error) if error.kind == FailureKind::NotFound => Ok(()),
                    other => other,
                }
            }
        }
    }

    /// DELETE subscriptions/{id}.
    ///
    /// # Errors
    /// See [`FailureKind`].
    pub async fn delete_subscription(
        &self,
        access: &Access,
        session: &SessionId,
        id: &str,
    ) -> Result<(), CallError> {
        let operation = Operation::SubscriptionDelete;
        let url = self.url(ApiVersion::V2, &["subscriptions", id]);
        let request = self.in_session(Method::DELETE, url, access, session, operation)?;
        self.caller.call(operation, request, MAX_BODY, false).await.map(|_| ())
    }
}

impl fmt::Debug for VendorClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VendorClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn json<'a, T: Deserialize<'a>>(operation: Operation, answer: &'a Answer) -> Result<T, CallError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        unreadable(operation, &format!("the answer is not as documented ({:?})", error.classify()))
    })
}

fn unreadable(operation: Operation, detail: &str) -> CallError {
    CallError { operation, kind: FailureKind::Unreadable, retry_after: None, detail: detail.to_owned() }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSessionV3 {
    inactivity_delay: u64,
    require_acknowledgement: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionProperty<'a> {
    property_name: &'a str,
    property_value: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionAnswer {
    session_id: String,
    #[serde(default)]
    inactivity_delay: Option<serde_json::Value>,
    #[serde(default)]
    require_acknowledgement: Option<bool>,
}

impl SessionAnswer {
    /// Seconds; v2 knows the property as a string.
    fn delay(&self) -> Option<Duration> {
        let seconds = match self.inactivity_delay.as_ref()? {
            serde_json::Value::Number(number) => number.as_f64()?,
            serde_json::Value::String(text) => text.trim().parse().ok()?,
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok().filter(|delay| !delay.is_zero())
    }
}

#[derive(Serialize)]
struct AcknowledgePayload<'a> {
    events: Vec<AcknowledgeEvent<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AcknowledgeEvent<'a> {
    event_id: &'a str,
}

#[derive(Deserialize)]
struct AcknowledgeResponse<'a> {
    #[serde(default, borrow, rename = "eventIdsAcknowledged")]
    acknowledged: Option<Vec<AnsweredId<'a>>>,
    #[serde(default, borrow, rename = "eventIdsNotFound")]
    not_found: Option<Vec<AnsweredId<'a>>>,
}

/// Borrowed where it has no escapes.
#[derive(Deserialize)]
struct AnsweredId<'a>(#[serde(borrow)] Cow<'a, str>);

impl AcknowledgeResponse<'_> {
    /// What it says of `ids`, which were asked for.
    fn about(self, ids: &[Arc<str>]) -> AcknowledgeAnswer {
        let acknowledged = self.acknowledged.unwrap_or_default();
        let not_found = self.not_found.unwrap_or_default();
        // Nearly always: no set is needed then.
        let everything =
            not_found.is_empty() && acknowledged.iter().map(|id| &*id.0).eq(ids.iter().map(|id| &**id));
        if everything {
            return AcknowledgeAnswer { everything, ..AcknowledgeAnswer::default() };
        }
        let set = |ids: Vec<AnsweredId<'_>>| ids.into_iter().map(|id| id.0.into_owned()).collect();
        AcknowledgeAnswer { everything, acknowledged: set(acknowledged), not_found: set(not_found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> AcknowledgeAnswer {
        let ids: [Arc<str>; 2] = ["1-0".into(), "1-\"1".into()];
        serde_json::from_str::<AcknowledgeResponse<'_>>(text).unwrap().about(&ids)
    }

    #[test]
    fn an_answer_says_of_each_id_what_it_names() {
        let all = answer(r#"{"eventIdsAcknowledged":["1-0","1-\"1"],"eventIdsNotFound":[]}"#);
        assert!(all.everything && all.verdict("1-0") == Some(true));
        let turned = answer(r#"{"eventIdsAcknowledged":["1-\"1","1-0"]}"#);
        assert_eq!(["1-0", "1-\"1"].map(|id| turned.verdict(id)), [Some(true); 2]);
        let some = answer(r#"{"eventIdsAcknowledged":["1-0"],"eventIdsNotFound":["1-\"1"]}"#);
        assert_eq!(["1-0", "1-\"1"].map(|id| some.verdict(id)), [Some(true), Some(false)]);
        let none = answer("{}");
        assert_eq!(["1-0", "1-\"1"].map(|id| none.verdict(id)), [None; 2]);
        let odd = answer(r#"{"eventIdsAcknowledged":["1-0","1-\"1"],"eventIdsNotFound":["1-0"]}"#);
        assert_eq!(odd.verdict("1-0"), Some(true));
    }
}
