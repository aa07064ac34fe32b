//! `[[route]]` and `[dead_letter]`.

use super::super::checked::{DeadLetter, Format, Route, SinkIndex, SinkKind, Target};
use super::super::field::{Field, Given};
use super::super::pattern::Pattern;
use super::super::raw;
use super::super::reader::label;
use super::super::template::{KeyPart, Segment, Template};
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
        self.reach(&routes);
        Some(routes.into_iter().map(|(_, route)| route).collect())
    }

    fn route(&mut self, raw: &raw::Route, section: &Section, sinks: &[NamedSink]) -> Option<Route> {
        let patterns = self.patterns(&raw.patterns, section);
        if raw.sink.given().is_some_and(|sink| sink.value == "none") {
            let places = [
                ("to", place(&raw.to)),
                ("key", place(&raw.key)),
                ("format", place(&raw.format)),
                ("headers", place(&raw.headers)),
            ];
            for (key, at) in places {
                if let Some(at) = at {
                    let message =
                        format!("`{key}` in {} has no meaning where events are dropped", section.label);
                    self.wrong(at, message, "remove it");
                }
            }
            let (patterns, exclusions) = patterns?;
            return Some(Route { patterns, exclusions, target: Target::Drop });
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
        let format = raw.format.or(raw::Format::Unwrapped).map(|format| match format {
            raw::Format::Unwrapped => Format::Unwrapped,
            raw::Format::Raw => Format::Raw,
            raw::Format::Payload => Format::Payload,
            raw::Format::CloudEvents => Format::CloudEvents,
        });
        let headers = self.headers(&raw.headers, section, kind);
        let (patterns, exclusions) = patterns?;
        Some(Route {
            patterns,
            exclusions,
            target: Target::Sink { sink: sink?, to: to?, key: key?, format: format?, headers: headers? },
        })
    }

    /// What a route matches, and what it does not.
    fn patterns(
        &mut self,
        raw: &Field<Vec<Field<String>>>,
        section: &Section,
    ) -> Option<(Vec<Pattern>, Vec<Pattern>)> {
        let list = self.need(raw, "match", section, "[\"*\"]")?;
        let mut right = true;
        let (mut patterns, mut exclusions) = (Vec::new(), Vec::new());
        for item in &list.value {
            let Some(item) = item.given() else {
                right = false;
                continue;
            };
            let (text, excludes) =
                item.value.strip_prefix('!').map_or((item.value.as_str(), false), |rest| (rest, true));
            match Pattern::parse(text) {
                Ok(pattern) => {
                    self.spelling(&pattern, item.at, section);
                    if excludes { exclusions.push(pattern) } else { patterns.push(pattern) }
                }
                Err(error) => {
                    let hint = "write an event type, with * for any characters: \"engagementCenter.*\"";
                    self.wrong(item.at, format!("a pattern in `match` of {} {error}", section.label), hint);
                    right = false;
                }
            }
        }
        if right && patterns.is_empty() {
            let (what, hint) = if exclusions.is_empty() {
                ("is empty: no event matches", "write match = [\"*\"]")
            } else {
                ("has only `!` patterns: no event matches", "add \"*\" for all other events")
            };
            self.wrong(list.at, format!("`match` in {} {what}", section.label), hint);
            right = false;
        }
        right.then_some((patterns, exclusions))
    }

    fn key(&mut self, raw: &Field<Vec<Field<String>>>, section: &Section) -> Option<Vec<KeyPart>> {
        let texts = self.texts(raw, "key", section)?;
        let mut parts = Vec::with_capacity(texts.len());
        for text in &texts {
            match KeyPart::parse(&text.value) {
                Ok(part) => parts.push(part),
                Err(_) => {
                    let message =
                        format!("`key` in {} must be event fields, templates or constants", section.label);
                    let hint =
                        "write key = [\"interactionId\", \"{org}-{userId}\", '\"constant\"']; [] is no key";
                    self.wrong(text.at, message, hint);
                }
            }
        }
        (parts.len() == texts.len()).then_some(parts)
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
            exclusions: Vec::new(),
            target: Target::Sink {
                sink: index,
                to: default_template(&sink.kind),
                key: default_key(),
                format: Format::Unwrapped,
                headers: Vec::new(),
            },
        })
        .collect()
}

/// The key of a route that names none.
fn default_key() -> Vec<KeyPart> {
    DEFAULT_KEY.map(|field| KeyPart::parse(field).expect("written here, and tested")).to_vec()
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
                Segment::Field(..) => 1,
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
