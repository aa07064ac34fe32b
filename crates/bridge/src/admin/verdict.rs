//! The state of a bridge in a sentence, for somebody who was just woken up. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::status::{SinkState, SourceState, Status};

/// What there is to know first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// A word for programs.
    pub(crate) state: State,
    /// Whether anybody has to do anything.
    pub(crate) level: Level,
    /// For people.
    pub(crate) sentence: String,
}

/// What a bridge is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Not everything has been up yet.
    #[default]
    Starting,
    /// All is well.
    Flowing,
    /// All is up, but events wait.
    CatchingUp,
    /// A best-effort sink is down.
    Degraded,
    /// A required sink takes no records.
    SinkDown,
    /// A source has no session.
    SessionLost,
    /// It was asked to stop.
    Stopping,
    /// It is over.
    Stopped,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// Nothing to do.
    #[default]
    Ok,
    /// Have an eye on it.
    Warning,
    /// Events do not get where they should.
    Error,
}

/// An event that waits longer than this is told of.
const WAITS_LONG: Duration = Duration::from_secs(5);
/// What has never been up counts as starting for so long.
const STARTS_FOR: Duration = Duration::from_secs(10);

impl Verdict {
    /// Judges everything else in `status`.
    pub(crate) fn of(status: &Status) -> Self {
        let (state, mut level, mut sentence) = judge(status);
        let buried: u64 = status.sources.values().flat_map(|source| source.dead_lettered.values()).sum();
        if buried > 0 {
            sentence.push_str(&format!(" {} in the dead letters.", events_are(buried)));
        }
        for danger in &status.dangers {
            level = level.max(Level::Warning);
            sentence.push_str(&format!(" DANGER: {danger}"));
        }
        Self { state, level, sentence }
    }
}

fn judge(status: &Status) -> (State, Level, String) {
    let sources = &status.sources;
    let held: u64 = sources.values().map(|source| source.unacknowledged as u64).sum();
    if !sources.is_empty() && sources.values().all(SourceState::is_stopped) {
        return if held == 0 {
            (State::Stopped, Level::Ok, "Stopped; every event is acknowledged.".to_owned())
        } else {
            let sentence =
                format!("Stopped; {} unacknowledged and will be delivered again.", events_are(held));
            (State::Stopped, Level::Warning, sentence)
        };
    }
    if sources.values().any(SourceState::is_stopping) {
        let sentence = format!("Stopping; {} still on the way.", events_are(held));
        return (State::Stopping, Level::Warning, sentence);
    }
    let mut troubles = Vec::new();
    for (name, source) in sources.iter().filter(|(_, source)| !source.session_up) {
        troubles.push(source_trouble(name, source, status.uptime_seconds));
    }
    for (name, sink) in status.sinks.iter().filter(|(_, sink)| !sink.up && sink.required) {
        troubles.push(sink_trouble(name, sink, status.uptime_seconds, held));
    }
    if troubles.is_empty() {
        return quiet(status, held);
    }
    // The worst decides what it is called; what is equally bad stays in its order.
    let (state, level) = troubles
        .iter()
        .map(|(state, level, _)| (*state, *level))
        .reduce(|worst, next| if next.1 > worst.1 { next } else { worst })
        .unwrap_or_default();
    let said: Vec<&str> = troubles.iter().take(2).map(|(_, _, text)| text.as_str()).collect();
    let mut sentence = said.join(" ");
    if troubles.len() > said.len() {
        sentence.push_str(&format!(" {} more below.", troubles.len() - said.len()));
    }
    (state, level, sentence)
}

fn source_trouble(name: &str, source: &SourceState, uptime: f64) -> (State, Level, String) {
    let reason = source.reason.as_deref().unwrap_or("it is being set up");
    let never_up = source.session_age_seconds.is_none() && source.received == 0;
    if never_up && uptime < STARTS_FOR.as_secs_f64() {
        (State::Starting, Level::Warning, format!("Starting: source {name} has no session yet ({reason})."))
    } else {
        let sentence = format!("Source {name} has no session ({reason}); it is tried again by itself.");
        (State::SessionLost, Level::Error, sentence)
    }
}

