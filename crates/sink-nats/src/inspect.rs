//! Asks servers what a sink would find there, and changes nothing: no stream is created, no message is published.
//!
//! What the connection's user may do, the server tells by itself (`$SYS.REQ.USER.INFO`, nats-server 2.10 and later).

use std::time::Duration;

use async_nats::jetstream::context::RequestErrorKind;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, ConnectErrorKind};
use serde::Deserialize;
use serde_json::json;

use crate::epoch::options;
use crate::exactly_once::checkpoint;
use crate::settings::{Checked, NatsSettings, NatsSinkError};
use crate::stream::{self, InspectError, StreamReport};
use crate::subject::{covers, overlaps};

/// How long the answer about the user may take. Where it is not permitted to ask, none comes.
const USER_INFO: Duration = Duration::from_secs(2);
/// How long saying goodbye may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Looks into servers with the settings of a sink.
#[derive(Debug)]
pub struct Inspector {
    checked: Checked,
}

/// A server that lets this sink in.
#[derive(Debug)]
pub struct Connected {
    client: Client,
    stream: String,
}

/// Why a server does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoServer {
    /// Whether it answers and refuses the credentials.
    pub refuses_credentials: bool,
    /// A sentence for a person.
    pub reason: String,
}

/// What a server tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The cluster that it belongs to.
    pub cluster: Option<String>,
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
    /// Whether it knows atomic batches (2.12).
    pub knows_atomic_batches: bool,
}

/// What an account has of JetStream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountFacts {
    /// Streams, and the most that are allowed.
    pub streams: (usize, Option<u64>),
    /// Bytes on disk, and the most that are allowed.
    pub storage: (u64, Option<u64>),
}

/// Whether the user may publish to a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayPublish {
    /// To all that it names.
    Yes,
    /// To some of what it names.
    Partly,
    /// To none.
    No,
}

/// The user's permissions to publish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Permissions {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    deny: Vec<String>,
}

impl Permissions {
    /// Whether `subject`, wildcards allowed, may be published to.
    #[must_use]
    pub fn publish(&self, subject: &str) -> MayPublish {
        let names = |list: &[String], test: fn(&str, &str) -> bool| list.iter().any(|one| test(one, subject));
        let is_allowed = self.allow.is_empty() || names(&self.allow, covers);
        if names(&self.deny, covers) || !(is_allowed || names(&self.allow, overlaps)) {
            MayPublish::No
        } else if !is_allowed || names(&self.deny, overlaps) {
            MayPublish::Partly
        } else {
            MayPublish::Yes
        }
    }
}

#[derive(Deserialize)]
struct UserAnswer {
    data: Option<User>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    permissions: Option<UserPermissions>,
}

#[derive(Deserialize)]
struct UserPermissions {
    #[serde(default)]
    publish: Option<Permissions>,
}

#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    streams: Option<Vec<String>>,
}

impl Inspector {
    /// Checks the settings.
    ///
    /// # Errors
    /// What is wrong with them; nothing that a server would have to say.
    pub fn new(settings: NatsSettings) -> Result<Self, NatsSinkError> {
        Ok(Self { checked: settings.check()? })
    }

    /// The settings, with the subjects of the checkpoints.
    #[must_use]
    pub fn settings(&self) -> &NatsSettings {
        &self.checked.settings
    }

    /// The subjects of the checkpoints, where delivery is exactly once.
    #[must_use]
    pub fn checkpoints(&self) -> Option<String> {
        self.checked.settings.exactly_once.as_ref().map(checkpoint::filter)
    }

    /// The servers, as `host:port`.
    pub fn servers(&self) -> impl Iterator<Item = String> {
        self.checked.servers.iter().map(|server| format!("{}:{}", server.host(), server.port()))
    }

    /// Connects to the server of this position.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    pub async fn connect(&self, server: usize) -> Result<Connected, NoServer> {
        let unusable = |reason| NoServer { refuses_credentials: false, reason };
        let Some(address) = self.checked.servers.get(server) else {
            return Err(unusable("there is no such server".to_owned()));
        };
        let options =
            options(&self.checked).map_err(|reason| NoServer { refuses_credentials: true, reason })?;
        let client = options.connect(address.clone()).await.map_err(|error| NoServer {
            refuses_credentials: matches!(
                error.kind(),
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation
            ),
            reason: error.to_string(),
        })?;
        Ok(Connected { client, stream: self.checked.settings.stream.clone() })
    }
}

