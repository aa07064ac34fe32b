//! Which events a follower wants: the parameters of `/events`.

use url::form_urlencoded;

use crate::config::Pattern;

/// All that is asked for has to apply.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    source: Option<String>,
    event_type: Option<Pattern>,
    sink: Option<String>,
}

impl Filter {
    /// From a query: `source`, `type` (a pattern) and `sink`; others belong to others.
    ///
    /// # Errors
    /// A sentence about a pattern that could never match.
    pub(super) fn of(query: Option<&str>) -> Result<Self, String> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "source" => filter.source = Some(value.into_owned()),
                "sink" => filter.sink = Some(value.into_owned()),
                "type" => {
                    let pattern = Pattern::parse(&value).map_err(|error| format!("type: {error}"))?;
                    filter.event_type = Some(pattern);
                }
                _ => {}
            }
        }
        Ok(filter)
    }

    /// Whether events of this source and type are wanted. What has no type is no event, and fits only where none is asked for.
    pub(super) fn wants(&self, source: &str, event_type: Option<&str>) -> bool {
        self.source.as_ref().is_none_or(|wanted| wanted == source)
            && self
                .event_type
                .as_ref()
                .is_none_or(|pattern| event_type.is_some_and(|event_type| pattern.matches(event_type)))
    }

    /// Whether records of this sink are wanted.
    pub(super) fn wants_sink(&self, sink: &str) -> bool {
        self.sink.as_ref().is_none_or(|wanted| wanted == sink)
    }

    /// Whether only those of one sink are.
    pub(super) fn is_about_a_sink(&self) -> bool {
        self.sink.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_asked_for_has_to_apply() {
        let all = Filter::of(Some("records")).unwrap();
        assert!(all.wants("main", None) && all.wants_sink("lake") && !all.is_about_a_sink());
        let some = Filter::of(Some("records&source=main&type=engagement%2A.Idle&sink=lake")).unwrap();
        assert!(some.wants("main", Some("engagementCenter.Idle")));
        assert!(!some.wants("other", Some("engagementCenter.Idle")));
        assert!(!some.wants("main", Some("chat.New")) && !some.wants("main", None));
        assert!(some.wants_sink("lake") && !some.wants_sink("bus") && some.is_about_a_sink());
        assert!(Filter::of(Some("type=")).is_err());
    }
}
