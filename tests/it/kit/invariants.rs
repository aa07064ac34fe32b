//! The invariants, checked on what independent readers found and on the simulator's journal.
//!
//! A checker returns what it found instead of panicking, so that a scenario can be run with a deliberate mistake and has to
//! be found out. [`Findings::none`] ends a test that has to be clean.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde_json::Value;
use viaduct_simulator::{EventReport, Report};

/// What has to hold after every scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// Every event that the vendor made and did not lose itself is in its destination or in the dead letters.
    NothingLost,
    /// An acknowledged event was readable before.
    AcknowledgedAfterReadable,
    /// Exactly once: nothing stands there twice. At least once: only what was unacknowledged in a crash.
    NoDuplicates,
    /// Records of one key stand in the order in which the vendor first returned them to the running process.
    Order,
    /// What a client of the vendor must not do.
    Conduct,
    /// Memory, and what a checkpoint remembers.
    Bounded,
    /// After healing the lag returns to 0 by itself, and the bridge ends cleanly.
    Recovers,
    /// No secret in any output.
    Discreet,
}

impl Invariant {
    /// Its number in the documentation.
    pub(crate) fn number(self) -> u32 {
        self as u32 + 1
    }
}

/// An invariant that did not hold.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// Which.
    pub(crate) invariant: Invariant,
    /// Where, and how.
    pub(crate) text: String,
}

/// What a check found; nothing is good.
#[derive(Debug, Clone, Default)]
#[must_use = "a finding that nobody looks at is no test"]
pub(crate) struct Findings(pub(crate) Vec<Finding>);

impl Findings {
    /// One finding.
    pub(crate) fn one(invariant: Invariant, text: impl Into<String>) -> Self {
        Self(vec![Finding { invariant, text: text.into() }])
    }

    /// One finding where the condition does not hold.
    pub(crate) fn unless(holds: bool, invariant: Invariant, text: impl FnOnce() -> String) -> Self {
        if holds { Self::default() } else { Self::one(invariant, text()) }
    }

    /// Takes in what another check found.
    pub(crate) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The invariants that did not hold.
    pub(crate) fn broken(&self) -> Vec<Invariant> {
        let mut broken: Vec<Invariant> = self.0.iter().map(|finding| finding.invariant).collect();
        broken.sort();
        broken.dedup();
        broken
    }

    /// Ends the test where anything was found.
    #[track_caller]
    pub(crate) fn none(&self) {
        assert!(self.0.is_empty(), "{self}");
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { invariant, text } in &self.0 {
            writeln!(f, "I{} {invariant:?}: {text}", invariant.number())?;
        }
        Ok(())
    }
}

/// The simulator's journal, whole.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    /// The numbers.
    pub(crate) report: Report,
    /// Event by event.
    pub(crate) events: Vec<EventReport>,
    /// Numbers of events in the order of deliveries, repetitions included.
    pub(crate) deliveries: Vec<u32>,
}

/// A record as an independent client read it, in the order of its destination (Kafka: of its partition).
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Topic and partition, stream, or file.
    pub(crate) place: String,
    /// Topic, subject, or file.
    pub(crate) destination: String,
    /// The Kafka key, or `ce-subject`, or nothing.
    pub(crate) key: Option<String>,
    /// `eventId` of the value.
    pub(crate) event_id: String,
    /// Where the value is the vendor's text.
    pub(crate) content: Option<Content>,
}

/// What an event is recognised by beside its id. Two that share an id may have the same payload too, and be told apart by
/// their types or times only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Content {
    pub(crate) event_type: String,
    pub(crate) published: String,
    /// As the journal has it.
    pub(crate) payload_hash: String,
}

impl Content {
    /// That of an event in the vendor's words; `None` where the payload is not the vendor's text.
    pub(crate) fn of(event: &Value) -> Option<Self> {
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let payload_hash = viaduct_simulator::payload_hash(event["payload"].as_str()?);
        Some(Self { event_type: text("eventType"), published: text("publishedTime"), payload_hash })
    }