impl Connected {
    /// What the server tells of itself.
    #[must_use]
    pub fn server(&self) -> ServerFacts {
        let info = self.client.server_info();
        ServerFacts {
            name: info.server_name,
            knows_atomic_batches: stream::at_least(&info.version, 2, 12),
            version: info.version,
            cluster: info.cluster,
            max_payload: info.max_payload,
        }
    }

    /// What the user may publish to; `None`: the server does not tell.
    pub async fn permissions(&self) -> Option<Permissions> {
        let asked = self.client.request("$SYS.REQ.USER.INFO", "".into());
        let answer = tokio::time::timeout(USER_INFO, asked).await.ok()?.ok()?;
        let user = serde_json::from_slice::<UserAnswer>(&answer.payload).ok()?.data?;
        Some(user.permissions.and_then(|permissions| permissions.publish).unwrap_or_default())
    }

    /// What the account has of JetStream.
    ///
    /// # Errors
    /// JetStream is not enabled, does not answer, or the user may not ask.
    pub async fn account(&self) -> Result<AccountFacts, InspectError> {
        match jetstream::new(self.client.clone()).query_account().await {
            Ok(account) => {
                let limit = |limit: Option<i64>| {
                    limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0)
                };
                Ok(AccountFacts {
                    streams: (account.streams, limit(account.limits.max_streams)),
                    storage: (account.storage, limit(account.limits.max_storage)),
                })
            }
            Err(error) => Err(match error.kind() {
                jetstream::context::AccountErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
                        || error.error_code() == ErrorCode::JETSTREAM_NOT_ENABLED =>
                {
                    InspectError::Absent("JetStream".to_owned())
                }
                jetstream::context::AccountErrorKind::JetStreamUnavailable => {
                    InspectError::Absent("JetStream".to_owned())
                }
                _ => InspectError::Unreachable(error.to_string()),
            }),
        }
    }

    /// Describes the stream.
    ///
    /// # Errors
    /// There is none, or there is no answer.
    pub async fn stream(&self) -> Result<StreamReport, InspectError> {
        stream::inspect(&self.client, &self.stream).await
    }

    /// The streams, other than the sink's, that hold some of what this subject names: one subject stands in one stream.
    ///
    /// # Errors
    /// No answer.
    pub async fn other_holders(&self, subject: &str) -> Result<Vec<String>, String> {
        let context = jetstream::new(self.client.clone());
        let body = json!({ "subject": subject });
        let answer: Result<Response<Names>, _> = context.request("STREAM.NAMES".to_owned(), &body).await;
        match answer {
            Ok(Response::Ok(names)) => {
                let others = names.streams.unwrap_or_default().into_iter();
                Ok(others.filter(|name| *name != self.stream).collect())
            }
            Ok(Response::Err { error }) => Err(error.to_string()),
            Err(error) if error.kind() == RequestErrorKind::TimedOut => Err("no answer in time".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Ends the connection.
    pub async fn close(self) {
        // There is nothing on its way that could be lost.
        let _ = tokio::time::timeout(FAREWELL, self.client.drain()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_read_as_the_server_reads_them() {
        let list = |subjects: &[&str]| subjects.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let permissions =
            |allow: &[&str], deny: &[&str]| Permissions { allow: list(allow), deny: list(deny) };
        assert_eq!(permissions(&[], &[]).publish("via.>"), MayPublish::Yes);
        assert_eq!(permissions(&["via.>"], &[]).publish("via.acme.>"), MayPublish::Yes);
        assert_eq!(permissions(&["via.acme.>"], &[]).publish("via.>"), MayPublish::Partly);
        assert_eq!(permissions(&["other.>"], &[]).publish("via.>"), MayPublish::No);
        assert_eq!(permissions(&[], &["via.acme.chat"]).publish("via.>"), MayPublish::Partly);
        assert_eq!(permissions(&[], &["via.>"]).publish("via.acme.>"), MayPublish::No);
    }
}
