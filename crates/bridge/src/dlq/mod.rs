//! `viaduct dlq`: dead letters listed, shown, and replayed to where today's configuration routes them.
//!
//! - [`args`]: the command line
//! - [`shelf`]: where dead letters stand; each sink's crate reads its own ([`viaduct_sink::Archive`])
//! - [`letter`]: a dead letter as it was read back, and which ones were asked for
//! - [`list`], [`show`], [`replay`]: the commands
//! - [`press`]: routes and publishes what is replayed, each source by its [`line`]
//! - [`marks`], [`summary`]: what a replay leaves behind, and says
//!
//! None of them disturbs a bridge that runs: they take no lock of the state directory, no transactional id, and write no
//! checkpoint.

mod args;
mod letter;
mod line;
mod list;
mod marks;
mod press;
mod replay;
mod shelf;
mod show;
mod summary;

use std::io::{self, Write};

pub(crate) use self::args::DlqCommand;
use self::shelf::Shelf;
use crate::config;
use crate::exit::Failure;

/// Lists, shows or replays.
///
/// # Errors
/// 64 for a wrong command line, 65 for a dead letter that is not there or cannot be replayed, 69 where a broker does not
/// answer, 73 for files that cannot be used, 75 for a replay that was stopped, 78 for a wrong configuration.
pub(crate) async fn dlq(command: &DlqCommand, out: &mut impl Write) -> Result<(), Failure> {
    let config_args = match command {
        DlqCommand::List(args) => &args.config,
        DlqCommand::Show(args) => &args.config,
        DlqCommand::Replay(args) => {
            replay::chosen(args)?;
            &args.config
        }
    };
    let config = config::load(config_args.load_input()?)?.config;
    let shelves = Shelf::all(&config)?;
    match command {
        DlqCommand::List(args) => list::list(args, &shelves, out).await,
        DlqCommand::Show(args) => show::show(args, &shelves, out).await,
        DlqCommand::Replay(args) => replay::replay(args, &config, &shelves, out).await,
    }
}

/// Text for a terminal: one line, without control characters.
fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

fn unwritable(error: &io::Error) -> Failure {
    Failure::output("the output", error)
}
