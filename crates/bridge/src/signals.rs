//! SIGTERM and SIGINT: the first one asks for an orderly end, the second one ends at once. SIGHUP, where it is asked for:
//! read the configuration again.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// Hears the signals from the moment it is made.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Without a handler SIGHUP ends the process, as it should where it means that the terminal is gone.
    hangup: Option<Signal>,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To end. With the signal's name.
    End(&'static str),
    /// To read the configuration again.
    Reload,
}

impl Signals {
    /// Installs the handlers for an end.
    pub(crate) fn install() -> Result<Self, Failure> {
        Self::with(false)
    }

    /// Installs the handlers for an end and for reloads.
    pub(crate) fn install_with_reload() -> Result<Self, Failure> {
        Self::with(true)
    }

    fn with(reload: bool) -> Result<Self, Failure> {
        let install = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(
                    Exit::Software,
                    format!("signal handlers cannot be installed: {error}"),
                    "please report this",
                )
            })
        };
        Ok(Self {
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            hangup: if reload { Some(install(SignalKind::hangup())?) } else { None },
        })
    }

    /// The next signal that asks for an end, by name.
    pub(crate) async fn next(&mut self) -> &'static str {
        loop {
            if let Asked::End(signal) = self.asked().await {
                return signal;
            }
        }
    }

    /// The next signal.
    pub(crate) async fn asked(&mut self) -> Asked {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Asked::End("SIGTERM"),
            _ = self.interrupt.recv() => Asked::End("SIGINT"),
            _ = hangup => Asked::Reload,
        }
    }
}
