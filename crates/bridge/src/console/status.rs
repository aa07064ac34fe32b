//! `viaduct status`: the state of a running bridge on one screen.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use super::client::Bridge;
use super::paint::Paint;
use super::{tame, written};
use crate::admin::status::{SinkState, SourceState, Status};
use crate::admin::verdict::{Level, seconds};
use crate::cli::StatusArgs;
use crate::exit::Failure;

/// How often `--watch` looks.
const EACH: Duration = Duration::from_secs(1);
/// To the upper left corner, and clear from there.
const CLEAR: &str = "\x1b[H\x1b[J";
/// Eighths of a character's height.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// How many seconds a sparkline covers.
const SPARKS: usize = 30;

/// Prints the state; with `--watch` each second, until Ctrl-C.
///
/// # Errors
/// 69 where no bridge answers. A bridge that is away is waited for with `--watch`.
pub(crate) async fn status(args: &StatusArgs) -> Result<(), Failure> {
    let bridge = Bridge::of(&args.bridge)?;
    let paint = Paint::of_stdout();
    if !args.watch {
        let status = bridge.status().await?;
        return written(show(&screen(&status, bridge.address(), paint), &status, args.json)).map(drop);
    }
    let redraw = stdout().is_terminal() && !args.json;
    loop {
        let go_on = match bridge.status().await {
            Ok(status) => {
                let text = screen(&status, bridge.address(), paint);
                let text = if redraw { format!("{CLEAR}{text}") } else { text };
                show(&text, &status, args.json)
            }
            Err(failure) if redraw => print(&format!("{CLEAR}{}\n", paint.level(Level::Error, failure))),
            Err(failure) => {
                eprintln!("viaduct: {failure}");
                Ok(())
            }
        };
        if !written(go_on)? {
            return Ok(());
        }
        tokio::time::sleep(EACH).await;
    }
}

