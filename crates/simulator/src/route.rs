//! Which operation a request asks for. Vendor document, sections "Session", "Events", "Acknowledge" and "Subscription".

use axum::http::Method;

use crate::fault::Operation;
use crate::session::Version;

/// What a method and a path mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) operation: Operation,
    /// Of the API; the token endpoint has none and counts as V3.
    pub(crate) version: Version,
    /// Empty for the token endpoint.
    pub(crate) org: String,
    pub(crate) subscription: Option<String>,
}

/// Why a method and a path mean nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoTarget {
    NotFound,
    /// The path exists, with these methods.
    MethodNotAllowed(&'static str),
}

pub(crate) const TOKEN_PATH: &str = "/tokenservice/oauth2/access_token";

impl Target {
    pub(crate) fn of(method: &Method, path: &str) -> Result<Self, NoTarget> {
        use Operation as Op;
        let target = |operation, version, org: &str, subscription: Option<&str>| Self {
            operation,
            version,
            org: org.to_owned(),
            subscription: subscription.map(str::to_owned),
        };
        if path == TOKEN_PATH {
            return match *method {
                Method::POST => Ok(target(Op::Token, Version::V3, "", None)),
                _ => Err(NoTarget::MethodNotAllowed("POST")),
            };
        }
        let segments: Vec<&str> = path.strip_prefix("/via/").unwrap_or_default().split('/').collect();
        let (version, org, rest) = match segments[..] {
            ["v2", "organizations", org, "streaming", ref rest @ ..] => (Version::V2, org, rest),
            ["v3", "organizations", org, "streaming", ref rest @ ..] => (Version::V3, org, rest),
            _ => return Err(NoTarget::NotFound),
        };
        let (allowed, operation, subscription) = match (version, rest, method) {
            (_, ["session"], &Method::POST) => ("", Op::SessionCreate, None),
            (_, ["session"], &Method::DELETE) => ("", Op::SessionDelete, None),
            (_, ["session"], _) => ("POST, DELETE", Op::SessionCreate, None),
            (_, ["events"], &Method::GET) => ("", Op::Events, None),
            (_, ["events"], _) => ("GET", Op::Events, None),
            (Version::V3, ["acknowledge"], &Method::POST) => ("", Op::Acknowledge, None),
            (Version::V3, ["acknowledge"], _) => ("POST", Op::Acknowledge, None),
            // Subscriptions exist under the V2 paths only.
            (Version::V2, ["subscriptions"], &Method::POST) => ("", Op::SubscriptionCreate, None),
            (Version::V2, ["subscriptions"], &Method::GET) => ("", Op::SubscriptionList, None),
            (Version::V2, ["subscriptions"], _) => ("POST, GET", Op::SubscriptionList, None),
            (Version::V2, ["subscriptions", id], _) if !id.is_empty() => match *method {
                Method::GET => ("", Op::SubscriptionGet, Some(*id)),
                Method::PUT => ("", Op::SubscriptionUpdate, Some(*id)),
                Method::DELETE => ("", Op::SubscriptionDelete, Some(*id)),
                _ => ("GET, PUT, DELETE", Op::SubscriptionGet, None),
            },
            _ => return Err(NoTarget::NotFound),
        };
        match allowed {
            "" => Ok(target(operation, version, org, subscription)),
            methods => Err(NoTarget::MethodNotAllowed(methods)),
        }
    }
}
