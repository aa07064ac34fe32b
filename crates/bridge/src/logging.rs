//! Logs: to stderr, as text on a terminal and as JSON elsewhere. Standard output belongs to the stdout sink.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging for the rest of the process.
pub(crate) fn init(log: &Log) {
    let mut filter = EnvFilter::new(&log.level);
    // The NATS client tells every step of a connection; the sink tells what matters of it.
    if !log.level.contains("async_nats")
        && let Ok(quiet) = "async_nats=warn".parse()
    {
        filter = filter.add_directive(quiet);
    }
    let terminal = stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    if json {
        subscriber.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        // https://no-color.org: any value but the empty one switches colours off.
        let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        subscriber.with_ansi(color).init();
    }
}
