//! One connection, from its beginning to its first failure: an epoch.
//!
//! async-nats reconnects by itself and then sends whatever publishes it still holds. That would put records of before
//! the outage behind or between records of after it. So its reconnecting is taken away: right after connecting, the
//! client's pool of servers is replaced by an address that nothing can be reached at, and one failed attempt ends the
//! client. An epoch that broke is over; what it did not see confirmed is offered again, in order, to the next epoch.
//!
//! A record of an old epoch may still be under way to the server (in a socket's buffer, while the server is frozen)
//! when the next epoch sends it again. That does not harm the order: both copies travel in the same order, the older
//! sequence without a gap, and merging two sequences of equal order keeps the order in which each record *first*
//! appears. `Nats-Msg-Id` lets the server drop the second ones.
//!
//! Answers come back over one wildcard subscription, `<inbox>.*`; the last token names the batch and the record. A
//! batch is registered here while it publishes and leaves nothing behind when it ends, answered or not.
//!
//! ```text
//!  batch 7 ── via.x, reply _INBOX.u.7-0 ──▶ server ── PubAck to _INBOX.u.7-0 ──▶ reader ── (0, PubAck) ──▶ batch 7
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, Message, PublishError, PublishErrorKind, ServerAddr,
    ServerError, Subject, Subscriber,
};
use bytes::Bytes;
use futures_util::StreamExt;
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::settings::{Checked, NatsAuth, with_credentials};
use crate::tls::judged_by;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that answers nothing is given up after the third ping without a pong.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Nothing listens there.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// What a batch hears of its records.
#[derive(Debug)]
pub(crate) enum Note {
    /// The answer to the record at this index.
    Answer(usize, Message),
    /// The server does not permit publishing to this subject. Such a record gets no answer of its own.
    Denied(Arc<str>),
}

/// Why a record did not leave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SendError {
    /// Larger than the server takes.
    TooLarge,
    /// The client does not take this subject.
    Subject,
    /// The epoch is over.
    Broken,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Epoch {
    client: Client,
    inbox: String,
    line: Arc<Line>,
}

/// What the epoch, its reader and the client's events share. It does not hold the client, so that the client ends with
/// the epoch.
#[derive(Debug)]
struct Line {
    calls: Mutex<Calls>,
    broken: CancellationToken,
    api_denied: CancellationToken,
    /// Subjects that may not be published to, and when the server last said so.
    denials: Mutex<HashMap<Arc<str>, Instant>>,
    /// A record was answered.
    useful: AtomicBool,
    reason: Mutex<Option<String>>,
}

#[derive(Debug, Default)]
struct Calls {
    next: u64,
    open: HashMap<u64, mpsc::UnboundedSender<Note>>,
}

impl Epoch {
    /// Connects to `server`. The error is a sentence for a person, without secrets.
    pub(crate) async fn open(checked: &Checked, server: &ServerAddr) -> Result<Self, String> {
        let line = Arc::new(Line {
            calls: Mutex::default(),
            broken: CancellationToken::new(),
            api_denied: CancellationToken::new(),
            denials: Mutex::default(),
            useful: AtomicBool::new(false),
            reason: Mutex::default(),
        });
        let listener = line.clone();
        let options = options(checked)?.event_callback(move |event| {
            listener.hear(&event);
            std::future::ready(())
        });
        let client = options
            .connect(server.clone())
            .await
            .map_err(|error| format!("cannot connect to {}:{}: {error}", server.host(), server.port()))?;
        let over = |error: &dyn std::fmt::Display| format!("the connection broke at once: {error}");
        let nowhere: ServerAddr = NOWHERE.parse().map_err(|error| over(&error))?;
        client.set_server_pool(vec![nowhere]).await.map_err(|error| over(&error))?;
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await.map_err(|error| over(&error))?;
        tokio::spawn(line.clone().read(answers));
        Ok(Self { client, inbox, line })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Completes when the epoch is over.
    pub(crate) async fn broken(&self) {
        self.line.broken.cancelled().await;
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.line.broken.is_cancelled()
    }

    /// Whether any record was answered over it.
    pub(crate) fn was_useful(&self) -> bool {
        self.line.useful.load(Ordering::Relaxed)
    }

    /// Ends the epoch; the first reason stays.
    pub(crate) fn end(&self, reason: impl Into<String>) {
        self.line.end(reason.into());
    }

    /// Why it ended.
    pub(crate) fn reason(&self) -> String {
        lock(&self.line.reason).clone().unwrap_or_else(|| "the connection to the server broke".to_owned())
    }

    /// Completes when the server turns out not to permit requests to JetStream's interface.
    pub(crate) async fn api_denied(&self) {
        self.line.api_denied.cancelled().await;
    }

    /// Whether the server has said since then that it does not permit publishing to this subject.
    pub(crate) fn denied_since(&self, subject: &str, since: Instant) -> bool {
        lock(&self.line.denials).get(subject).is_some_and(|at| *at >= since)
    }

    /// Registers a batch until the value is dropped.
    pub(crate) fn register(self: &Arc<Self>) -> Call {
        let (sender, notes) = mpsc::unbounded_channel();
        let mut calls = lock(&self.line.calls);
        calls.next += 1;
        let number = calls.next;
        calls.open.insert(number, sender);
        Call { number, notes, epoch: self.clone() }
    }
}

impl Drop for Epoch {
    /// The reader holds the client's subscription, and with it the connection: it has to end too.
    fn drop(&mut self) {
        self.end("the connection was closed");
    }
}

/// A batch's place in an epoch.
#[derive(Debug)]
pub(crate) struct Call {
    number: u64,
    /// What it hears.
    pub(crate) notes: mpsc::UnboundedReceiver<Note>,
    epoch: Arc<Epoch>,
}

impl Call {
    /// Sends the message at `index`, to be answered. Waits while the connection takes nothing.
    pub(crate) async fn send(
        &self,
        index: usize,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), SendError> {
        let reply = format!("{}.{:x}-{index:x}", self.epoch.inbox, self.number);
        let client = &self.epoch.client;
        told(client.publish_with_reply_and_headers(subject.into(), reply, headers, payload).await)
    }

