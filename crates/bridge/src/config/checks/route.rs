//! `[[route]]` and `[dead_letter]`.

use super::super::checked::{DeadLetter, Format, Route, SinkIndex, SinkKind, Target};
use super::super::field::{Field, Given};
use super::super::pattern::{Pattern, PatternError};
use super::super::raw;
use super::super::reader::label;
use super::super::template::{Segment, Template, is_field};
use super::super::tree::Origin;
use super::sink::{NamedSink, which_sink};
use super::{Checks, Section};

/// The fields of which the first usable one is the key, unless a route names others. Phone numbers never are.
const DEFAULT_KEY: [&str; 5] = ["interactionId", "sessionId", "userId", "ehubSessionId", "correlationId"];

/// Longer names are refused by Kafka.
const KAFKA_TOPIC_MAX: usize = 249;

impl Checks<'_> {
    /// Routes and dead letters, which both name sinks.
    pub(super) fn routing(
        &mut self,
        raw: &raw::Config,
        sinks: &[NamedSink],
    ) -> Option<(Vec<Route>, DeadLetter)> {
        let routes = match &raw.route {
            Field::Absent => Some(default_routes(sinks)),
            Field::Wrong => None,
            Field::Given(given) if given.value.is_empty() => Some(default_routes(sinks)),
            Field::Given(given) => self.routes(&given.value, sinks),
        };
        let dead_letter = self.dead_letter(&raw.dead_letter, sinks);
        if let (Some(routes), Some(dead_letter)) = (&routes, &dead_letter) {
            self.idle_sinks(raw, routes, dead_letter, sinks);
        }
        Some((routes?, dead_letter?))
    }

    fn routes(&mut self, items: &[Field<raw::Route>], sinks: &[NamedSink]) -> Option<Vec<Route>> {
        let routes: Vec<_> = items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let given = item.given()?;
                let section = Section::new(label(&format!("route#{}", index + 1)), given.at);
                self.route(&given.value, &section, sinks).map(|route| (section, route))
            })
            .collect();
        let routes: Vec<_> = routes.into_iter().collect::<Option<_>>()?;
        for (index, (section, route)) in routes.iter().enumerate() {
            let Target::Sink { sink, .. } = route.target else { continue };
            let before =
                routes[..index].iter().map(|(_, route)| route).filter(|earlier| to_sink(earlier, sink));
            let earlier: Vec<_> = before.flat_map(|earlier| &earlier.patterns).collect();
            let covered =
                |pattern: &Pattern| earlier.iter().any(|one| one.is_everything() || *one == pattern);
            if route.patterns.iter().all(covered) {
                let message =
                    format!("{} never applies: an earlier route to this sink matches first", section.label);
                self.warn(section.at, message, "move it up, or remove it");
            }
        }
        Some(routes.into_iter().map(|(_, route)| route).collect())
    }

    fn route(&mut self, raw: &raw::Route, section: &Section, sinks: &[NamedSink]) -> Option<Route> {
        let patterns = self.patterns(&raw.patterns, section);
        if raw.sink.given().is_some_and(|sink| sink.value == "none") {
            for (key, at) in
                [("to", place(&raw.to)), ("key", place(&raw.key)), ("format", place(&raw.format))]
            {
                if let Some(at) = at {
                    let message =
                        format!("`{key}` in {} has no meaning where events are dropped", section.label);
                    self.wrong(at, message, "remove it");
                }
            }
            return Some(Route { patterns: patterns?, target: Target::Drop });
        }
        let example = sinks.first().map_or("lake", |(name, _)| name);
        let sink = self.named_sink(&raw.sink, section, example, sinks);
        let kind = sink.and_then(|index| sinks[index.0].1.as_ref()).map(|sink| &sink.kind);
        let to = match (&raw.to, kind) {
            (Field::Absent, Some(kind)) => Some(default_template(kind)),
            (Field::Absent, None) => None,
            (to, kind) => self.template(to, section, kind),
        };
        let key = match raw.key {
            Field::Absent => Some(default_key()),
            _ => self.key(&raw.key, section),
        };
        let format = match raw.format.or(raw::Format::Unwrapped) {
            Some(raw::Format::Unwrapped) => Some(Format::Unwrapped),
            Some(raw::Format::Raw) => Some(Format::Raw),
            Some(raw::Format::Payload | raw::Format::CloudEvents) => {
                let what = format!("this `format` in {}", section.label);
                self.unavailable(raw.format.at(), what, "write format = \"unwrapped\" or format = \"raw\"");
                None
            }
            None => None,
        };
        Some(Route {
            patterns: patterns?,
            target: Target::Sink { sink: sink?, to: to?, key: key?, format: format? },
        })
    }

    fn patterns(&mut self, raw: &Field<Vec<Field<String>>>, section: &Section) -> Option<Vec<Pattern>> {
        let list = self.need(raw, "match", section, "[\"*\"]")?;
        if list.value.is_empty() {
            self.wrong(
                list.at,
                format!("`match` in {} is empty: no event matches", section.label),
                "write match = [\"*\"]",
            );
            return None;
        }
        let patterns: Vec<_> = list
            .value
            .iter()
            .map(|item| {
                let item = item.given()?;
                Pattern::parse(&item.value)
                    .map_err(|error| {
                        let hint = match error {
                            PatternError::Exclusion => "list the types that you want instead",
                            _ => "write an event type, with * for any characters: \"engagementCenter.*\"",
                        };
                        self.wrong(
                            item.at,
                            format!("a pattern in `match` of {} {error}", section.label),
                            hint,
                        );
                    })
                    .ok()
            })
            .collect();
        patterns.into_iter().collect()
    }

    fn key(&mut self, raw: &Field<Vec<Field<String>>>, section: &Section) -> Option<Vec<String>> {
        let fields = self.texts(raw, "key", section)?;
        let wrong: Vec<_> =
            fields.iter().filter(|field| !is_field(&field.value)).map(|field| field.at).collect();
        for at in &wrong {
            let message = format!("`key` in {} must be names of event fields", section.label);
            self.wrong(*at, message, "write key = [\"interactionId\", \"userId\"]; [] is no key");
        }
        wrong.is_empty().then(|| fields.into_iter().map(|field| field.value).collect())
    }

    fn named_sink(
        &mut self,
        raw: &Field<String>,
        section: &Section,
        example: &str,
        sinks: &[NamedSink],
    ) -> Option<SinkIndex> {
        let given = self.need(raw, "sink", section, &format!("\"{example}\""))?;
        let found = sinks.iter().position(|(name, _)| *name == given.value);
        if found.is_none() {
            let message =
                format!("{} goes to `{}`, which is no sink", section.label, given.value.escape_debug());
            self.wrong(given.at, message, which_sink(&given.value, sinks));
        }
        found.map(SinkIndex)
    }

    /// A template, fit for its sink where that one is known.
    fn template(
        &mut self,
        raw: &Field<String>,
        section: &Section,
        kind: Option<&SinkKind>,
    ) -> Option<Template> {
        let given = raw.given()?;
        let template = match Template::parse(&given.value) {
            Ok(template) => template,
            Err(error) => {
                let hint = "write it like to = \"via.{category}\"";
                self.wrong(given.at, format!("`to` in {} {error}", section.label), hint);
                return None;
            }
        };
        let Some(kind) = kind else { return Some(template) };
        if template.literal_prefix().starts_with("_viaduct") {
            let message =
                format!("`to` in {} starts with `_viaduct`, where checkpoints are kept", section.label);
            self.wrong(given.at, message, "choose another name");
            return None;
        }
        if let Some(problem) = unfit(&template, kind) {
            self.wrong(given.at, format!("`to` in {} {problem}", section.label), "choose another name");
            return None;
        }
        if template.segments().iter().any(|segment| replaced(segment, kind)) {
            let message = format!("`to` in {} has characters that this sink does not allow", section.label);
            self.warn(given.at, message, "they become `_`; use letters, digits, `.`, `_` and `-`");
        }
        Some(template)
    }

    fn dead_letter(&mut self, raw: &Field<raw::DeadLetter>, sinks: &[NamedSink]) -> Option<DeadLetter> {
        let given = match raw {
            Field::Absent => return Some(DeadLetter::LocalFile),
            Field::Wrong => return None,
            Field::Given(given) => given,
        };
        let (raw, section) = (&given.value, Section::new("[dead_letter]", given.at));
        let example = sinks.first().map_or("lake", |(name, _)| name);
        let sink = self.named_sink(&raw.sink, &section, example, sinks)?;
        let kind = sinks[sink.0].1.as_ref().map(|sink| &sink.kind);
        if let Some(SinkKind::Stdout) = kind {
            let message = "`sink` in [dead_letter] is stdout, which keeps nothing";
            self.wrong(raw.sink.at(), message, "use a kafka, nats or file sink, or remove [dead_letter]");
        }
        let to = match (&raw.to, kind) {
            (Field::Absent, Some(SinkKind::File(_) | SinkKind::Stdout)) => Some(literal("dead-letter")),
            (Field::Absent, Some(SinkKind::Kafka(_) | SinkKind::Nats(_))) => Some(literal("via.dead-letter")),
            (Field::Absent, None) => None,
            (to, kind) => self.template(to, &section, kind),
        };
        Some(DeadLetter::Sink { sink, to: to? })
    }

    /// A sink to which nothing goes is most likely a route forgotten.
    fn idle_sinks(
        &mut self,
        raw: &raw::Config,
        routes: &[Route],
        dead_letter: &DeadLetter,
        sinks: &[NamedSink],
    ) {
        let Some(named) = raw.sink.given() else { return };
        for (index, ((name, _), (_, field))) in sinks.iter().zip(&named.value.0).enumerate() {
            let index = SinkIndex(index);
            let buried = matches!(dead_letter, DeadLetter::Sink { sink, .. } if *sink == index);
            if !buried && !routes.iter().any(|route| to_sink(route, index)) {
                let message =
                    format!("{} receives nothing: no route goes to it", label(&format!("sink.{name}")));
                self.warn(
                    field.at(),
                    message,
                    format!("add a [[route]] with sink = \"{name}\", or remove it"),
                );
            }
        }
    }
}

