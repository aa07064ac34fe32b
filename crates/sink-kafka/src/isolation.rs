//! Which topics go one by one, and for how long.
//!
//! A topic is isolated when its broker refused a batch as a whole, for as long as nothing is refused any more, and longer
//! each time it happens again. A size that a topic refused once isolates it before such a record is sent again, so that
//! large records cost no further producer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long the first time.
const FIRST_TERM: Duration = Duration::from_secs(10);
/// For how long at most.
const LONGEST_TERM: Duration = Duration::from_secs(600);

/// What is known about topics that refused something.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    topics: Mutex<HashMap<Arc<str>, Suspect>>,
}

#[derive(Debug)]
struct Suspect {
    /// Isolated until then; in the past: not any more.
    until: Instant,
    term: Duration,
    /// The smallest record in bytes that the topic refused as too large.
    too_large: Option<usize>,
}

impl Isolation {
    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Suspect>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the topic goes one by one at `now`, given the largest record that is to be sent to it.
    pub(crate) fn applies(&self, topic: &str, largest: impl FnOnce() -> usize, now: Instant) -> bool {
        let mut topics = self.topics();
        let Some(suspect) = topics.get_mut(topic) else { return false };
        if now >= suspect.until && suspect.too_large.is_some_and(|size| largest() >= size) {
            suspect.until = now + suspect.term;
        }
        now < suspect.until
    }

    /// Whether any topic is isolated at `now`.
    pub(crate) fn any(&self, now: Instant) -> bool {
        self.topics().values().any(|suspect| now < suspect.until)
    }

    /// A batch of the topic was refused as a whole.
    pub(crate) fn begin(&self, topic: &Arc<str>, now: Instant) {
        let mut topics = self.topics();
        match topics.get_mut(topic) {
            Some(suspect) if now < suspect.until => {}
            Some(suspect) => {
                suspect.term = (suspect.term * 2).min(LONGEST_TERM);
                suspect.until = now + suspect.term;
            }
            None => {
                let suspect = Suspect { until: now + FIRST_TERM, term: FIRST_TERM, too_large: None };
                topics.insert(Arc::clone(topic), suspect);
            }
        }
    }

    /// A single record was refused; `too_large`: because it has this many bytes.
    pub(crate) fn prolong(&self, topic: &str, too_large: Option<usize>, now: Instant) {
        if let Some(suspect) = self.topics().get_mut(topic) {
            suspect.until = now + suspect.term;
            suspect.too_large = match (suspect.too_large, too_large) {
                (Some(known), Some(size)) => Some(known.min(size)),
                (known, size) => known.or(size),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_isolated_for_a_term_that_grows() {
        let isolation = Isolation::default();
        let topic: Arc<str> = Arc::from("t");
        let start = Instant::now();
        let applies = |at| isolation.applies("t", || 10, at);
        assert!(!applies(start));
        isolation.begin(&topic, start);
        isolation.begin(&topic, start);
        assert!(applies(start + Duration::from_secs(9)) && !applies(start + Duration::from_secs(10)));
        assert!(!isolation.applies("other", || 10, start));

        isolation.prolong("t", None, start + Duration::from_secs(9));
        assert!(applies(start + Duration::from_secs(18)) && isolation.any(start + Duration::from_secs(18)));
        assert!(!applies(start + Duration::from_secs(19)) && !isolation.any(start + Duration::from_secs(19)));

        let again = start + Duration::from_secs(100);
        isolation.begin(&topic, again);
        assert!(applies(again + Duration::from_secs(19)), "the second term is longer");
        for round in 0..10 {
            isolation.begin(&topic, again + Duration::from_secs(2000) * (round + 1));
        }
        let last = again + Duration::from_secs(20_000);
        assert!(applies(last + Duration::from_secs(599)) && !applies(last + Duration::from_secs(600)));
    }

    #[test]
    fn a_size_that_was_refused_isolates_the_next_time() {
        let isolation = Isolation::default();
        let start = Instant::now();
        isolation.begin(&Arc::from("t"), start);
        isolation.prolong("t", Some(5000), start);
        isolation.prolong("t", Some(3000), start);
        isolation.prolong("t", None, start);
        let later = start + Duration::from_secs(60);
        assert!(!isolation.applies("t", || 2999, later));
        assert!(isolation.applies("t", || 3000, later));
        assert!(isolation.applies("t", || 1, later), "and for the term that follows");
    }
}
