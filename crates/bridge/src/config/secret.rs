//! Secrets as the configuration names them: a literal, an environment variable, or a file.
//!
//! A reference is read whenever the secret is needed, never kept, so that a rotated file is seen at the next use.
//! Nothing here ever prints a value: not `Debug`, not an error.

use std::path::PathBuf;
use std::{env, fmt, fs, io};

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// Where a secret is.
#[derive(Clone)]
pub(crate) struct SecretRef {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Literal(SecretString),
    Variable(String),
    File(PathBuf),
}

/// Why a secret cannot be had. Names the variable or the file, never a value.
#[derive(Debug, Error)]
pub(crate) enum SecretError {
    /// The environment variable does not exist.
    #[error("the environment variable `{0}` is not set")]
    Unset(String),
    /// Its value is not UTF-8.
    #[error("the environment variable `{0}` is not UTF-8")]
    NotText(String),
    /// The file cannot be read.
    #[error("the file `{}` cannot be read: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is nothing in it.
    #[error("{0} is empty")]
    Empty(String),
}

impl SecretRef {
    /// A secret that stands in the configuration itself.
    pub(crate) fn literal(value: impl Into<String>) -> Self {
        Self { place: Place::Literal(SecretString::from(value.into())) }
    }

    /// A secret in an environment variable.
    pub(crate) fn variable(name: impl Into<String>) -> Self {
        Self { place: Place::Variable(name.into()) }
    }

    /// A secret in a file; line ends at the end of the file do not belong to it.
    pub(crate) fn file(path: impl Into<PathBuf>) -> Self {
        Self { place: Place::File(path.into()) }
    }

    /// Reads the secret, now.
    ///
    /// # Errors
    /// When the variable or the file is not there, is not text, or is empty.
    pub(crate) fn read(&self) -> Result<SecretString, SecretError> {
        self.read_with(|name| match env::var(name) {
            Ok(value) => Ok(value),
            Err(env::VarError::NotPresent) => Err(SecretError::Unset(name.to_owned())),
            Err(env::VarError::NotUnicode(_)) => Err(SecretError::NotText(name.to_owned())),
        })
    }

    /// [`SecretRef::read`] with another environment than the process's.
    pub(super) fn read_with(
        &self,
        variable: impl Fn(&str) -> Result<String, SecretError>,
    ) -> Result<SecretString, SecretError> {
        let value = match &self.place {
            Place::Literal(value) => value.clone(),
            Place::Variable(name) => SecretString::from(variable(name)?),
            Place::File(path) => {
                let mut text = fs::read_to_string(path)
                    .map_err(|error| SecretError::File { path: path.clone(), error })?;
                text.truncate(text.trim_end_matches(['\r', '\n']).len());
                SecretString::from(text)
            }
        };
        if value.expose_secret().is_empty() { Err(SecretError::Empty(self.to_string())) } else { Ok(value) }
    }
}

/// Where the secret is, for a sentence: "the environment variable `X`".
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Literal(_) => f.write_str("the value"),
            Place::Variable(name) => write!(f, "the environment variable `{name}`"),
            Place::File(path) => write!(f, "the file `{}`", path.display()),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Literal(_) => f.write_str("SecretRef(literal, redacted)"),
            Place::Variable(name) => write!(f, "SecretRef(env {name:?})"),
            Place::File(path) => write!(f, "SecretRef(file {path:?})"),
        }
    }
}