fn sink_trouble(name: &str, sink: &SinkState, uptime: f64, held: u64) -> (State, Level, String) {
    let reason = sink.reason.as_deref().unwrap_or("no reason is known");
    if sink.published == 0 && uptime < STARTS_FOR.as_secs_f64() {
        return (State::Starting, Level::Warning, format!("Starting: sink {name} is not up yet ({reason})."));
    }
    let since = seconds(sink.since_seconds);
    let safe = if held == 0 {
        "nothing waits for it".to_owned()
    } else {
        format!("{} held and unacknowledged, so nothing is lost", events_are(held))
    };
    let sentence = format!("Sink {name} has taken no records for {since} ({reason}); {safe}.");
    (State::SinkDown, Level::Error, sentence)
}

/// Everything that is required is up.
fn quiet(status: &Status, held: u64) -> (State, Level, String) {
    let sources = status.sources.values();
    let oldest =
        sources.clone().filter_map(|source| source.oldest_unacknowledged_seconds).fold(0.0, f64::max);
    let last = sources.clone().filter_map(|source| source.last_event_seconds).reduce(f64::min);
    let received: u64 = sources.map(|source| source.received).sum();
    let flow = match last {
        _ if oldest > WAITS_LONG.as_secs_f64() => {
            let sentence = format!(
                "{} not yet published and acknowledged, the oldest for {}.",
                events_are(held),
                seconds(oldest)
            );
            return (State::CatchingUp, Level::Warning, sentence);
        }
        None if received == 0 => "Connected; no event has come yet.".to_owned(),
        last if held == 0 => {
            let last = last.map_or_else(String::new, |last| format!("; last event {} ago", seconds(last)));
            format!("Everything received has been published{last}.")
        }
        _ => format!("Events flow; {} on the way.", events_are(held)),
    };
    let down: Vec<&str> =
        status.sinks.iter().filter(|(_, sink)| !sink.up).map(|(name, _)| name.as_str()).collect();
    if down.is_empty() {
        return (State::Flowing, Level::Ok, flow);
    }
    let sentence = format!("{flow} Best-effort sink {} is down.", down.join(", "));
    (State::Degraded, Level::Warning, sentence)
}

fn events_are(count: u64) -> String {
    if count == 1 { "1 event is".to_owned() } else { format!("{count} events are") }
}

