//! Colours: on a terminal, unless `NO_COLOR` is set to anything but nothing (<https://no-color.org>).

use std::fmt::Display;
use std::io::{IsTerminal, stdout};

use crate::admin::verdict::Level;

/// Colours text, or does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    colours: bool,
}

impl Paint {
    /// For standard output.
    pub(crate) fn of_stdout() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { colours: wanted && stdout().is_terminal() }
    }

    /// Without any.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { colours: false };

    /// With them.
    #[cfg(test)]
    pub(crate) const COLOURED: Self = Self { colours: true };

    /// Green, yellow or red.
    pub(crate) fn level(self, level: Level, text: impl Display) -> String {
        let code = match level {
            Level::Ok => "32",
            Level::Warning => "33",
            Level::Error => "31",
        };
        self.code(code, text)
    }

    /// For what stands out.
    pub(crate) fn bold(self, text: impl Display) -> String {
        self.code("1", text)
    }

    /// For what stands back.
    pub(crate) fn dim(self, text: impl Display) -> String {
        self.code("2", text)
    }

    fn code(self, code: &str, text: impl Display) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}
