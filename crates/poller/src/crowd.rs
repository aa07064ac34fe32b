//! How far the sources of one process fetch ahead beside each other.
//!
//! A source alone holds up to `max_in_flight` events, so that its sink always has something to do. Where many sources have
//! as much to give, the sink has enough to do with a part of it. The rest only waits, and costs: memory, and time, because
//! an event that waits for long has left the processor's caches before its turn comes. So loaded sources share what four of
//! them may hold alone.
//!
//! This bounds ordinary polls that run ahead, nothing else: a source that holds nothing polls, and sessions are kept alive.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many loaded sources hold as much as each of them may alone; more share that.
const UNCROWDED: usize = 4;
/// What every source may hold, in responses: one on its way from the vendor, one on its way to the sink and back.
const LEAST_RESPONSES: usize = 2;

/// The sources of a process. Clones are the same crowd.
#[derive(Debug, Clone, Default)]
pub struct Crowd {
    loaded: Arc<AtomicUsize>,
}

/// One source's place in a crowd.
#[derive(Debug)]
pub(crate) struct Place {
    crowd: Crowd,
    max_events: usize,
    max_in_flight: usize,
    is_loaded: bool,
}

impl Place {
    pub(crate) fn new(crowd: Crowd, max_events: u16, max_in_flight: usize) -> Self {
        Self { crowd, max_events: max_events.into(), max_in_flight, is_loaded: false }
    }

    /// How many events the source may hold, now that it holds `held`; `None`: `max_in_flight`. It is loaded while it holds a
    /// whole response.
    pub(crate) fn share(&mut self, held: usize) -> Option<usize> {
        self.count(held >= self.max_events);
        let least = (LEAST_RESPONSES * self.max_events).min(self.max_in_flight);
        let loaded = self.crowd.loaded.load(Ordering::Relaxed).max(1);
        let share = (UNCROWDED.saturating_mul(self.max_in_flight) / loaded).max(least);
        (share < self.max_in_flight).then_some(share)
    }

    fn count(&mut self, is_loaded: bool) {
        match (self.is_loaded, is_loaded) {
            (false, true) => self.crowd.loaded.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.crowd.loaded.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
        self.is_loaded = is_loaded;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(crowd: &Crowd) -> Place {
        Place::new(crowd.clone(), 200, 2000)
    }

    #[test]
    fn the_more_are_loaded_the_less_each_holds() {
        let crowd = Crowd::default();
        let mut places: Vec<Place> = (0..50).map(|_| place(&crowd)).collect();
        let mut shares = Vec::new();
        for loaded in [1, 4, 5, 10, 50] {
            for place in &mut places[..loaded] {
                place.share(200);
            }
            shares.push(places[0].share(1000));
        }
        assert_eq!(shares, [None, None, Some(1600), Some(800), Some(400)]);
    }

    #[test]
    fn who_has_little_to_give_or_is_gone_does_not_count() {
        let crowd = Crowd::default();
        let mut others: Vec<Place> = (0..9).map(|_| place(&crowd)).collect();
        let mut one = place(&crowd);
        for other in &mut others {
            other.share(200);
        }
        assert_eq!(one.share(200), Some(800));
        for other in &mut others[..4] {
            other.share(199);
        }
        assert_eq!(one.share(200), Some(1333));
        drop(others);
        assert_eq!(one.share(200), None);
    }

    #[test]
    fn a_small_source_keeps_what_it_has() {
        let crowd = Crowd::default();
        let mut places: Vec<Place> = (0..50).map(|_| Place::new(crowd.clone(), 200, 300)).collect();
        assert!(places.iter_mut().map(|place| place.share(200)).all(|share| share.is_none()));
    }
}
