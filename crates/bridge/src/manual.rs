//! `viaduct completions` and `viaduct man`: made from the definition of the command line, so that they agree with it.

use std::io::{ErrorKind, Write};
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::{Exit, Failure};

/// Prints the completions of a shell.
///
/// # Errors
/// 73 where standard output cannot be written.
pub(crate) fn completions(shell: Shell, out: &mut impl Write) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "viaduct", &mut text);
    print(&text, out)
}

/// Prints the manual page of `viaduct`, or writes it and those of its commands into `folder`.
///
/// # Errors
/// 73 where they cannot be written.
pub(crate) fn man(folder: Option<&Path>, out: &mut impl Write) -> Result<(), Failure> {
    let Some(folder) = folder else {
        let mut text = Vec::new();
        // Nothing is written but memory.
        let _ = clap_mangen::Man::new(Cli::command()).render(&mut text);
        return print(&text, out);
    };
    clap_mangen::generate_to(Cli::command(), folder).map_err(|error| {
        unwritable(&folder.display().to_string(), &error, "name a folder that exists and may be written")
    })
}

/// A reader that has gone (`| head`) is no failure.
fn print(text: &[u8], out: &mut impl Write) -> Result<(), Failure> {
    match out.write_all(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(unwritable("standard output", &error, "check where it goes"))
        }
        _ => Ok(()),
    }
}

fn unwritable(what: &str, error: &std::io::Error, hint: &str) -> Failure {
    Failure::new(Exit::CantCreate, format!("{what} cannot be written: {error}"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut text = Vec::new();
            completions(shell, &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            for command in Cli::command().get_subcommands() {
                assert!(text.contains(command.get_name()), "{shell} does not know {}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().unwrap();
        man(Some(folder.path()), &mut Vec::new()).unwrap();
        for command in Cli::command().get_subcommands() {
            let page = folder.path().join(format!("viaduct-{}.1", command.get_name()));
            assert!(page.exists(), "{}", page.display());
        }
        let failure = man(Some(Path::new("/no/such/folder")), &mut Vec::new()).unwrap_err();
        assert_eq!(failure.exit(), Exit::CantCreate);
    }
}