fn to_sink(route: &Route, index: SinkIndex) -> bool {
    matches!(&route.target, Target::Sink { sink, .. } if *sink == index)
}

/// Everything to every sink.
fn default_routes(sinks: &[NamedSink]) -> Vec<Route> {
    let right =
        sinks.iter().enumerate().filter_map(|(index, (_, sink))| Some((SinkIndex(index), sink.as_ref()?)));
    right
        .map(|(index, sink)| Route {
            patterns: vec![Pattern::everything()],
            target: Target::Sink {
                sink: index,
                to: default_template(&sink.kind),
                key: default_key(),
                format: Format::Unwrapped,
            },
        })
        .collect()
}

fn default_key() -> Vec<String> {
    DEFAULT_KEY.map(str::to_owned).to_vec()
}

fn default_template(kind: &SinkKind) -> Template {
    literal(match kind {
        SinkKind::Kafka(_) => "via.{category}",
        SinkKind::Nats(_) => "via.{org}.{category}.{name}",
        SinkKind::File(_) | SinkKind::Stdout => "{category}",
    })
}

/// A template of this program's own.
fn literal(text: &str) -> Template {
    Template::parse(text).expect("written here, and tested")
}

/// What makes every name of this template impossible.
fn unfit(template: &Template, kind: &SinkKind) -> Option<&'static str> {
    let text = template.to_string();
    match kind {
        SinkKind::Nats(_) if text.split('.').any(str::is_empty) => Some("has an empty part between dots"),
        SinkKind::Nats(_) if text.starts_with('$') => Some("starts with `$`, which belongs to the server"),
        SinkKind::Kafka(_) if text == "." || text == ".." => Some("is no topic"),
        SinkKind::Kafka(_) => {
            let literals = template.segments().iter().map(|segment| match segment {
                Segment::Literal(text) => text.len(),
                Segment::Field(_) => 1,
            });
            (literals.sum::<usize>() > KAFKA_TOPIC_MAX).then_some("is longer than 249 characters")
        }
        _ => None,
    }
}

/// Whether a piece has characters which the sink replaces.
fn replaced(segment: &Segment, kind: &SinkKind) -> bool {
    let Segment::Literal(text) = segment else { return false };
    !text.chars().all(|c| match kind {
        SinkKind::Kafka(_) | SinkKind::File(_) => c.is_ascii_alphanumeric() || "._-".contains(c),
        SinkKind::Nats(_) => !c.is_whitespace() && !c.is_control() && !"*>".contains(c),
        SinkKind::Stdout => true,
    })
}

/// Where a key stands, if it is there and right.
fn place<T>(field: &Field<T>) -> Option<Origin> {
    field.given().map(|Given { at, .. }| *at)
}
