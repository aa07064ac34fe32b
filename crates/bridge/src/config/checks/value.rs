//! The checks that many keys share. Their messages name the key and its table, never the value.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::{Host, Url};

use super::super::field::{Field, Given, Secret, TextOrReference};
use super::super::mistake::Mistake;
use super::super::secret::{SecretError, SecretRef};
use super::super::tree::Origin;
use super::super::units;
use super::{Checks, Section};

/// What `viaduct init` writes where something has to be filled in.
const PLACEHOLDER: &str = "CHANGE-ME";

impl Checks<'_> {
    pub(super) fn wrong(&mut self, at: Origin, message: impl Into<String>, hint: impl Into<String>) {
        let place = self.origins.place(at);
        self.mistakes.push(Mistake { place, message: message.into(), hint: hint.into() });
    }

    pub(super) fn warn(&mut self, at: Origin, message: impl Into<String>, hint: impl Into<String>) {
        let place = self.origins.place(at);
        self.warnings.push(Mistake { place, message: message.into(), hint: hint.into() });
    }

    /// Something that is not there; not noted where it may only be unreadable.
    pub(super) fn missing(&mut self, at: Origin, what: impl Display, hint: impl Into<String>) {
        if !self.incomplete {
            self.wrong(at, format!("{what} is missing"), hint);
        }
    }

    /// A table that may be absent: then all its keys are.
    pub(super) fn section<T: Default + Clone>(
        &mut self,
        field: &Field<T>,
        label: &str,
    ) -> Option<(T, Section)> {
        Some((field.or(T::default())?, Section::new(label, field.at())))
    }

    /// A key that has to be there.
    pub(super) fn need<'f, T>(
        &mut self,
        field: &'f Field<T>,
        key: &str,
        section: &Section,
        example: &str,
    ) -> Option<&'f Given<T>> {
        if matches!(field, Field::Absent) {
            self.missing(
                section.at,
                format!("`{key}` in {}", section.label),
                format!("add {key} = {example}"),
            );
        }
        field.given()
    }

    /// Text that is not empty and has no control characters.
    pub(super) fn text<'f>(
        &mut self,
        field: &'f Field<String>,
        key: &str,
        section: &Section,
        example: &str,
    ) -> Option<&'f Given<String>> {
        let given = self.need(field, key, section, example)?;
        self.printable(given, key, section, example).then_some(given)
    }

    /// Text with a default.
    pub(super) fn text_or(
        &mut self,
        field: &Field<String>,
        key: &str,
        section: &Section,
        default: &str,
    ) -> Option<String> {
        let text = field.or(default.to_owned())?;
        match field.given() {
            Some(given) => self.printable(given, key, section, &format!("\"{default}\"")).then_some(text),
            None => Some(text),
        }
    }

    fn printable(&mut self, given: &Given<String>, key: &str, section: &Section, example: &str) -> bool {
        let problem = if given.value.trim().is_empty() {
            "is empty"
        } else if given.value.chars().any(char::is_control) {
            "contains a control character"
        } else if given.value.contains(PLACEHOLDER) {
            "still contains CHANGE-ME"
        } else {
            return true;
        };
        self.wrong(
            given.at,
            format!("`{key}` in {} {problem}", section.label),
            format!("write {key} = {example}"),
        );
        false
    }

    /// A list of texts.
    pub(super) fn texts(
        &mut self,
        field: &Field<Vec<Field<String>>>,
        key: &str,
        section: &Section,
    ) -> Option<Vec<Given<String>>> {
        let items = field.or(Vec::new())?;
        let texts: Vec<_> = items.iter().filter_map(Field::given).cloned().collect();
        let printable = texts.iter().filter(|text| self.printable(text, key, section, "[\"…\"]")).count();
        (printable == items.len()).then_some(texts)
    }

    /// A name of a bridge, source or sink; `what` says of which.
    pub(super) fn name(&mut self, name: &str, at: Origin, what: &str) -> Option<String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if !name.is_empty() && name.bytes().all(allowed) {
            return Some(name.to_owned());
        }
        let message = format!("{what} cannot be called `{}`", name.escape_debug());
        self.wrong(at, message, "use letters, digits, `_` and `-` only");
        None
    }

    pub(super) fn duration(
        &mut self,
        field: &Field<String>,
        key: &str,
        section: &Section,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let Some(given) = field.given() else { return field.or(String::new()).map(|_| default) };
        match units::duration(&given.value) {
            Some(duration) if range.contains(&duration) => Some(duration),
            parsed => {
                let wanted = match parsed {
                    Some(_) => {
                        let (low, high) = (range.start(), range.end());
                        format!("between {} and {}", units::duration_text(*low), units::duration_text(*high))
                    }
                    None => "a duration".to_owned(),
                };
                let hint = format!("write {key} = \"{}\"", units::duration_text(default));
                self.wrong(given.at, format!("`{key}` in {} must be {wanted}", section.label), hint);
                None
            }
        }
    }

    pub(super) fn number(
        &mut self,
        field: &Field<i64>,
        key: &str,
        section: &Section,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        let number = field.or(default)?;
        if range.contains(&number) || field.given().is_none() {
            return Some(number);
        }
        let (low, high) = (range.start(), range.end());
        let hint = format!("write {key} = {}", default.clamp(*low, *high));
        self.wrong(
            field.at(),
            format!("`{key}` in {} must be between {low} and {high}", section.label),
            hint,
        );
        None
    }

    pub(super) fn size(
        &mut self,
        field: &Field<String>,
        key: &str,
        section: &Section,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        let Some(given) = field.given() else { return field.or(String::new()).map(|_| default) };
        match units::size(&given.value) {
            Some(size) if range.contains(&size) => Some(size),
            parsed => {
                let wanted = match parsed {
                    Some(_) => {
                        let (low, high) = (units::size_text(*range.start()), units::size_text(*range.end()));
                        format!("between {low} and {high}")
                    }
                    None => "a size".to_owned(),
                };
                let hint = format!("write {key} = \"{}\"", units::size_text(default));
                self.wrong(given.at, format!("`{key}` in {} must be {wanted}", section.label), hint);
                None
            }
        }
    }

    /// An `http` or `https` URL without credentials, query and fragment.
    pub(super) fn http_url(
        &mut self,
        field: &Field<String>,
        key: &str,
        section: &Section,
        example: &str,
    ) -> Option<Given<Url>> {
        let given = self.text(field, key, section, example)?;
        let what = format!("`{key}` in {}", section.label);
        let url = match Url::parse(&given.value) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
            _ => {
                self.wrong(
                    given.at,
                    format!("{what} must be an http or https URL"),
                    format!("write {key} = {example}"),
                );
                return None;
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            let hint = "credentials belong into the [source.<name>.auth] keys";
            self.wrong(given.at, format!("{what} contains credentials"), hint);
            return None;
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.wrong(
                given.at,
                format!("{what} has a query or a fragment"),
                "remove what follows `?` or `#`",
            );
            return None;
        }
        if url.scheme() == "http" && !is_local(&url) {
            self.warn(given.at, format!("{what} is not encrypted: credentials travel readable"), "use https");
        }
        Some(Given { value: url, at: given.at })
    }

    /// A secret that has to be there.
    pub(super) fn secret(
        &mut self,
        field: &Field<Secret>,
        key: &str,
        section: &Section,
    ) -> Option<SecretRef> {
        let example = "{ env = \"NAME\" }, or { file = \"path\" }, or \"text\"";
        let given = self.need(field, key, section, example)?;
        self.given_secret(&given.value.0, given.at, &format!("`{key}` in {}", section.label))
    }

    /// A secret, tried once: what it names must exist when the configuration is read.
    pub(super) fn given_secret(
        &mut self,
        value: &TextOrReference,
        at: Origin,
        what: &str,
    ) -> Option<SecretRef> {
        let (secret, at) = match value {
            TextOrReference::Text(text) => {
                if text.starts_with("${") && text.ends_with('}') {
                    let hint = "write { env = \"NAME\" } to take the value of a variable";
                    self.warn(at, format!("{what} looks like a shell variable, which is not replaced"), hint);
                }
                (SecretRef::literal(text.as_str()), at)
            }
            TextOrReference::Reference(reference) => match (&reference.env, &reference.file) {
                (Field::Given(name), Field::Absent) if is_variable(&name.value) => {
                    (SecretRef::variable(name.value.as_str()), name.at)
                }
                (Field::Given(name), Field::Absent) => {
                    let hint = "write { env = \"NAME\" } with the variable's name, not the secret";
                    self.wrong(
                        name.at,
                        format!("`env` of {what} is not the name of an environment variable"),
                        hint,
                    );
                    return None;
                }
                (Field::Absent, Field::Given(path)) => (SecretRef::file(path.value.as_str()), path.at),
                (Field::Wrong, _) | (_, Field::Wrong) => return None,
                (Field::Absent, Field::Absent) => {
                    let hint = "write { env = \"NAME\" } or { file = \"path\" }";
                    self.wrong(at, format!("{what} names neither `env` nor `file`"), hint);
                    return None;
                }
                (Field::Given(_), Field::Given(_)) => {
                    self.wrong(at, format!("{what} names both `env` and `file`"), "keep one of the two");
                    return None;
                }
            },
        };
        if let TextOrReference::Reference(reference) = value
            && let Some(place) = [&reference.env, &reference.file].into_iter().find_map(Field::given)
            && place.value.contains(PLACEHOLDER)
        {
            self.wrong(place.at, format!("{what} still contains {PLACEHOLDER}"), "write where the secret is");
            return None;
        }
        match self.read(&secret) {
            Ok(_) => Some(secret),
            Err(error) => {
                let hint = match &error {
                    SecretError::Unset(name) => format!("set {name} before the start"),
                    SecretError::NotText(name) => format!("set {name} to text"),
                    SecretError::File { .. } => {
                        "create it, readable for this user; a relative path starts at the \
                                                 working directory"
                            .to_owned()
                    }
                    SecretError::Empty(_) => "give it a value".to_owned(),
                };
                self.wrong(at, format!("{what} cannot be read: {error}"), hint);
                None
            }
        }
    }

    /// What a secret is now.
    pub(super) fn read(&self, secret: &SecretRef) -> Result<SecretString, SecretError> {
        let environment = self.environment;
        secret.read_with(|name| environment(name).ok_or_else(|| SecretError::Unset(name.to_owned())))
    }

    /// A file that must be readable, such as a certificate.
    pub(super) fn file(&mut self, field: &Field<String>, key: &str, section: &Section) -> Option<PathBuf> {
        let given = field.given()?;
        let path = PathBuf::from(&given.value);
        match std::fs::File::open(&path) {
            Ok(_) => Some(path),
            Err(error) => {
                let message = format!(
                    "`{key}` in {}: the file `{}` cannot be read: {error}",
                    section.label, given.value
                );
                self.wrong(given.at, message, "create it, readable for this user");
                None
            }
        }
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
