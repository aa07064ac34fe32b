//! Routes that can never apply, and patterns that are most likely misspelt.

use strsim::jaro_winkler;

use super::super::checked::{Route, Target};
use super::super::pattern::Pattern;
use super::{Checks, Section};
use crate::documented;

/// A route with the place where it stands.
pub(super) type PlacedRoute = (Section, Route);

impl Checks<'_> {
    /// Warns about every route that no event can reach.
    pub(super) fn reach(&mut self, routes: &[PlacedRoute]) {
        for (index, (section, route)) in routes.iter().enumerate() {
            let label = &section.label;
            let taken_back =
                |pattern: &Pattern| route.exclusions.iter().any(|exclusion| exclusion.covers(pattern));
            if route.patterns.iter().all(taken_back) {
                let message =
                    format!("{label} never applies: its `!` patterns take back all that it matches");
                self.warn(section.at, message, "narrow the `!` patterns, or remove the route");
                continue;
            }
            let same_sink = |other: &Route| match (&route.target, &other.target) {
                (Target::Sink { sink, .. }, Target::Sink { sink: its, .. }) => sink == its,
                _ => false,
            };
            let (others, what, hint): (Vec<&PlacedRoute>, _, _) = match route.target {
                Target::Sink { .. } => (
                    routes[..index].iter().filter(|(_, other)| same_sink(other)).collect(),
                    "never applies: an earlier route to this sink matches first",
                    "move it up, or remove it",
                ),
                Target::Drop => (
                    routes.iter().filter(|(_, other)| matches!(other.target, Target::Sink { .. })).collect(),
                    "drops nothing: all that it matches goes to a sink",
                    "exclude it there with a `!` pattern, or remove the route",
                ),
            };
            let covered = route.patterns.iter().all(|pattern| {
                taken_back(pattern) || others.iter().any(|(_, other)| takes_all(other, pattern, route))
            });
            if covered {
                self.warn(section.at, format!("{label} {what}"), hint);
            }
        }
    }

    /// Warns where a pattern fits none of the documented event types, but nearly does.
    pub(super) fn spelling(&mut self, pattern: &Pattern, at: super::Origin, section: &Section) {
        if let Some(meant) = meant(pattern) {
            let message =
                format!("the pattern `{pattern}` of {} matches no documented event type", section.label);
            self.warn(at, message, format!("did you mean `{meant}`?"));
        }
    }
}

/// Whether `other` takes every event that `pattern` brings to `route`.
fn takes_all(other: &Route, pattern: &Pattern, route: &Route) -> bool {
    let left_out = |exclusion: &Pattern| {
        !exclusion.is_apart_from(pattern) && !route.exclusions.iter().any(|own| own.covers(exclusion))
    };
    other.patterns.iter().any(|one| one.covers(pattern)) && !other.exclusions.iter().any(left_out)
}

/// What a pattern most likely means, if it fits no documented type: the same with another case, or a name much like it.
fn meant(pattern: &Pattern) -> Option<String> {
    if documented::event_types().any(|event_type| pattern.matches(event_type)) {
        return None;
    }
    let text = pattern.as_str();
    let (category, rest) = text.split_once('.').unwrap_or((text, ""));
    let near = |word: &str, known: &str| {
        word != known && jaro_winkler(&word.to_lowercase(), &known.to_lowercase()) > 0.9
    };
    let types = documented::event_types().filter_map(|event_type| event_type.split_once('.'));
    for (known, name) in types {
        let same_category = category == known || category == "*";
        let meant = if !category.contains('*') && near(category, known) {
            known.to_owned() + &text[category.len()..]
        } else if same_category && !rest.contains('*') && near(rest, name) {
            format!("{category}.{name}")
        } else {
            continue;
        };
        if documented::event_types().any(|event_type| Pattern::of(&meant).matches(event_type)) {
            return Some(meant);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_pattern_is_recognised_and_a_new_one_is_not() {
        let meant = |text: &str| meant(&Pattern::of(text));
        assert_eq!(meant("engagementcenter.*").as_deref(), Some("engagementCenter.*"));
        assert_eq!(meant("engagmentCenter.Idle").as_deref(), Some("engagementCenter.Idle"));
        assert_eq!(meant("engagementCenter.idle").as_deref(), Some("engagementCenter.Idle"));
        assert_eq!(meant("*.Idel").as_deref(), Some("*.Idle"));
        for fine in
            ["*", "engagementCenter.*", "*.Idle", "chat.*", "changeNotification.user", "outreach.status"]
        {
            assert_eq!(meant(fine), None, "{fine}");
        }
    }
}
