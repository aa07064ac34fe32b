//! What a failed call means. The place that meets an error classifies it once; nobody matches texts later.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::observe::Operation;

/// A call to the vendor that failed. `Display` is a sentence without secrets and payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallError {
    /// What was tried.
    pub operation: Operation,
    /// What it means.
    pub kind: FailureKind,
    /// The vendor's wish to be left alone for a while (`Retry-After`); it counts for every call of the source.
    pub retry_after: Option<Duration>,
    /// What was answered or what broke.
    pub detail: String,
}

impl std::error::Error for CallError {}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FailureKind::Credentials => "the vendor refuses the credentials",
            FailureKind::Forbidden => "the vendor does not allow it to these credentials",
            _ => "failed",
        };
        write!(f, "{}: {what}: {}", self.operation.as_str(), self.detail)
    }
}

/// The decision that a failure carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// "Invalid or expired session": the id is dead for ever (vendor document, "API Client Implementation
    /// Recommendations").
    Expired,
    /// 401: the token is no longer accepted.
    Unauthorized,
    /// 403: the credentials are not allowed to do this.
    Forbidden,
    /// 404: the vendor does not know the path or the session.
    NotFound,
    /// Another 4xx, or a redirect: the same request will hardly do better.
    Refused,
    /// 429.
    Throttled,
    /// 5xx.
    Server,
    /// The connection broke while a request was under way: perhaps an old keep-alive connection.
    Broken,
    /// No connection could be made.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The answer makes no sense (not JSON, cut, the wrong shape).
    Unreadable,
    /// The answer is larger than the limit.
    TooLarge,
    /// The token endpoint said that the client or its secret is wrong.
    Credentials,
    /// A secret could not be read.
    Secret,
    /// The v2 spool could not be written or read.
    Spool,
}

impl FailureKind {
    /// A label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "session_expired",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Server => "server_error",
            Self::Broken => "connection_broken",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timeout",
            Self::Unreadable => "unreadable",
            Self::TooLarge => "too_large",
            Self::Credentials => "credentials",
            Self::Secret => "secret",
            Self::Spool => "spool",
        }
    }
}

/// Longest `Retry-After` that is obeyed: a nonsensical value must not silence a source for days.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Reads `Retry-After`, seconds or an HTTP date (RFC 9110, section 10.2.3).
///
/// A date is compared with the answer's own `Date`, so that a wrong clock on this machine does no harm; without one,
/// with `now`.
pub(crate) fn retry_after(value: &str, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// Whether an error message says that the session is gone; lenient, because only the words are documented.
pub(crate) fn says_expired(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("session") && (message.contains("invalid") || message.contains("expired"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let now = httpdate::parse_http_date("Tue, 30 Jan 2018 14:04:20 GMT").unwrap();
        assert_eq!(retry_after("7", None, now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(" 0 ", None, now), Some(Duration::ZERO));
        assert_eq!(retry_after("Tue, 30 Jan 2018 14:04:29 GMT", None, now), Some(Duration::from_secs(9)));
        assert_eq!(
            retry_after("Tue, 30 Jan 2018 14:04:29 GMT", Some("Tue, 30 Jan 2018 14:04:27 GMT"), now),
            Some(Duration::from_secs(2))
        );
        assert_eq!(retry_after("Tue, 30 Jan 2018 14:00:00 GMT", None, now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", None, now), None);
        assert_eq!(retry_after("99999999999", None, now), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn the_expired_message_is_recognised_in_every_case() {
        for message in ["Invalid or expired session", "invalid or expired session.", "Session EXPIRED"] {
            assert!(says_expired(message), "{message}");
        }
        for message in ["maxEvents is invalid", "Bad Request", ""] {
            assert!(!says_expired(message), "{message}");
        }
    }
}
