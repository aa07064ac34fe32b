//! One transient line on a terminal that says what is being checked.

use std::io::{IsTerminal, Write};

/// Shows nothing where standard error is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    shows: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shows: std::io::stderr().is_terminal() }
    }

    /// What comes now.
    pub(super) fn now(&self, what: &str) {
        if self.shows {
            // A terminal that is gone does not matter here.
            let _ = write!(std::io::stderr(), "\r\x1b[2Kchecking {what} …");
            let _ = std::io::stderr().flush();
        }
    }
}

impl Drop for Progress {
    /// The line goes.
    fn drop(&mut self) {
        if self.shows {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
            let _ = std::io::stderr().flush();
        }
    }
}
