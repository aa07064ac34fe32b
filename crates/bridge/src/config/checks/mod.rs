//! From raw structs to checked values. Every check goes on after a mistake, so that one run finds all of them; a
//! function returns `None` only after it has noted why.

mod headers;
mod mask;
mod nats;
mod reach;
mod route;
mod sink;
mod source;
mod tls;
mod tracing;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::checked::{Bridge, Config, Log, LogFormat, RecordsShown};
use super::field::{Field, Given};
use super::mistake::{Mistake, closest};
use super::raw;
use super::reader::Note;
use super::tree::{Origin, Origins};

/// Each shard is a producer with threads of its own.
const MOST_SHARDS: i64 = 64;

/// Where a secret that names an environment variable is looked up while the configuration is checked.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Collects what is wrong.
pub(super) struct Checks<'a> {
    pub(super) origins: &'a Origins,
    pub(super) environment: Environment<'a>,
    /// Whether the file could not be read in full: then nothing is called missing.
    pub(super) incomplete: bool,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Mistake>,
}

/// The table in which a key stands.
struct Section {
    label: String,
    at: Origin,
}

impl Section {
    fn new(label: impl Into<String>, at: Origin) -> Self {
        Self { label: label.into(), at }
    }
}

impl<'a> Checks<'a> {
    /// What the reader found already.
    pub(super) fn take_notes(&mut self, notes: Vec<Note>) {
        for note in notes {
            if !(note.missing && self.incomplete) {
                self.wrong(note.at, note.message, note.hint);
            }
        }
    }

    /// Checks everything.
    pub(super) fn config(&mut self, raw: &raw::Config, root: Origin) -> Option<Config> {
        let bridge = self.bridge(&raw.bridge);
        let state_dir = self.state_dir(&raw.state);
        let admin = self.admin(&raw.admin);
        let records = self.records_shown(&raw.admin);
        let log = self.log(&raw.log);
        let tracing = self.tracing(&raw.tracing);
        let mask = self.mask(&raw.mask);
        let sources = self.sources(&raw.source, root);
        let sinks = self.sinks(&raw.sink, root);
        let routing = self.routing(raw, &sinks);
        if let (Some(Some(mask)), Some((routes, _))) = (&mask, &routing) {
            self.masked_keys(mask, routes, raw, &sinks);
        }
        let (routes, dead_letter) = routing?;
        Some(Config {
            bridge: bridge?,
            sources: sources?,
            sinks: sinks.into_iter().map(|(_, sink)| sink).collect::<Option<_>>()?,
            routes,
            dead_letter,
            mask: mask?,
            state_dir: state_dir?,
            admin: admin?,
            records: records?,
            log: log?,
            tracing: tracing?,
        })
    }

    fn bridge(&mut self, raw: &Field<raw::Bridge>) -> Option<Bridge> {
        let (raw, section) = self.section(raw, "[bridge]")?;
        let name = match raw.name.given() {
            Some(name) => self.name(&name.value, name.at, "the bridge"),
            None => raw.name.or("viaduct".to_owned()),
        };
        let shards = self.number(&raw.shards, "shards", &section, 1, 1..=MOST_SHARDS);
        let second = Duration::from_secs(1);
        let timeout = self.duration(
            &raw.shutdown_timeout,
            "shutdown_timeout",
            &section,
            Duration::from_secs(25),
            second..=3600 * second,
        );
        let shards = shards.and_then(|shards| u32::try_from(shards).ok()).and_then(NonZeroU32::new);
        Some(Bridge { name: name?, shards: shards?, shutdown_timeout: timeout? })
    }

    fn state_dir(&mut self, raw: &Field<raw::State>) -> Option<PathBuf> {
        let (raw, section) = self.section(raw, "[state]")?;
        self.text_or(&raw.dir, "dir", &section, "./viaduct-state").map(PathBuf::from)
    }

    fn admin(&mut self, raw: &Field<raw::Admin>) -> Option<Option<SocketAddr>> {
        let (raw, section) = self.section(raw, "[admin]")?;
        let listen = self.text_or(&raw.listen, "listen", &section, "127.0.0.1:9464")?;
        if listen == "off" {
            return Some(None);
        }
        if let Ok(address) = listen.parse() {
            return Some(Some(address));
        }
        self.wrong(
            raw.listen.at(),
            "`listen` in [admin] must be an IP address and a port, or \"off\"",
            "write listen = \"127.0.0.1:9464\", or \"0.0.0.0:9464\" for all interfaces",
        );
        None
    }

    fn records_shown(&mut self, raw: &Field<raw::Admin>) -> Option<RecordsShown> {
        let raw = raw.or(raw::Admin::default())?;
        let shown = raw.records.or(RecordsShown::Masked)?;
        if shown == RecordsShown::Clear {
            let message = "`records` in [admin] is \"clear\": whoever reaches this port, which has no authentication, \
                           can read the payloads and keys of all records";
            self.warn(raw.records.at(), message, "remove it where nobody has to look into records");
        }
        Some(shown)
    }

    fn log(&mut self, raw: &Field<raw::Log>) -> Option<Log> {
        let (raw, section) = self.section(raw, "[log]")?;
        let level = self.text_or(&raw.level, "level", &section, "info");
        let level =
            level.filter(|level| level.split(',').all(|part| self.log_directive(part, raw.level.at())));
        let format = raw.format.or(LogFormat::Auto);
        Some(Log { level: level?, format: format? })
    }

    /// `info`, or `target=info`. A word that is no level would silently be taken for the name of a target.
    fn log_directive(&mut self, part: &str, at: Origin) -> bool {
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        let (target, level) = part.rsplit_once('=').unwrap_or(("all", part));
        let target_is_path = |target: &str| {
            !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
        };
        if LEVELS.contains(&level) && target_is_path(target) {
            return true;
        }
        let hint = match closest(level, LEVELS) {
            Some(near) if near != level => format!("did you mean \"{near}\"?"),
            _ => "write level = \"info\", or \"info,viaduct_poller=debug\"".to_owned(),
        };
        let levels = LEVELS.join("`, `");
        self.wrong(at, format!("`level` in [log] must be one of `{levels}`, or target=level pairs"), hint);
        false
    }
}

impl<T> Field<T> {
    /// The value, if there is a right one.
    fn given(&self) -> Option<&Given<T>> {
        match self {
            Self::Given(given) => Some(given),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// Where the value stands, if there is a right one.
    fn at(&self) -> Origin {
        self.given().map_or(Origins::NOWHERE, |given| given.at)
    }

    /// The value, or the default of an absent key.
    fn or(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Self::Given(given) => Some(given.value.clone()),
            Self::Absent => Some(default),
            Self::Wrong => None,
        }
    }
}
