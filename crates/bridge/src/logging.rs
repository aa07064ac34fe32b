//! Logs: to stderr, as text on a terminal and as JSON elsewhere. Standard output belongs to the stdout sink.

use std::io::{IsTerminal, stderr};

use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Changes what is logged, while it is logged.
pub(crate) struct LogLevel(Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>);

impl LogLevel {
    /// From now on, in the words of `log.level`.
    pub(crate) fn set(&self, level: &str) {
        if let Err(error) = (self.0)(filter(level)) {
            warn!(error, "the log level cannot be changed");
        }
    }
}

impl std::fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogLevel").finish_non_exhaustive()
    }
}

fn filter(level: &str) -> EnvFilter {
    // The NATS client tells every step of a connection, and every try in an outage as an error; so does whoever verifies
    // certificates. The sink and the poller tell what matters.
    let quiet =
        ["async_nats", "rustls_platform_verifier"].into_iter().filter(|target| !level.contains(target));
    let quiet = quiet.filter_map(|target| format!("{target}=off").parse().ok());
    quiet.fold(EnvFilter::new(level), EnvFilter::add_directive)
}

/// Starts logging for the rest of the process.
pub(crate) fn init(log: &Log) -> LogLevel {
    let terminal = stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter(&log.level)).with_writer(stderr).with_target(false);
    if json {
        let subscriber = subscriber.json().with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.flatten_event(true).with_current_span(false).with_span_list(false).init();
        LogLevel(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())))
    } else {
        // https://no-color.org: any value but the empty one switches colours off.
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let subscriber = subscriber.with_ansi(color).with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.init();
        LogLevel(Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string())))
    }
}