fn show(text: &str, status: &Status, json: bool) -> std::io::Result<()> {
    if !json {
        return print(text);
    }
    let mut line = serde_json::to_string(status)?;
    line.push('\n');
    print(&line)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The whole screen.
fn screen(status: &Status, address: &str, paint: Paint) -> String {
    let mut text = format!(
        "{}  {}\n{}\n",
        paint.bold(tame(&status.bridge)),
        paint.dim(format!(
            "viaduct {}, up for {}, at {address}",
            tame(&status.version),
            seconds(status.uptime_seconds)
        )),
        paint.level(status.verdict.level, tame(&status.verdict.sentence)),
    );
    for (name, source) in &status.sources {
        push_source(&mut text, name, source, paint);
    }
    text.push('\n');
    for (name, sink) in &status.sinks {
        push_sink(&mut text, name, sink, paint);
    }
    text
}

fn push_source(text: &mut String, name: &str, source: &SourceState, paint: Paint) {
    let level = if source.session_up { Level::Ok } else { Level::Error };
    let phase = paint.level(level, &source.phase);
    let _ = writeln!(text, "\nsource {}  {phase}", paint.bold(tame(name)));
    if let Some(reason) = &source.reason {
        let _ = writeln!(text, "  {}", paint.level(level.max(Level::Warning), tame(reason)));
    }
    let _ = writeln!(
        text,
        "  received {} → published {} → acknowledged {}   redelivered {}",
        source.received, source.published, source.acknowledged, source.redelivered
    );
    let oldest = source.oldest_unacknowledged_seconds;
    let oldest = oldest.map_or_else(String::new, |since| format!(", the oldest for {}", seconds(since)));
    let latency = source.latency.map_or_else(
        || "no latency in the last minute".to_owned(),
        |of| format!("latency p50 {}, p99 {}", short(of.p50_seconds), short(of.p99_seconds)),
    );
    let _ = writeln!(text, "  unacknowledged {}{oldest}   {latency}", source.unacknowledged);
    let age = source.session_age_seconds.map_or_else(|| "–".to_owned(), seconds);
    let left = source.session_expires_in_seconds.map_or_else(|| "–".to_owned(), seconds);
    let token = source.token_expires_in_seconds.map_or_else(|| "–".to_owned(), seconds);
    let _ = writeln!(text, "  session age {age}, dropped by the vendor in {left}   token expires in {token}");
    let width = source.categories.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    for (name, category) in &source.categories {
        let now = category.rate.last().copied().unwrap_or(0);
        let rest = &category.rate[category.rate.len().saturating_sub(SPARKS)..];
        let _ = writeln!(
            text,
            "  {:<width$}  {:>SPARKS$}  {now}/s   {} received",
            tame(name),
            spark(rest),
            category.received
        );
    }
    if !source.dead_lettered.is_empty() {
        let reasons: Vec<String> =
            source.dead_lettered.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = writeln!(
            text,
            "  {}",
            paint.level(Level::Warning, format!("dead letters: {}", reasons.join(", ")))
        );
    }
}

fn push_sink(text: &mut String, name: &str, sink: &SinkState, paint: Paint) {
    let level = match (sink.up, sink.required) {
        (true, _) => Level::Ok,
        (false, false) => Level::Warning,
        (false, true) => Level::Error,
    };
    let word = paint.level(level, if sink.up { "up" } else { "down" });
    let weight = if sink.required { "" } else { " (best effort)" };
    let retries: Vec<String> =
        sink.retries.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let retries = if retries.is_empty() { "none".to_owned() } else { retries.join(", ") };
    let dropped = if sink.dropped > 0 { format!("   dropped {}", sink.dropped) } else { String::new() };
    let _ = writeln!(
        text,
        "sink {}{weight}  {word} for {}   {} records   retries {retries}{dropped}",
        paint.bold(tame(name)),
        seconds(sink.since_seconds),
        sink.published
    );
    if let Some(reason) = &sink.reason {
        let _ = writeln!(text, "  {}", paint.level(level, tame(reason)));
    }
    for weakness in &sink.weaknesses {
        let _ = writeln!(text, "  {}", paint.level(Level::Warning, tame(weakness)));
    }
}

fn short(of: f64) -> String {
    match of {
        of if of < 0.001 => "< 1 ms".to_owned(),
        of if of < 1.0 => format!("{:.0} ms", of * 1000.0),
        of if of < 60.0 => format!("{of:.1} s"),
        of => seconds(of),
    }
}

fn spark(rate: &[u32]) -> String {
    let most = rate.iter().copied().max().unwrap_or(0).max(1);
    // 0 is the lowest bar, anything else is above it.
    rate.iter().map(|&value| BARS[(u64::from(value) * 7).div_ceil(u64::from(most)) as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{Category, LatencyState};
    use crate::admin::verdict::Verdict;

    fn status() -> Status {
        let mut status = Status {
            bridge: "edge".to_owned(),
            version: "1.2.3".to_owned(),
            uptime_seconds: 3720.0,
            ..Status::default()
        };
        let mut source = SourceState {
            phase: "polling".to_owned(),
            session_up: true,
            session_age_seconds: Some(3700.0),
            session_expires_in_seconds: Some(118.2),
            token_expires_in_seconds: Some(1800.0),
            unacknowledged: 12,
            oldest_unacknowledged_seconds: Some(3.0),
            last_event_seconds: Some(0.3),
            received: 1012,
            published: 1000,
            acknowledged: 1000,
            latency: Some(LatencyState { p50_seconds: 0.012, p99_seconds: 2.25 }),
            ..SourceState::default()
        };
        source.dead_lettered.insert("unrouted".to_owned(), 2);
        let category = Category { received: 1012, rate: vec![0, 1, 4, 8], ..Category::default() };
        source.categories.insert("chat\x1b[2J".to_owned(), category);
        status.sources.insert("main".to_owned(), source);
        let sink = SinkState {
            required: true,
            since_seconds: 4.0,
            published: 1000,
            reason: Some("connection refused".to_owned()),
            retries: [("timeout".to_owned(), 3)].into(),
            weaknesses: vec!["stream VIA has replicas 1".to_owned()],
            ..SinkState::default()
        };
        status.sinks.insert("lake".to_owned(), sink);
        status.verdict = Verdict::of(&status);
        status
    }

    #[test]
    fn one_screen_says_it_all() {
        insta::assert_snapshot!(screen(&status(), "127.0.0.1:9464", Paint::PLAIN), @r"
        edge  viaduct 1.2.3, up for 1 h 2 min, at 127.0.0.1:9464
        Sink lake has taken no records for 4 s (connection refused); 12 events are held and unacknowledged, so nothing is lost. 2 events are in the dead letters.

        source main  polling
          received 1012 → published 1000 → acknowledged 1000   redelivered 0
          unacknowledged 12, the oldest for 3 s   latency p50 12 ms, p99 2.2 s
          session age 1 h 1 min, dropped by the vendor in 1 min 58 s   token expires in 30 min 0 s
          chat�[2J                            ▁▂▅█  8/s   1012 received
          dead letters: unrouted 2

        sink lake  down for 4 s   1000 records   retries 3 timeout
          connection refused
          stream VIA has replicas 1
        ");
    }

    #[test]
    fn colours_are_all_that_steers_the_terminal() {
        let coloured = screen(&status(), "127.0.0.1:9464", Paint::COLOURED);
        assert!(coloured.contains("\x1b[31m"), "{coloured:?}");
        let rest = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m"]
            .iter()
            .fold(coloured, |text, code| text.replace(code, ""));
        assert_eq!(rest, screen(&status(), "127.0.0.1:9464", Paint::PLAIN));
        assert!(!rest.contains('\x1b'));
    }

    #[test]
    fn what_is_printed_as_json_can_be_read_again() {
        let text = serde_json::to_string(&status()).unwrap();
        let again: Status = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&again).unwrap(), text);
    }
}
