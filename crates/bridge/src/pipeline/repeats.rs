//! Says the same thing once in a while: a log is for changes, not for every event. Pure: the clock is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use viaduct_sink::RejectReason;

use crate::routing::Reason;

/// How long the same thing is kept quiet after it was said.
const QUIET: Duration = Duration::from_secs(10);

/// What there is to say about events that could not be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Saying {
    /// They become dead letters.
    DeadLetter(Reason),
    /// They go to the local dead-letter file, because the configured destination refuses them too.
    LastResort(Reason),
    /// A best-effort sink rejected them.
    BestEffort(RejectReason),
}

/// What was said, and when.
#[derive(Debug, Default)]
pub(crate) struct Repeats(HashMap<Saying, Said>);

#[derive(Debug)]
struct Said {
    at: Instant,
    unsaid: u64,
}

impl Repeats {
    /// Whether to say it now: `Some` with the number of times that it was kept quiet since it was said last.
    pub(crate) fn say(&mut self, saying: Saying, now: Instant) -> Option<u64> {
        match self.0.get_mut(&saying) {
            Some(said) if now.duration_since(said.at) < QUIET => {
                said.unsaid += 1;
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.unsaid))
            }
            None => {
                self.0.insert(saying, Said { at: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_said_once_in_a_while_with_what_was_left_out() {
        let (one, other) = (Saying::DeadLetter(Reason::Unrouted), Saying::LastResort(Reason::Unrouted));
        let now = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.say(one, now), Some(0));
        assert_eq!(repeats.say(one, now), None);
        assert_eq!(repeats.say(other, now), Some(0));
        assert_eq!(repeats.say(one, now + QUIET / 2), None);
        assert_eq!(repeats.say(one, now + QUIET), Some(2));
        assert_eq!(repeats.say(one, now + QUIET), None);
    }
}