    /// The same without an answer.
    pub(crate) async fn send_quietly(
        &self,
        subject: impl Into<Subject>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), SendError> {
        told(self.epoch.client.publish_with_headers(subject.into(), headers, payload).await)
    }

    /// A name that no other batch has, of this process or of another one: the connection's and this call's.
    pub(crate) fn unique_name(&self) -> String {
        let connection = self.epoch.inbox.rsplit_once('.').map_or(&*self.epoch.inbox, |(_, token)| token);
        format!("{connection}-{:x}", self.number)
    }
}

fn told(sent: Result<(), PublishError>) -> Result<(), SendError> {
    sent.map_err(|error| match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => SendError::TooLarge,
        PublishErrorKind::InvalidSubject => SendError::Subject,
        PublishErrorKind::Send => SendError::Broken,
    })
}

impl Drop for Call {
    fn drop(&mut self) {
        lock(&self.epoch.line.calls).open.remove(&self.number);
    }
}

impl Line {
    async fn read(self: Arc<Self>, mut answers: Subscriber) {
        loop {
            let message = tokio::select! {
                biased;
                message = answers.next() => message,
                () = self.broken.cancelled() => return,
            };
            let Some(message) = message else {
                return self.end("the connection to the server broke".to_owned());
            };
            let token = message.subject.rsplit_once('.').and_then(|(_, token)| token.split_once('-'));
            let Some((call, index)) = token else { continue };
            let (Ok(call), Ok(index)) = (u64::from_str_radix(call, 16), usize::from_str_radix(index, 16))
            else {
                continue;
            };
            self.useful.store(true, Ordering::Relaxed);
            if let Some(sender) = lock(&self.calls).open.get(&call) {
                let _ = sender.send(Note::Answer(index, message));
            }
        }
    }

    fn hear(&self, event: &Event) {
        match event {
            Event::Disconnected | Event::Closed => self.end("the connection to the server broke".to_owned()),
            Event::LameDuckMode => self.end("the server shuts down (lame duck mode)".to_owned()),
            Event::ServerError(ServerError::Other(text)) => self.complain(text),
            Event::ServerError(error) => self.note(error.to_string()),
            Event::SlowConsumer(_) => self.end("answers came faster than they were read".to_owned()),
            Event::Connected | Event::Draining | Event::ClientError(_) => {}
        }
    }

    /// The server's `-ERR`. Permission violations leave the connection open, everything else closes it.
    fn complain(&self, text: &str) {
        let subject = text.split('"').nth(1).unwrap_or_default();
        let lower = text.to_ascii_lowercase();
        if !lower.contains("permissions violation") {
            return self.note(text.to_owned());
        }
        if lower.contains("subscription") {
            self.end(format!(
                "the server does not permit to subscribe to {subject}, where its answers would arrive"
            ));
        } else if subject.starts_with("$JS.") {
            self.api_denied.cancel();
        } else {
            let subject: Arc<str> = subject.into();
            lock(&self.denials).insert(subject.clone(), Instant::now());
            for sender in lock(&self.calls).open.values() {
                let _ = sender.send(Note::Denied(subject.clone()));
            }
        }
    }

    fn note(&self, reason: String) {
        lock(&self.reason).get_or_insert(reason);
    }

    fn end(&self, reason: String) {
        self.note(reason);
        self.broken.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while the lock is held")
}

/// The client's options. Secrets are read now, so that rotated ones are used.
pub(crate) fn options(checked: &Checked) -> Result<ConnectOptions, String> {
    let settings = &checked.settings;
    let mut options = ConnectOptions::new()
        .name(&settings.name)
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(settings.ack_timeout))
        .ping_interval(PING_INTERVAL)
        .max_reconnects(1)
        .ignore_discovered_servers()
        .require_tls(checked.tls_required);
    if let Some(prefix) = &settings.inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    if settings.tls.first {
        options = options.tls_first();
    }
    if let Some(file) = &settings.tls.authorities {
        options = options.add_root_certificates(file.clone());
    }
    if let Some(verifier) = &settings.tls.verifier {
        options = options.tls_client_config(judged_by(verifier.clone(), settings.tls.client.as_ref())?);
    }
    if let Some((certificate, key)) = &settings.tls.client {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let credentials = |options: ConnectOptions, text: &str| {
        with_credentials(options, text)
            .ok_or_else(|| "the credentials are not the text of a .creds file".to_owned())
    };
    match &settings.auth {
        NatsAuth::None => Ok(options),
        NatsAuth::Token(token) => Ok(options.token(token.read()?.expose_secret().to_owned())),
        NatsAuth::Nkey(seed) => Ok(options.nkey(seed.read()?.expose_secret().to_owned())),
        NatsAuth::UserPassword { user, password } => {
            Ok(options.user_and_password(user.clone(), password.read()?.expose_secret().to_owned()))
        }
        NatsAuth::Credentials(text) => credentials(options, text.read()?.expose_secret()),
        NatsAuth::CredentialsFile(file) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            credentials(options, &text)
        }
    }
}
