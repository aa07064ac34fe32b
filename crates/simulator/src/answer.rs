//! Answers, before they are sent: whole, so that a fault can still spoil them.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::json;

use crate::journal::RowNumber;
use crate::polling::GetUnderWay;

pub(crate) const INVALID_SESSION: &str = "Invalid or expired session";

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// The events in it that nobody holds any more: if the answer is destroyed, they are lost.
    pub(crate) consumed: Vec<RowNumber>,
    /// The GET /events that it answers.
    pub(crate) under_way: Option<GetUnderWay>,
}

/// Why there is nothing but an error to answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::error(refusal.status, &refusal.message)
    }
}

impl Answer {
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            content_type: "",
            body: Vec::new(),
            headers: Vec::new(),
            consumed: Vec::new(),
            under_way: None,
        }
    }

    pub(crate) fn json(status: StatusCode, body: impl Into<Vec<u8>>) -> Self {
        Self { content_type: "application/json", body: body.into(), ..Self::empty(status) }
    }

    /// An error as the document describes it: schema ErrorResponse, except for 401, which it lists with the schema None.
    pub(crate) fn error(status: StatusCode, message: &str) -> Self {
        if status == StatusCode::UNAUTHORIZED {
            return Self::empty(status);
        }
        let reason = status.canonical_reason().unwrap_or("Error");
        let body = json!({
            "code": status.as_u16(),
            "message": message,
            "errors": [{ "scope": "streaming", "reason": reason, "message": message }],
        });
        Self::json(status, body.to_string())
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn method_not_allowed(methods: &'static str) -> Self {
        let mut answer = Self::error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        answer.headers.push((ALLOW, HeaderValue::from_static(methods)));
        answer
    }

    /// As an HTTP response with this body in place of its own, which must be of the same length, or end in an error.
    pub(crate) fn with_body(self, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if !self.content_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        if self.status != StatusCode::NO_CONTENT {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        headers.extend(self.headers);
        response
    }

    pub(crate) fn into_response(mut self) -> Response {
        if let Some(mut under_way) = self.under_way.take() {
            under_way.finish();
        }
        let body = Body::from(std::mem::take(&mut self.body));
        let length = axum::body::HttpBody::size_hint(&body).exact().unwrap_or(0);
        let mut response = self.with_body(body);
        if response.headers().contains_key(CONTENT_LENGTH) {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}
