//! The command line of `viaduct dlq`.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};

use crate::cli::ConfigArgs;
use crate::routing::Reason;

/// `viaduct dlq`
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters, oldest first
    List(ListArgs),
    /// Show one dead letter: why it is one, and its event
    Show(ShowArgs),
    /// Publish dead letters to where today's configuration routes them
    ///
    /// What was replayed is marked, and not replayed again. It may be interrupted at any time: what is not marked then is
    /// replayed by the next run. A bridge that runs is not disturbed.
    Replay(ReplayArgs),
}

/// Which dead letters.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct FilterArgs {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Only for this reason
    #[arg(long, value_parser = PossibleValuesParser::new(Reason::WORDS))]
    pub(crate) reason: Option<String>,
    /// Only of event types that match, as in 'engagementCenter.*'
    #[arg(long = "type", value_name = "PATTERN")]
    pub(crate) event_type: Option<String>,
    /// Only from then on: a time such as 2026-01-05T09:30:00Z, or an age such as 90m, 2h or 3d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) since: Option<Timestamp>,
    /// Only before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub(crate) until: Option<Timestamp>,
    /// The oldest so many of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

impl FilterArgs {
    /// Whether it says which ones; how many is not enough.
    pub(crate) fn chooses(&self) -> bool {
        let Self { source, reason, event_type, since, until, limit: _ } = self;
        source.is_some() || reason.is_some() || event_type.is_some() || since.is_some() || until.is_some()
    }
}

/// `viaduct dlq list`
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Which ones.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// Those that were replayed, instead of those that were not
    #[arg(long, conflicts_with = "all")]
    pub(crate) replayed: bool,
    /// Those that were replayed, too
    #[arg(long)]
    pub(crate) all: bool,
    /// Print a JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `viaduct dlq show`
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// The id, as `viaduct dlq list` shows it
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Print the event alone, byte for byte
    #[arg(long)]
    pub(crate) raw: bool,
}

/// `viaduct dlq replay`
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// These ones; or choose them by the options below
    #[arg(value_name = "ID", conflicts_with_all = ["source", "reason", "event_type", "since", "until", "limit", "all"])]
    pub(crate) ids: Vec<String>,
    /// Which ones.
    #[command(flatten)]
    pub(crate) filter: FilterArgs,
    /// All of them
    #[arg(long)]
    pub(crate) all: bool,
    /// Those that were replayed, too
    #[arg(long)]
    pub(crate) again: bool,
    /// Print the records, publish and mark nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A time, a day (its beginning, UTC), or an age.
fn moment(text: &str) -> Result<Timestamp, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<i64>().ok()).filter(|days| *days >= 0);
    let age = match days {
        Some(days) => days.checked_mul(86_400).map(SignedDuration::from_secs),
        None => crate::config::duration(text).and_then(|age| SignedDuration::try_from(age).ok()),
    };
    let time = match age {
        Some(age) => Timestamp::now().checked_sub(age).ok(),
        None => text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()).ok(),
    };
    time.ok_or_else(|| {
        "write a time such as 2026-01-05T09:30:00Z, a day such as 2026-01-05, or an age such as 90m, 2h or 3d"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments() {
        let time = |text: &str| moment(text).unwrap().to_string();
        assert_eq!(time("2026-01-05T09:30:00Z"), "2026-01-05T09:30:00Z");
        assert_eq!(time("2026-01-05T10:30:00.5+01:00"), "2026-01-05T09:30:00.5Z");
        assert_eq!(time("2026-01-05"), "2026-01-05T00:00:00Z");
        for (age, seconds) in [("90m", 5400), ("2h", 7200), ("3d", 259_200), ("1h 30m", 5400)] {
            let then = moment(age).unwrap();
            let ago = Timestamp::now().duration_since(then).as_secs();
            assert!((seconds..seconds + 5).contains(&ago), "{age}: {ago}");
        }
        for bad in ["", "yesterday", "-2h", "2", "-1d", "99999999999999999d"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