    /// Whether it is the event's, as far as the journal tells: it keeps no times.
    fn is_of(&self, event: &EventReport) -> bool {
        self.event_type == event.event_type && self.payload_hash == event.payload_hash
    }
}

/// I1: every event that the vendor made and did not lose itself is here. `buried` are ids in the dead letters.
pub(crate) fn nothing_lost(
    what: &str,
    journal: &Journal,
    seen: &[Seen],
    buried: &HashSet<String>,
) -> Findings {
    // Two events may share an id: where the contents are known, each of them has to be here.
    let mut of_id: HashMap<&str, Vec<Option<&Content>>> = HashMap::new();
    for seen in seen {
        of_id.entry(&seen.event_id).or_default().push(seen.content.as_ref());
    }
    let is_here = |event: &EventReport, id: &str| {
        let is_it = |content: &Option<&Content>| {
            content.is_none_or(|content| !event.malformed && content.is_of(event))
        };
        of_id.get(id).is_some_and(|contents| contents.iter().any(is_it)) || buried.contains(id)
    };
    let missing: Vec<&EventReport> = journal
        .events
        .iter()
        .filter(|event| !matches!(event.state.as_str(), "lost" | "replaced" | "queued"))
        .filter(|event| event.event_id.as_deref().is_some_and(|id| !is_here(event, id)))
        .collect();
    Findings::unless(missing.is_empty(), Invariant::NothingLost, || {
        format!("{what}: {} events are lost, the first: {:?}", missing.len(), missing.first())
    })
}

/// I3 where nothing crashed, or exactly once: nothing stands here twice.
pub(crate) fn no_duplicates(what: &str, seen: &[Seen]) -> Findings {
    let repeated = repeated(seen);
    Findings::unless(repeated.is_empty(), Invariant::NoDuplicates, || {
        format!("{what}: {} events stand here twice, one: {:?}", repeated.len(), repeated.iter().next())
    })
}

/// I3 at least once: an event stands here once, and once more for each crash in which it was unacknowledged.
pub(crate) fn duplicates_of_crashes_only(
    what: &str,
    seen: &[Seen],
    unacknowledged: &HashMap<String, usize>,
) -> Findings {
    let repeated = repeated(seen);
    let excess: Vec<_> = repeated
        .iter()
        .filter(|((id, _), count)| **count > 1 + unacknowledged.get(*id).copied().unwrap_or(0))
        .collect();
    Findings::unless(excess.is_empty(), Invariant::NoDuplicates, || {
        format!(
            "{what}: {} events stand here more often than crashes explain, one: {:?}",
            excess.len(),
            excess.first()
        )
    })
}

/// The events, by id and content, that stand here more than once, and how often.
pub(crate) fn repeated(seen: &[Seen]) -> BTreeMap<(&str, Option<&Content>), usize> {
    let mut counts: BTreeMap<(&str, Option<&Content>), usize> = BTreeMap::new();
    for record in seen {
        *counts.entry((&record.event_id, record.content.as_ref())).or_default() += 1;
    }
    counts.retain(|_, count| *count > 1);
    counts
}

/// I4 without regard to processes: records of one key stand in the order in which the vendor returned them.
///
/// A running process publishes each event once, in the order in which it first got it; over restarts these orders follow
/// each other. So what stands in one place under one key must be a subsequence of the vendor's deliveries, repetitions
/// included.
pub(crate) fn in_order_per_key(what: &str, journal: &Journal, seen: &[Seen]) -> Findings {
    let all: Vec<usize> = (0..journal.deliveries.len()).collect();
    follows(what, journal, seen, &all)
}

