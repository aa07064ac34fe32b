//! Settings: what a caller gives, and the checked form that the rest of this crate works with.
//!
//! Whatever can be known to be wrong without a server is a [`NatsSinkError`] here. Past `check` nothing
//! is a mistake any more, only a server that is not there yet.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use rustls::client::danger::ServerCertVerifier;
use secrecy::{ExposeSecret, SecretString};
use viaduct_sink::Identity;

use crate::exactly_once::checkpoint;
use crate::subject;

/// A secret which is asked for again at every connection, so that a rotated one is picked up without a restart.
#[derive(Clone)]
pub struct Secret(Arc<dyn Fn() -> Result<SecretString, String> + Send + Sync>);

impl Secret {
    /// One that never changes.
    pub fn fixed(secret: impl Into<SecretString>) -> Self {
        let secret = secret.into();
        Self(Arc::new(move || Ok(secret.clone())))
    }

    /// One that is read anew for each connection. The error says where it should have been, never what was there.
    pub fn reading(read: impl Fn() -> Result<SecretString, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Its present value, without the line end that text files have.
    pub(crate) fn read(&self) -> Result<SecretString, String> {
        (self.0)().map(|secret| SecretString::from(secret.expose_secret().trim_end_matches(['\r', '\n'])))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How the connection proves itself.
#[derive(Debug, Clone, Default)]
pub enum NatsAuth {
    /// It does not.
    #[default]
    None,
    /// The text of a `.creds` file: a user's JSON Web Token and its nkey seed.
    Credentials(Secret),
    /// A `.creds` file, read again at every connection.
    CredentialsFile(PathBuf),
    /// The seed of an nkey.
    Nkey(Secret),
    /// User and password.
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token.
    Token(Secret),
}

/// Transport security. A `tls://` URL and a server that demands TLS turn it on too.
#[derive(Debug, Clone, Default)]
pub struct NatsTls {
    /// Refuse servers without TLS.
    pub required: bool,
    /// Start TLS before the server's greeting (`handshake_first` in the server's configuration).
    pub first: bool,
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub authorities: Option<PathBuf>,
    /// PEM files of the client's certificate chain and of its private key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Judges the server's certificate in place of authorities, if there is one.
    pub verifier: Option<Arc<dyn ServerCertVerifier>>,
}

/// Where a stream that this sink creates keeps its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory: gone with the server.
    Memory,
}

/// Settings of a NATS sink.
#[derive(Debug, Clone)]
pub struct NatsSettings {
    /// The connection's name, as the server's monitoring shows it.
    pub name: String,
    /// The servers, `nats://host:port` or `tls://host:port`, without credentials. Servers of the same cluster that
    /// they tell of are used too.
    pub urls: Vec<String>,
    /// How the connection proves itself.
    pub auth: NatsAuth,
    /// Transport security.
    pub tls: NatsTls,
    /// What the subjects start with on which answers arrive; `None`: `_INBOX`. For accounts whose users may subscribe
    /// to nothing but an inbox of their own.
    pub inbox_prefix: Option<String>,
    /// The stream that holds every subject of this sink; each record says that it expects this one.
    pub stream: String,
    /// Whether a missing stream is created and missing subjects are added to it. Otherwise it is verified only.
    pub create_stream: bool,
    /// The subjects that the stream has to cover, wildcards allowed (`via.>`). Needed where `create_stream` is set.
    pub subjects: Vec<String>,
    /// Replicas of a created stream, 1 to 5.
    pub replicas: usize,
    /// Storage of a created stream.
    pub storage: Storage,
    /// Publish nothing to a stream that is less durable than the guarantee assumes.
    pub require_durable: bool,
    /// How long the server may leave a record without an answer before the connection counts as broken.
    pub ack_timeout: Duration,
    /// How many records of one batch may be without an answer at a time, where delivery is at least once.
    pub window: usize,
    /// Who publishes, where delivery is exactly once. The stream has to allow atomic batches and rollups then, and the
    /// subjects of the checkpoints are added to `subjects`.
    pub exactly_once: Option<Identity>,
}

impl NatsSettings {
    /// The usual settings for these servers and this stream.
    pub fn new(urls: Vec<String>, stream: impl Into<String>) -> Self {
        Self {
            name: "viaduct".to_owned(),
            urls,
            auth: NatsAuth::None,
            tls: NatsTls::default(),
            inbox_prefix: None,
            stream: stream.into(),
            create_stream: false,
            subjects: Vec::new(),
            replicas: 1,
            storage: Storage::File,
            require_durable: false,
            ack_timeout: Duration::from_secs(5),
            window: 256,
            exactly_once: None,
        }
    }

    /// Checks everything that can be checked without a server.
    pub(crate) fn check(mut self) -> Result<Checked, NatsSinkError> {
        if self.urls.is_empty() {
            return Err(NatsSinkError::NoUrl);
        }
        let servers = self.urls.iter().map(|url| server(url)).collect::<Result<Vec<_>, _>>()?;
        if !subject::is_stream_name(&self.stream) {
            return Err(NatsSinkError::StreamName(self.stream));
        }
        if let Some(identity) = &self.exactly_once {
            let names = identity.sources.iter().map(|member| &*member.source);
            let names = names.chain([&*identity.bridge, &*identity.sink]);
            if let Some(wrong) = { names }.find(|name| name.contains('.') || subject::fault(name).is_some()) {
                return Err(NatsSinkError::Identity(wrong.to_owned()));
            }
        }
        if self.create_stream && self.subjects.is_empty() {
            return Err(NatsSinkError::NoSubjects);
        }
        if let Some(wrong) = self.subjects.iter().find(|filter| !subject::is_filter(filter)) {
            return Err(NatsSinkError::Subject(wrong.clone()));
        }
        if let Some(wrong) = self.inbox_prefix.as_ref().filter(|prefix| subject::fault(prefix).is_some()) {
            return Err(NatsSinkError::InboxPrefix(wrong.clone()));
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(NatsSinkError::Replicas(self.replicas));
        }
        if self.window == 0 || self.ack_timeout.is_zero() {
            return Err(NatsSinkError::Window);
        }
        let tls_required = self.tls.required || servers.iter().any(ServerAddr::tls_required);
        let client = self.tls.client.iter().flat_map(|(certificate, key)| [certificate, key]);
        for file in self.tls.authorities.iter().chain(client) {
            pem(file)?;
        }
        check_auth(&self.auth)?;
        if let Some(identity) = &self.exactly_once {
            let checkpoints = checkpoint::filter(identity);
            if !self.subjects.iter().any(|filter| subject::covers(filter, &checkpoints)) {
                self.subjects.push(checkpoints);
            }
        }
        Ok(Checked { servers, tls_required, settings: self })
    }
}

fn server(url: &str) -> Result<ServerAddr, NatsSinkError> {
    // The URL's text stays out of the error: it may carry a password.
    let server: ServerAddr = url.trim().parse().map_err(|_| NatsSinkError::Url)?;
    if server.has_user_pass() || server.password().is_some() {
        return Err(NatsSinkError::UrlWithCredentials);
    }
    if server.is_websocket() || server.host().is_empty() {
        return Err(NatsSinkError::Url);
    }
    Ok(server)
}

fn pem(file: &Path) -> Result<(), NatsSinkError> {
    let fault = |reason: String| NatsSinkError::TlsFile { file: file.to_owned(), reason };
    let text = std::fs::read(file).map_err(|error| fault(error.to_string()))?;
    match text.windows(11).any(|window| window == b"-----BEGIN ") {
        true => Ok(()),
        false => Err(fault("it holds no PEM block".to_owned())),
    }
}

fn check_auth(auth: &NatsAuth) -> Result<(), NatsSinkError> {
    let read = |secret: &Secret| secret.read().map_err(NatsSinkError::Secret);
    match auth {
        NatsAuth::None => Ok(()),
        NatsAuth::UserPassword { password: secret, .. } | NatsAuth::Token(secret) => read(secret).map(drop),
        NatsAuth::Nkey(seed) => match nkeys::KeyPair::from_seed(read(seed)?.expose_secret()) {
            Ok(_) => Ok(()),
            Err(_) => Err(NatsSinkError::Nkey),
        },
        NatsAuth::Credentials(text) => check_credentials(read(text)?.expose_secret()),
        NatsAuth::CredentialsFile(file) => match std::fs::read_to_string(file) {
            Ok(text) => check_credentials(&text),
            Err(error) => Err(NatsSinkError::Secret(format!("{}: {error}", file.display()))),
        },
    }
}

fn check_credentials(text: &str) -> Result<(), NatsSinkError> {
    with_credentials(ConnectOptions::new(), text).map(drop).ok_or(NatsSinkError::Credentials)
}

/// Adds the text of a `.creds` file; `None` where it is not one. Its last line has to have an end, which a secret's
/// text has lost.
pub(crate) fn with_credentials(options: ConnectOptions, text: &str) -> Option<ConnectOptions> {
    options.credentials(&format!("{}\n", text.trim_end())).ok()
}

/// Settings without mistakes.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) settings: NatsSettings,
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) tls_required: bool,
}

