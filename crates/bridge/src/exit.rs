//! How the process ends: exit codes in the words of sysexits(3), and the error that carries one.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// An exit code that scripts and service managers may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// The command line is wrong.
    Usage = 64,
    /// The data is not as it has to be.
    DataErr = 65,
    /// A service that the command needs does not answer.
    Unavailable = 69,
    /// A bug of this program.
    Software = 70,
    /// A file cannot be created.
    CantCreate = 73,
    /// Stopped with work left, which will be done after the next start; or another process holds the state.
    TempFail = 75,
    /// The vendor refuses the credentials.
    NoPerm = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: the exit code, one sentence for people, and what to do next. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: String,
}

impl Failure {
    /// A failure; `message` names what failed and where, `hint` what to do next (empty: nothing beyond the message).
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: hint.into() }
    }

    /// What a command prints cannot be printed; `what` names it.
    pub(crate) fn output(what: &str, error: &io::Error) -> Self {
        Self::new(Exit::CantCreate, format!("{what} cannot be written: {error}"), "check standard output")
    }

    /// What failed, and what to do next.
    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.message, &self.hint)
    }

    /// The code with which the process ends.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\n  hint: {}", self.hint) }
    }
}

impl std::error::Error for Failure {}

impl From<crate::config::Mistakes> for Failure {
    fn from(mistakes: crate::config::Mistakes) -> Self {
        Self::new(Exit::Config, format!("the configuration cannot be used\n{mistakes}"), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_a_sentence_and_a_hint() {
        let failure = Failure::new(Exit::TempFail, "the state directory is locked", "stop the other bridge");
        assert_eq!(failure.to_string(), "the state directory is locked\n  hint: stop the other bridge");
        assert_eq!(Failure::new(Exit::Usage, "no", "").to_string(), "no");
        assert_eq!(failure.exit() as u8, 75);
    }
}
