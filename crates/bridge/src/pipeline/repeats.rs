//! Says the same thing once in a while: a log is for changes, not for every event. Pure: the clock is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::routing::Reason;

/// How long the same reason is kept quiet after it was said.
const QUIET: Duration = Duration::from_secs(10);

/// What was said about dead letters, by reason.
#[derive(Debug, Default)]
pub(crate) struct Repeats(HashMap<Reason, Said>);

#[derive(Debug)]
struct Said {
    at: Instant,
    unsaid: u64,
}

impl Repeats {
    /// Whether to say it now: `Some` with the number of times that it was kept quiet since it was said last.
    pub(crate) fn say(&mut self, reason: Reason, now: Instant) -> Option<u64> {
        match self.0.get_mut(&reason) {
            Some(said) if now.duration_since(said.at) < QUIET => {
                said.unsaid += 1;
                None
            }
            Some(said) => {
                said.at = now;
                Some(std::mem::take(&mut said.unsaid))
            }
            None => {
                self.0.insert(reason, Said { at: now, unsaid: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_once_in_a_while_with_what_was_left_out() {
        let now = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.say(Reason::Unrouted, now), Some(0));
        assert_eq!(repeats.say(Reason::Unrouted, now), None);
        assert_eq!(repeats.say(Reason::NoId, now), Some(0));
        assert_eq!(repeats.say(Reason::Unrouted, now + QUIET / 2), None);
        assert_eq!(repeats.say(Reason::Unrouted, now + QUIET), Some(2));
        assert_eq!(repeats.say(Reason::Unrouted, now + QUIET), None);
    }
}
