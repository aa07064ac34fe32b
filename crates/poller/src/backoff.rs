//! Exponential backoff with full jitter, its randomness injected.

use std::time::Instant;

use crate::settings::RetrySettings;

/// Numbers between 0 and 1.
pub(crate) type Jitter = Box<dyn FnMut() -> f64 + Send>;

/// The failures in a row of one kind of call, and when the next try is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    streak: u32,
    until: Option<Instant>,
}

impl Backoff {
    /// One more failure.
    pub(crate) fn failed(&mut self, now: Instant, retry: &RetrySettings, jitter: &mut Jitter) {
        let ceiling = retry.initial.saturating_mul(1u32 << self.streak.min(20)).min(retry.max);
        self.streak = self.streak.saturating_add(1);
        self.until = Some(now + ceiling.mul_f64(jitter().clamp(0.0, 1.0)));
    }

    /// It worked again.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// When the next try is due.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Failures since the last success.
    pub(crate) fn streak(&self) -> u32 {
        self.streak
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_limit_and_starts_over_after_a_success() {
        let retry = RetrySettings { initial: Duration::from_millis(200), max: Duration::from_secs(2) };
        let (now, mut backoff) = (Instant::now(), Backoff::default());
        let mut full: Jitter = Box::new(|| 1.0);
        let mut waits = Vec::new();
        for _ in 0..40 {
            backoff.failed(now, &retry, &mut full);
            waits.push((backoff.until().unwrap() - now).as_millis());
        }
        assert_eq!(waits[..5], [200, 400, 800, 1600, 2000]);
        assert!(waits[5..].iter().all(|&wait| wait == 2000));
        backoff.reset();
        assert_eq!((backoff.until(), backoff.streak()), (None, 0));
        let mut none: Jitter = Box::new(|| 0.0);
        backoff.failed(now, &retry, &mut none);
        assert_eq!(backoff.until(), Some(now));
    }
}