/// I4: records of one key stand in the order in which the vendor *first* returned them to the process that published them.
///
/// `starts` says how many deliveries there had been when each process started. It is a stricter rule than that of
/// [`in_order_per_key`], and does not hold where answers are lost on their way: what the vendor believes to have returned
/// first may then not be what arrived first.
pub(crate) fn in_order_of_arrival(
    what: &str,
    journal: &Journal,
    seen: &[Seen],
    starts: &[usize],
) -> Findings {
    let mut first = Vec::new();
    let mut starts = starts.iter().copied().peekable();
    let mut known = HashSet::new();
    for (position, number) in journal.deliveries.iter().enumerate() {
        while starts.next_if(|start| *start <= position).is_some() {
            known.clear();
        }
        if known.insert(*number) {
            first.push(position);
        }
    }
    follows(what, journal, seen, &first)
}

/// Whether what stands in one place under one key is a subsequence of these deliveries.
fn follows(what: &str, journal: &Journal, seen: &[Seen], positions: &[usize]) -> Findings {
    let mut of_id: HashMap<&str, Vec<(usize, &EventReport)>> = HashMap::new();
    for position in positions {
        let event = &journal.events[journal.deliveries[*position] as usize];
        if let Some(id) = event.event_id.as_deref() {
            of_id.entry(id).or_default().push((*position, event));
        }
    }
    let mut findings = Findings::default();
    let mut last: HashMap<(&str, &str), (usize, &str)> = HashMap::new();
    for record in seen {
        let Some(key) = &record.key else { continue };
        let (after, before) =
            last.get(&(record.place.as_str(), key.as_str())).copied().unwrap_or((0, "the beginning"));
        let of_id = of_id.get(record.event_id.as_str()).map_or(&[][..], Vec::as_slice);
        let is_it = |event: &EventReport| {
            record.content.as_ref().is_none_or(|content| event.malformed || content.is_of(event))
        };
        let found = of_id.iter().find(|(position, event)| *position >= after && is_it(event));
        let Some((found, _)) = found else {
            let positions: Vec<usize> = of_id.iter().map(|(position, _)| *position).collect();
            findings.add(Findings::one(
                Invariant::Order,
                format!(
                    "{what}: in {} under key {key}, {} stands behind {before}, but the vendor returned it at \
                     {positions:?} only, before {after}",
                    record.place, record.event_id
                ),
            ));
            // One finding per place is enough to read.
            if findings.0.len() > 5 {
                break;
            }
            continue;
        };
        last.insert((&record.place, key), (found + 1, &record.event_id));
    }
    findings
}

/// I5 and the rest of what a client must not do. `crashes`: a process that was killed may have left a GET open at the
/// vendor that its successor cannot know of.
pub(crate) fn well_behaved_over(report: &Report, crashes: u64) -> Findings {
    let mut counts = report.misbehaviour.clone();
    if counts.get("concurrent_gets").is_some_and(|count| *count <= crashes) {
        counts.remove("concurrent_gets");
    }
    Findings::unless(counts.is_empty(), Invariant::Conduct, || {
        let cases = &report.misbehaviour_cases[..report.misbehaviour_cases.len().min(5)];
        format!("the client misbehaved: {counts:?}, first cases: {cases:?}")
    })
}

/// I5 where nothing crashed.
pub(crate) fn well_behaved(report: &Report) -> Findings {
    well_behaved_over(report, 0)
}

