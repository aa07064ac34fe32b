//! `[sink.*]` with `type = "nats"`.

use percent_encoding::percent_decode_str;
use url::Url;

use super::super::checked::{ClientCertificate, NatsAuth, NatsOptions, NatsTls};
use super::super::field::{Field, Given};
use super::super::raw;
use super::super::secret::SecretRef;
use super::super::tree::Origin;
use super::{Checks, Section};

impl Checks<'_> {
    pub(super) fn nats(&mut self, raw: &raw::Nats, section: &Section) -> Option<NatsOptions> {
        let urls = self.nats_urls(raw, section);
        let auth = self.nats_auth(raw, section, urls.as_ref().and_then(|(_, login)| login.clone()));
        let tls = self.nats_tls(&raw.tls, section);
        let stream = self.text(&raw.stream, "stream", section, "\"VIA\"").filter(|stream| {
            // The characters that JetStream refuses in a stream's name.
            let right = !stream.value.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c));
            if !right {
                let message = format!(
                    "`stream` in {} contains a character that no stream's name can have",
                    section.label
                );
                self.wrong(stream.at, message, "use letters, digits, `_` and `-`, as in stream = \"VIA\"");
            }
            right
        });
        let create_stream = raw.create_stream.or(false);
        let replicas = self.number(&raw.replicas, "replicas", section, 1, 1..=5);
        if let (Some(given), Some(false)) = (raw.replicas.given(), create_stream) {
            let message =
                format!("`replicas` in {} has no effect without create_stream = true", section.label);
            self.warn(given.at, message, "add create_stream = true, or remove it");
        }
        Some(NatsOptions {
            urls: urls?.0,
            auth: auth?,
            tls: tls?,
            stream: stream?.value.clone(),
            create_stream: create_stream?,
            replicas: usize::try_from(replicas?).ok()?,
        })
    }

    /// The servers without their credentials, and the credentials that stood in them.
    fn nats_urls(&mut self, raw: &raw::Nats, section: &Section) -> Option<(Vec<Url>, Option<Login>)> {
        let given = self.text(&raw.url, "url", section, "\"nats://localhost:4222\"")?;
        let mut urls = Vec::new();
        let mut logins = Vec::new();
        for text in given.value.split(',') {
            let Some(mut url) = Url::parse(text.trim()).ok().filter(is_nats) else {
                let message =
                    format!("`url` in {} must be nats:// or tls:// URLs, comma-separated", section.label);
                self.wrong(given.at, message, "write url = \"nats://localhost:4222\"");
                return None;
            };
            if let Some(login) = Login::of(&url, given.at) {
                logins.push(login);
                // Cannot fail: the URL has a host.
                let _ = url.set_username("");
                let _ = url.set_password(None);
            }
            urls.push(url);
        }
        if logins.windows(2).any(|pair| pair[0].text != pair[1].text) {
            let message =
                format!("`url` in {} has different credentials for different servers", section.label);
            self.wrong(given.at, message, "use the same ones, or the keys user and password");
            return None;
        }
        Some((urls, logins.pop()))
    }

    /// One way of proving who we are, or none.
    fn nats_auth(&mut self, raw: &raw::Nats, section: &Section, login: Option<Login>) -> Option<NatsAuth> {
        let mut ways: Vec<(&str, Origin)> = Vec::new();
        let mut way = |name, given: Option<Origin>| ways.extend(given.map(|at| (name, at)));
        way("credentials in `url`", login.as_ref().map(|login| login.at));
        way("`credentials`", place(&raw.credentials));
        way("`nkey`", place(&raw.nkey));
        way("`user` and `password`", place(&raw.user).or(place(&raw.password)));
        way("`token`", place(&raw.token));
        if let [_, (_, second), ..] = ways[..] {
            let names: Vec<_> = ways.iter().map(|(name, _)| *name).collect();
            let message = format!("{} has more than one of: {}", section.label, names.join(", "));
            self.wrong(second, message, "keep one of them");
            return None;
        }
        if let Some(login) = login {
            return Some(login.auth);
        }
        let what = |key: &str| format!("`{key}` in {}", section.label);
        if let Some(given) = raw.credentials.given() {
            return self
                .given_secret(&given.value.0, given.at, &what("credentials"))
                .map(NatsAuth::Credentials);
        }
        if let Some(given) = raw.nkey.given() {
            return self.given_secret(&given.value.0, given.at, &what("nkey")).map(NatsAuth::Nkey);
        }
        if let Some(given) = raw.token.given() {
            return self.given_secret(&given.value.0, given.at, &what("token")).map(NatsAuth::Token);
        }
        if matches!((&raw.user, &raw.password), (Field::Absent, Field::Absent)) {
            let wrong = matches!(raw.credentials, Field::Wrong)
                || matches!(raw.nkey, Field::Wrong)
                || matches!(raw.token, Field::Wrong);
            return (!wrong).then_some(NatsAuth::Anonymous);
        }
        let user = self.text(&raw.user, "user", section, "\"viaduct\"");
        let password = self.secret(&raw.password, "password", section);
        Some(NatsAuth::UserPassword { user: user?.value.clone(), password: password? })
    }

    fn nats_tls(&mut self, raw: &Field<raw::Tls>, sink: &Section) -> Option<NatsTls> {
        let (raw, section) = self.section(raw, &format!("{}.tls]", sink.label.trim_end_matches(']')))?;
        let ca = match raw.ca {
            Field::Absent => Some(None),
            _ => self.file(&raw.ca, "ca", &section).map(Some),
        };
        let client = match (&raw.certificate, &raw.key) {
            (Field::Absent, Field::Absent) => Some(None),
            (certificate, key) => {
                self.need(certificate, "certificate", &section, "\"client.pem\"");
                self.need(key, "key", &section, "\"client.key\"");
                let certificate = self.file(certificate, "certificate", &section);
                let key = self.file(key, "key", &section);
                match (certificate, key) {
                    (Some(certificate), Some(key)) => Some(Some(ClientCertificate { certificate, key })),
                    _ => None,
                }
            }
        };
        Some(NatsTls {
            required: raw.required.or(false)?,
            first: raw.first.or(false)?,
            ca: ca?,
            client: client?,
            accept_invalid_certificates: self.accepts_invalid(
                &raw.danger_accept_invalid_certificates,
                "the server",
                &section,
            )?,
        })
    }
}

/// The credentials that stood in a URL: `user:password@`, or `token@`.
#[derive(Clone)]
struct Login {
    at: Origin,
    /// What stood before the `@`, to compare; goes nowhere else.
    text: (String, Option<String>),
    auth: NatsAuth,
}

impl Login {
    fn of(url: &Url, at: Origin) -> Option<Self> {
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let text = (decoded(url.username()), url.password().map(decoded));
        let auth = match &text {
            (user, None) if user.is_empty() => return None,
            (token, None) => NatsAuth::Token(SecretRef::literal(token.as_str())),
            (user, Some(password)) => {
                NatsAuth::UserPassword { user: user.clone(), password: SecretRef::literal(password.as_str()) }
            }
        };
        Some(Self { at, text, auth })
    }
}

fn is_nats(url: &Url) -> bool {
    matches!(url.scheme(), "nats" | "tls")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Where a key stands, if it is there and right.
fn place<T>(field: &Field<T>) -> Option<Origin> {
    field.given().map(|Given { at, .. }| *at)
}
