//! When events arise: a clock that is read, never a task that ticks.
//!
//! Events arise at the configured rate whether or not a client asks, but nothing is made before it is asked for: what
//! waits in the queue is a number, so memory does not depend on how long nobody came.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::settings::Rate;

/// The organisation's clock of events.
#[derive(Debug)]
pub(crate) struct Emission {
    rate: Rate,
    burst: u64,
    total: Option<u64>,
    /// Events taken of those that the rate released.
    taken: u64,
    /// Events that the rate released before `since`.
    released_before: u64,
    since: Instant,
    since_ms: u64,
    paused: bool,
    /// Events asked for by hand: how many, and when (Unix milliseconds).
    by_hand: VecDeque<(u64, u64)>,
}

impl Emission {
    pub(crate) fn new(rate: Rate, burst: u32, total: Option<u64>, now: Instant, now_ms: u64) -> Self {
        Self {
            rate,
            burst: u64::from(burst),
            total,
            taken: 0,
            released_before: 0,
            since: now,
            since_ms: now_ms,
            paused: false,
            by_hand: VecDeque::new(),
        }
    }

    /// How many events wait to be taken; `None`: there is no end to them.
    pub(crate) fn waiting(&self, now: Instant) -> Option<u64> {
        let by_hand: u64 = self.by_hand.iter().map(|(count, _)| count).sum();
        Some(self.released(now)?.saturating_sub(self.taken) + by_hand)
    }

    /// Takes the next event that has arisen: its time of publication, in Unix milliseconds.
    pub(crate) fn take(&mut self, now: Instant, now_ms: u64) -> Option<u64> {
        if let Some((count, at)) = self.by_hand.front_mut() {
            let at = *at;
            *count -= 1;
            if *count == 0 {
                self.by_hand.pop_front();
            }
            return Some(at);
        }
        if self.released(now).is_some_and(|released| self.taken >= released) {
            return None;
        }
        let published = match self.rate {
            Rate::PerSecond(rate) if rate > 0.0 && !self.paused && self.taken >= self.released_before => {
                let groups = (self.taken - self.released_before) / self.burst + 1;
                self.since_ms + (groups as f64 * self.burst as f64 / rate * 1e3) as u64
            }
            _ => now_ms,
        };
        self.taken += 1;
        Some(published.min(now_ms))
    }

    /// When the next event arises, if time alone can make it arise.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let Rate::PerSecond(rate) = self.rate else { return None };
        if self.paused || rate <= 0.0 || self.total.is_some_and(|total| self.taken >= total) {
            return None;
        }
        let groups = (now.duration_since(self.since).as_secs_f64() * rate / self.burst as f64).floor() + 1.0;
        // A little late rather than a little early: an early look would find nothing and look again.
        Some(
            self.since
                + Duration::from_secs_f64((groups * self.burst as f64 / rate).min(1e9))
                + Duration::from_micros(50),
        )
    }

    pub(crate) fn emit(&mut self, count: u64, now_ms: u64) {
        if count > 0 {
            self.by_hand.push_back((count, now_ms));
        }
    }

    pub(crate) fn set_rate(&mut self, rate: Rate, now: Instant, now_ms: u64) {
        self.settle(now, now_ms);
        self.rate = rate;
    }

    pub(crate) fn set_paused(&mut self, paused: bool, now: Instant, now_ms: u64) {
        self.settle(now, now_ms);
        self.paused = paused;
    }

    /// Closes the stretch of time that the current rate applies to.
    fn settle(&mut self, now: Instant, now_ms: u64) {
        self.released_before = self.released(now).unwrap_or(self.taken);
        self.since = now;
        self.since_ms = now_ms;
    }

    /// Events that arose so far by the rate; `None`: no end.
    fn released(&self, now: Instant) -> Option<u64> {
        let by_rate = match self.rate {
            _ if self.paused => self.released_before,
            Rate::Unlimited | Rate::Saturated => return self.total,
            Rate::PerSecond(rate) => {
                let groups = now.duration_since(self.since).as_secs_f64() * rate / self.burst as f64;
                self.released_before + groups as u64 * self.burst
            }
        };
        Some(self.total.map_or(by_rate, |total| by_rate.min(total)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(emission: &mut Emission, now: Instant, now_ms: u64) -> Vec<u64> {
        std::iter::from_fn(|| emission.take(now, now_ms)).collect()
    }

    #[test]
    fn events_arise_by_rate_and_burst_and_carry_the_time_they_arose() {
        let start = Instant::now();
        let mut emission = Emission::new(Rate::PerSecond(100.0), 5, None, start, 1_000_000);
        assert_eq!(emission.take(start, 1_000_000), None);
        let later = start + Duration::from_millis(124);
        assert_eq!(emission.waiting(later), Some(10));
        let times = drain(&mut emission, later, 1_000_124);
        assert_eq!(times, [[1_000_050; 5], [1_000_100; 5]].concat());
        let next = emission.next(later).unwrap();
        assert_eq!(next.duration_since(start).as_millis(), 150);
        assert_eq!(emission.waiting(next), Some(5));
    }

    #[test]
    fn total_ends_it_and_by_hand_does_not_count() {
        let start = Instant::now();
        let mut emission = Emission::new(Rate::Unlimited, 1, Some(3), start, 0);
        emission.emit(2, 0);
        assert_eq!(emission.waiting(start), Some(5));
        assert_eq!(drain(&mut emission, start, 0).len(), 5);
        assert_eq!(emission.next(start), None);
    }

    #[test]
    fn a_pause_and_a_new_rate_keep_what_arose() {
        let start = Instant::now();
        let mut emission = Emission::new(Rate::PerSecond(10.0), 1, None, start, 0);
        let at = |seconds| start + Duration::from_secs(seconds);
        emission.set_paused(true, at(1), 1_000);
        assert_eq!(emission.waiting(at(60)), Some(10));
        assert_eq!(emission.next(at(60)), None);
        emission.set_paused(false, at(60), 60_000);
        emission.set_rate(Rate::PerSecond(1.0), at(61), 61_000);
        assert_eq!(emission.waiting(at(63)), Some(22));
        emission.set_rate(Rate::Unlimited, at(63), 63_000);
        assert_eq!(emission.waiting(at(63)), None);
        emission.set_paused(true, at(64), 64_000);
        assert_eq!(emission.take(at(64), 64_000), None);
    }
}