/// A duration as people say it: two units at most.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    if days > 0 {
        format!("{days} d {hours} h")
    } else if hours > 0 {
        format!("{hours} h {minutes} min")
    } else if minutes > 0 {
        format!("{minutes} min {} s", whole % 60)
    } else {
        format!("{whole} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flowing() -> Status {
        let mut status = Status { uptime_seconds: 100.0, ..Status::default() };
        let source = SourceState {
            phase: "polling".to_owned(),
            session_up: true,
            received: 7,
            last_event_seconds: Some(2.4),
            ..SourceState::default()
        };
        status.sources.insert("main".to_owned(), source);
        let sink = SinkState { up: true, required: true, published: 7, ..SinkState::default() };
        status.sinks.insert("lake".to_owned(), sink);
        status
    }

    fn verdict(change: impl FnOnce(&mut SourceState, &mut SinkState, &mut f64)) -> (State, Level, String) {
        let mut status = flowing();
        let source = status.sources.get_mut("main").unwrap();
        let sink = status.sinks.get_mut("lake").unwrap();
        change(source, sink, &mut status.uptime_seconds);
        let Verdict { state, level, sentence } = Verdict::of(&status);
        (state, level, sentence)
    }

    #[track_caller]
    fn says(found: (State, Level, String), state: State, level: Level, sentence: &str) {
        assert_eq!(found, (state, level, sentence.to_owned()));
    }

    #[test]
    fn a_bridge_that_works() {
        says(
            verdict(|_, _, _| {}),
            State::Flowing,
            Level::Ok,
            "Everything received has been published; last event 2 s ago.",
        );
        says(
            verdict(|source, _, _| {
                source.received = 0;
                source.last_event_seconds = None;
            }),
            State::Flowing,
            Level::Ok,
            "Connected; no event has come yet.",
        );
        says(
            verdict(|source, _, _| source.unacknowledged = 12),
            State::Flowing,
            Level::Ok,
            "Events flow; 12 events are on the way.",
        );
        says(
            verdict(|source, _, _| {
                source.unacknowledged = 12;
                source.oldest_unacknowledged_seconds = Some(64.0);
            }),
            State::CatchingUp,
            Level::Warning,
            "12 events are not yet published and acknowledged, the oldest for 1 min 4 s.",
        );
    }

    #[test]
    fn a_bridge_that_starts() {
        says(
            verdict(|source, _, uptime| {
                (source.session_up, source.received, *uptime) = (false, 0, 3.0);
            }),
            State::Starting,
            Level::Warning,
            "Starting: source main has no session yet (it is being set up).",
        );
        says(
            verdict(|_, sink, uptime| {
                (sink.up, sink.published, *uptime) = (false, 0, 3.0);
                sink.reason = Some("connecting".to_owned());
            }),
            State::Starting,
            Level::Warning,
            "Starting: sink lake is not up yet (connecting).",
        );
    }

    #[test]
    fn a_broker_that_is_away() {
        says(
            verdict(|source, sink, _| {
                source.unacknowledged = 340;
                (sink.up, sink.since_seconds) = (false, 7300.0);
                sink.reason = Some("connection refused".to_owned());
            }),
            State::SinkDown,
            Level::Error,
            "Sink lake has taken no records for 2 h 1 min (connection refused); 340 events are held and unacknowledged, so nothing is lost.",
        );
        says(
            verdict(|_, sink, _| (sink.up, sink.required) = (false, false)),
            State::Degraded,
            Level::Warning,
            "Everything received has been published; last event 2 s ago. Best-effort sink lake is down.",
        );
    }

    #[test]
    fn a_session_that_is_lost() {
        says(
            verdict(|source, _, _| {
                source.session_up = false;
                source.reason = Some("session_create: 503".to_owned());
                source.dead_lettered.insert("unrouted".to_owned(), 1);
            }),
            State::SessionLost,
            Level::Error,
            "Source main has no session (session_create: 503); it is tried again by itself. 1 event is in the dead letters.",
        );
    }

    #[test]
    fn the_worst_gives_the_name_and_both_are_said() {
        let (state, level, sentence) = verdict(|source, sink, uptime| {
            (source.session_up, source.received, *uptime) = (false, 0, 3.0);
            (sink.up, sink.since_seconds) = (false, 20.0);
        });
        assert_eq!((state, level), (State::SinkDown, Level::Error));
        assert!(sentence.contains("source main") && sentence.contains("Sink lake"), "{sentence}");
    }

    #[test]
    fn an_end() {
        says(
            verdict(|source, _, _| {
                source.phase = "stopping".to_owned();
                source.unacknowledged = 1;
            }),
            State::Stopping,
            Level::Warning,
            "Stopping; 1 event is still on the way.",
        );
        says(
            verdict(|source, _, _| source.phase = "stopped".to_owned()),
            State::Stopped,
            Level::Ok,
            "Stopped; every event is acknowledged.",
        );
        says(
            verdict(|source, _, _| {
                source.phase = "stopped".to_owned();
                source.unacknowledged = 5;
            }),
            State::Stopped,
            Level::Warning,
            "Stopped; 5 events are unacknowledged and will be delivered again.",
        );
    }
}