/// I8: what no log and no answer may show. Every test's credentials contain `hunter2`, and the payloads of the vendor's
/// document carry these fields.
pub(crate) fn discreet(what: &str, text: &str) -> Findings {
    let mut findings = Findings::default();
    for canary in ["hunter2", "interactionId", "ehubSessionId", "phoneNumber"] {
        if let Some(line) = text.lines().find(|line| line.contains(canary)) {
            findings.add(Findings::one(Invariant::Discreet, format!("{what} shows {canary}: {line}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(deliveries: &[u32]) -> Journal {
        let events = (0..5)
            .map(|number| EventReport {
                number,
                event_id: Some(format!("e{number}")),
                event_type: "a.b".into(),
                category: "a".into(),
                user_id: None,
                interaction_id: None,
                session_id: None,
                payload_hash: format!("h{number}"),
                malformed: false,
                shares_id: false,
                state: "acknowledged".into(),
                deliveries: 1,
                first_delivery: None,
                acknowledged: None,
                replaced_by: None,
                replaces: None,
                entry: None,
            })
            .collect();
        Journal { report: Report::default(), events, deliveries: deliveries.to_vec() }
    }

    fn content(event_type: &str, published: &str, number: u32) -> Content {
        Content {
            event_type: event_type.into(),
            published: published.into(),
            payload_hash: format!("h{number}"),
        }
    }

    fn seen(numbers: &[u32]) -> Vec<Seen> {
        let seen = |number: &u32| Seen {
            place: "p".into(),
            destination: "p".into(),
            key: Some("k".into()),
            event_id: format!("e{number}"),
            content: Some(content("a.b", "12:00", *number)),
        };
        numbers.iter().map(seen).collect()
    }

    #[test]
    fn order_is_that_of_the_first_arrival_in_each_process() {
        // From the head: the second GET returns 0 and 1 again, behind 2.
        let journal = journal(&[0, 1, 2, 0, 1, 2, 3, 1, 2, 3, 4]);
        let check = |numbers: &[u32], starts: &[usize]| {
            in_order_of_arrival("here", &journal, &seen(numbers), starts).broken()
        };
        assert_eq!(check(&[0, 1, 2, 3, 4], &[0]), []);
        assert_eq!(check(&[0, 2, 1, 3, 4], &[0]), [Invariant::Order], "2 came first at once");
        in_order_per_key("here", &journal, &seen(&[0, 2, 1, 3, 4])).none();
        // A second process starts at the seventh delivery, and is given 1, 2 and 3 again.
        assert_eq!(check(&[0, 1, 2, 3, 1, 2, 3, 4], &[0, 7]), []);
        assert_eq!(check(&[0, 1, 2, 3, 2, 1, 3, 4], &[0, 7]), [Invariant::Order]);
    }

    #[test]
    fn losses_and_duplicates_are_found() {
        let journal = journal(&[0, 1, 2, 3, 4]);
        let none = HashSet::new();
        assert_eq!(
            nothing_lost("here", &journal, &seen(&[0, 1, 2, 4]), &none).broken(),
            [Invariant::NothingLost]
        );
        nothing_lost("here", &journal, &seen(&[0, 1, 2, 4]), &HashSet::from(["e3".to_owned()])).none();
        let mut other = seen(&[0, 1, 2, 3, 4]);
        other[3].content = Some(content("a.b", "12:00", 9));
        assert_eq!(nothing_lost("here", &journal, &other, &none).broken(), [Invariant::NothingLost]);
        assert_eq!(no_duplicates("here", &seen(&[0, 1, 0])).broken(), [Invariant::NoDuplicates]);
        let once = HashMap::from([("e0".to_owned(), 1)]);
        duplicates_of_crashes_only("here", &seen(&[0, 1, 0]), &once).none();
        for twice in [&[0, 1, 0, 0][..], &[0, 1, 1]] {
            assert_eq!(
                duplicates_of_crashes_only("here", &seen(twice), &once).broken(),
                [Invariant::NoDuplicates]
            );
        }
    }

    #[test]
    fn two_events_may_share_an_id_and_a_payload() {
        let mut journal = journal(&[0, 1]);
        journal.events.truncate(2);
        let mut both = seen(&[0, 0]);
        journal.events[1].event_id = Some("e0".into());
        journal.events[1].payload_hash = "h0".into();
        for (event_type, published) in [("a.c", "12:00"), ("a.b", "12:01")] {
            journal.events[1].event_type = event_type.into();
            both[1].content = Some(content(event_type, published, 0));
            no_duplicates("here", &both).none();
            nothing_lost("here", &journal, &both, &HashSet::new()).none();
            in_order_per_key("here", &journal, &both).none();
        }
        journal.events[1].event_type = "a.c".into();
        assert_eq!(
            nothing_lost("here", &journal, &seen(&[0]), &HashSet::new()).broken(),
            [Invariant::NothingLost],
            "the other one is another event"
        );
    }
}
