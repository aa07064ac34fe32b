//! `viaduct status` and `viaduct tap`: a running bridge in the terminal, through its admin port.
//!
//! - [`client`]: where the port is, and what it answers
//! - [`mod@status`]: its state on one screen
//! - [`mod@tap`]: its events, one line each
//! - [`paint`]: colours, on a terminal only

mod client;
pub(crate) mod paint;
mod status;
mod tap;

pub(crate) use self::status::status;
pub(crate) use self::tap::tap;

use std::io::{self, ErrorKind};

use crate::exit::{Exit, Failure};

/// Text of others, on the way to a terminal: without the characters that steer it.
fn tame(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { char::REPLACEMENT_CHARACTER } else { char }).collect()
}

/// Whether to go on after writing: a reader that has gone (`| head`) is no failure.
fn written(result: io::Result<()>) -> Result<bool, Failure> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(
            Exit::CantCreate,
            format!("standard output cannot be written: {error}"),
            "check where it goes",
        )),
    }
}
