//! Where each of the documented event types would go, as a table.

use std::fmt;

use serde::Serialize;

use crate::config::{Config, Route, Target};
use crate::documented;
use crate::routing::outline;
use crate::sinks::naming;

/// What the routes make of the documented event types.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct RouteTable {
    rows: Vec<Row>,
    /// Routes that match none of them, by number.
    #[serde(skip)]
    unused: Vec<(usize, String)>,
}

/// Where one type goes.
#[derive(Serialize)]
struct Row {
    #[serde(rename = "type")]
    event_type: &'static str,
    #[serde(flatten)]
    fate: Fate,
}

#[derive(Serialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
enum Fate {
    /// By the route of this number, from 1.
    Published { route: usize, sink: String, to: String, format: &'static str, key: Vec<String> },
    /// By `sink = "none"`.
    Dropped,
    /// No route matches.
    DeadLetter,
}

impl RouteTable {
    /// Follows every type through the routes, as a bridge would.
    pub(super) fn of(config: &Config) -> Self {
        let mut rows = Vec::new();
        for event_type in documented::event_types() {
            let matching: Vec<(usize, &Route)> = Route::applying(&config.routes, event_type)
                .into_iter()
                .map(|index| (index + 1, &config.routes[index]))
                .collect();
            let published =
                matching.iter().filter_map(|(number, route)| published(config, *number, route, event_type));
            let before = rows.len();
            rows.extend(published.map(|fate| Row { event_type, fate }));
            if rows.len() == before {
                let fate = if matching.is_empty() { Fate::DeadLetter } else { Fate::Dropped };
                rows.push(Row { event_type, fate });
            }
        }
        let unused = config
            .routes
            .iter()
            .enumerate()
            .filter(|(_, route)| !documented::event_types().any(|event_type| route.matches(event_type)));
        let unused = unused.map(|(index, route)| (index + 1, route.match_texts().join(" "))).collect();
        Self { rows, unused }
    }
}

fn published(config: &Config, number: usize, route: &Route, event_type: &str) -> Option<Fate> {
    let Target::Sink { sink, to, key, format, .. } = &route.target else { return None };
    let sink = config.sink(*sink);
    let source = match config.sources.as_slice() {
        [only] => Some((only.name.as_str(), only.org_id.as_str())),
        _ => None,
    };
    Some(Fate::Published {
        route: number,
        sink: sink.name.clone(),
        to: outline(to, naming(&sink.kind), event_type, source),
        format: format.word(),
        key: key.iter().map(ToString::to_string).collect(),
    })
}

/// Columns as wide as they need to be; the last one is the key.
impl fmt::Display for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<[String; 5]> = self
            .rows
            .iter()
            .map(|row| {
                let event_type = row.event_type.to_owned();
                match &row.fate {
                    Fate::Published { sink, to, format, key, .. } => {
                        let key = if key.is_empty() { "none".to_owned() } else { key.join(" or ") };
                        [event_type, sink.clone(), to.clone(), (*format).to_owned(), key]
                    }
                    Fate::Dropped => {
                        [event_type, "(dropped)".to_owned(), String::new(), String::new(), String::new()]
                    }
                    Fate::DeadLetter => {
                        [event_type, "(dead letters)".to_owned(), String::new(), String::new(), String::new()]
                    }
                }
            })
            .collect();
        let head = ["EVENT TYPE", "SINK", "DESTINATION", "FORMAT", "KEY"].map(str::to_owned);
        let width = |column: usize| {
            lines.iter().chain([&head]).map(|line| line[column].chars().count()).max().unwrap_or_default()
        };
        let widths = [width(0), width(1), width(2), width(3)];
        for line in [&head].into_iter().chain(&lines) {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(widths) {
                text.push_str(&format!("{cell:width$}  "));
            }
            text.push_str(&line[4]);
            writeln!(f, "{}", text.trim_end())?;
        }
        for (number, patterns) in &self.unused {
            writeln!(
                f,
                "route {number} ({patterns}) matches no documented event type: it waits for undocumented ones"
            )?;
        }
        Ok(())
    }
}
