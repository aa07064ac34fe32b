//! The configuration: a file, the environment over it, flags over both.
//!
//! ```text
//! viaduct.toml ─ tree::parse_file ─┐
//! VIADUCT__…   ─ overlay::apply ───┼─▶ tree::Node ─ reader::read ─▶ raw::Config ─ checks ─▶ Config
//! flags        ─ overlay::apply ───┘   (places)                     (unchecked)            (checked)
//! ```
//!
//! Every stage notes what is wrong and goes on, so that one run names all mistakes, each with its place and a hint.
//! No mistake, warning or `Debug` output contains a value that may be a secret; a secret is never kept, only where it
//! is ([`SecretRef`]).
//!
//! Relative paths (`state.dir`, `dir` of a file sink, secret files, certificates) start at the working directory of the
//! process, like every path on a command line, wherever the configuration file lies: a file in `/etc` must not make
//! the bridge write its state there.

mod checked;
mod checks;
mod field;
mod json_schema;
mod mistake;
mod overlay;
mod pattern;
mod raw;
mod reader;
mod reference;
mod secret;
mod template;
#[cfg(test)]
mod tests;
mod tree;
mod units;

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::checked::*;
pub(crate) use self::json_schema::json_schema;
pub(crate) use self::mistake::{Mistake, Mistakes, Place, closest};
pub(crate) use self::pattern::Pattern;
pub(crate) use self::reference::reference;
#[cfg(test)]
pub(crate) use self::reference::slug;
pub(crate) use self::secret::{SecretError, SecretRef};
pub(crate) use self::template::{Distinct, FieldName, FieldPath, KeyPart, Segment, Template};
pub(crate) use self::units::{duration, duration_text, size_text};

use self::checks::Checks;
use self::tree::{Origins, Parsed};

/// What a configuration is made of; what is later here wins.
#[derive(Default)]
pub(crate) struct LoadInput {
    /// The file; `None`: environment and flags alone.
    pub(crate) file: Option<PathBuf>,
    /// The environment: `VIADUCT__…`, and what `{ env = "NAME" }` names.
    pub(crate) env: Vec<(String, String)>,
    /// Keys with their values, as in `("log.level", "debug")`.
    pub(crate) overrides: Vec<(String, String)>,
}

impl LoadInput {
    /// A file, the environment of this process, and flags. Variables that are not UTF-8 count as not set.
    pub(crate) fn of_process(file: impl Into<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file: Some(file.into()), env, overrides }
    }
}

/// A right configuration.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// What it says.
    pub(crate) config: Config,
    /// What is doubtful about it, by place.
    pub(crate) warnings: Vec<Mistake>,
}

/// Reads and checks a configuration.
///
/// # Errors
/// All mistakes, sorted by place.
pub(crate) fn load(input: LoadInput) -> Result<Loaded, Mistakes> {
    let text = match &input.file {
        Some(file) => {
            Some(std::fs::read_to_string(file).map_err(|error| Mistakes::one(unreadable(file, &error)))?)
        }
        None => None,
    };
    load_text(text.as_deref(), input)
}

/// The same where the text of the file is at hand.
///
/// # Errors
/// All mistakes, sorted by place.
pub(crate) fn load_text(text: Option<&str>, input: LoadInput) -> Result<Loaded, Mistakes> {
    let mut origins = Origins::new();
    let mut parsed = match (text, &input.file) {
        (Some(text), Some(file)) => tree::parse_file(text, file, &mut origins),
        _ => Parsed::nothing(),
    };
    let Parsed { root, mistakes, .. } = &mut parsed;
    mistakes.extend(overlay::flatten_names(root, &origins));
    mistakes.extend(overlay::apply(root, &input.env, &input.overrides, &mut origins));

    let notes = RefCell::default();
    let raw = reader::read::<raw::Config>(root, &notes);
    let environment =
        |name: &str| input.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let mut checks = Checks {
        origins: &origins,
        environment: &environment,
        incomplete: parsed.incomplete,
        mistakes: Vec::new(),
        warnings: Vec::new(),
    };
    checks.take_notes(notes.take());
    let config = match &raw {
        field::Field::Given(given) => checks.config(&given.value, given.at),
        _ => None,
    };
    // Where a line is no TOML, what was made of it is an echo.
    let Checks { mistakes: found, mut warnings, .. } = checks;
    let garbled = |line| parsed.garbled.iter().any(|lines| lines.contains(&line));
    let mut mistakes = parsed.mistakes;
    mistakes.extend(found.into_iter().filter(|mistake| !mistake.place.line().is_some_and(garbled)));
    warnings.sort();
    match (Mistakes::of(mistakes), config) {
        (Some(mistakes), _) => Err(mistakes),
        (None, config) => {
            let config = config.expect("a part of the configuration is absent only where a mistake is noted");
            Ok(Loaded { config, warnings })
        }
    }
}

fn unreadable(file: &Path, error: &io::Error) -> Mistake {
    let (message, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            "there is no such configuration file".to_owned(),
            "write one with `viaduct init`, or name another with -c",
        ),
        io::ErrorKind::InvalidData => ("is not UTF-8 text".to_owned(), "save it as UTF-8"),
        _ => (format!("cannot be read: {error}"), "make it readable for this user, or name another with -c"),
    };
    Mistake { place: Place::File { file: file.to_owned() }, message, hint: hint.to_owned() }
}