/// A mistake in the settings. A server that is away is never one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NatsSinkError {
    /// No URL.
    #[error("no NATS server is given")]
    NoUrl,
    /// Not a NATS URL.
    #[error("a NATS server must be given as nats://host:port or tls://host:port")]
    Url,
    /// Credentials in the URL, where they would show up in logs.
    #[error("a NATS URL must not carry user or password; use the settings for credentials")]
    UrlWithCredentials,
    /// Not a name that a stream can have.
    #[error("{0:?} cannot be the name of a stream: no whitespace, '.', '*', '>', '/' or '\\'")]
    StreamName(String),
    /// A stream cannot be created without subjects.
    #[error("a stream can only be created with the subjects that it is to hold")]
    NoSubjects,
    /// Not a token of a subject, as checkpoints need it.
    #[error(
        "{0:?} cannot name a bridge, a sink or a source with exactly-once delivery: letters, digits, '_' and '-'"
    )]
    Identity(String),
    /// Not a subject.
    #[error("{0:?} is not a NATS subject")]
    Subject(String),
    /// Not a subject prefix.
    #[error("{0:?} cannot be the prefix of an inbox")]
    InboxPrefix(String),
    /// JetStream takes 1 to 5.
    #[error("a stream has 1 to 5 replicas, not {0}")]
    Replicas(usize),
    /// A window or time-out of nothing.
    #[error("the window and the acknowledgement time-out must be greater than 0")]
    Window,
    /// A secret cannot be read.
    #[error("a NATS secret cannot be read: {0}")]
    Secret(String),
    /// Not the text of a `.creds` file.
    #[error("the NATS credentials are not the text of a .creds file")]
    Credentials,
    /// Not a seed.
    #[error("the NATS nkey is not a seed (it starts with SU)")]
    Nkey,
    /// A TLS file that cannot be used.
    #[error("TLS file {file}: {reason}", file = file.display())]
    TlsFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> NatsSettings {
        NatsSettings::new(vec!["nats://127.0.0.1:4222".to_owned()], "VIA")
    }

    fn fault(change: impl FnOnce(&mut NatsSettings)) -> NatsSinkError {
        let mut settings = settings();
        change(&mut settings);
        settings.check().expect_err("the mistake was not seen")
    }

    #[test]
    fn mistakes_are_seen_without_a_server() {
        assert!(settings().check().is_ok());
        assert_eq!(fault(|s| s.urls.clear()), NatsSinkError::NoUrl);
        assert_eq!(fault(|s| s.urls = vec!["http://x".to_owned()]), NatsSinkError::Url);
        assert_eq!(fault(|s| s.stream = "a.b".to_owned()), NatsSinkError::StreamName("a.b".to_owned()));
        assert_eq!(fault(|s| s.create_stream = true), NatsSinkError::NoSubjects);
        assert_eq!(
            fault(|s| s.subjects = vec!["via..x".to_owned()]),
            NatsSinkError::Subject("via..x".to_owned())
        );
        assert_eq!(fault(|s| s.replicas = 6), NatsSinkError::Replicas(6));
        assert_eq!(fault(|s| s.window = 0), NatsSinkError::Window);
        assert_eq!(fault(|s| s.auth = NatsAuth::Nkey(Secret::fixed("no"))), NatsSinkError::Nkey);
        assert_eq!(
            fault(|s| s.auth = NatsAuth::Credentials(Secret::fixed("no"))),
            NatsSinkError::Credentials
        );
        assert!(matches!(
            fault(|s| s.tls.authorities = Some("/nowhere/ca.pem".into())),
            NatsSinkError::TlsFile { .. }
        ));
    }

    #[test]
    fn no_secret_shows() {
        let error = fault(|s| s.urls = vec!["nats://bob:canary@127.0.0.1".to_owned()]);
        assert_eq!(error, NatsSinkError::UrlWithCredentials);
        let mut settings = settings();
        settings.auth = NatsAuth::Token(Secret::fixed("canary"));
        assert!(!format!("{settings:?} {error} {error:?}").contains("canary"));
    }
}
