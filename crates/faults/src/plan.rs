//! What `VIADUCT_FAULTS` asks for.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Mistake, Moment};

const VARIABLE: &str = "VIADUCT_FAULTS";

#[derive(Debug, Default)]
struct Plan {
    /// How often each moment may still be passed before the process dies there; 0: for ever.
    crashes: [AtomicU64; Moment::ALL.len()],
    mistakes: Vec<Mistake>,
}

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    PLAN.get_or_init(|| match std::env::var(VARIABLE) {
        Ok(text) => Plan::parse(&text).unwrap_or_else(|part| panic!("{VARIABLE}: {part:?} is not a fault")),
        Err(_) => Plan::default(),
    })
}

impl Plan {
    /// Reads the variable; the error is the part that says nothing known.
    fn parse(text: &str) -> Result<Self, String> {
        let mut plan = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let words: Vec<&str> = part.split(':').collect();
            let known = match words[..] {
                ["crash", moment, times] => Moment::ALL
                    .iter()
                    .position(|one| one.as_str() == moment)
                    .zip(times.parse().ok().filter(|times| *times > 0))
                    .map(|(index, times)| plan.crashes[index].store(times, Ordering::Relaxed)),
                ["mistake", mistake] => Mistake::ALL
                    .into_iter()
                    .find(|one| one.as_str() == mistake)
                    .map(|mistake| plan.mistakes.push(mistake)),
                _ => None,
            };
            known.ok_or_else(|| part.to_owned())?;
        }
        Ok(plan)
    }

    /// Whether the process dies now.
    fn passes(&self, moment: Moment) -> bool {
        let Some(index) = Moment::ALL.iter().position(|one| *one == moment) else { return false };
        let left = &self.crashes[index];
        left.load(Ordering::Relaxed) > 0 && left.fetch_sub(1, Ordering::Relaxed) == 1
    }
}

/// The process is at this moment; a test may have asked for it to die here, as from SIGKILL.
pub fn crash_point(moment: Moment) {
    if plan().passes(moment) {
        eprintln!("{VARIABLE}: dying at {}", moment.as_str());
        std::process::abort();
    }
}

/// Whether a test has asked for this mistake.
pub fn makes(mistake: Mistake) -> bool {
    plan().mistakes.contains(&mistake)
}

/// Whether a test has asked for [`Mistake::HighWatermark`], and an event of a higher id has been here before.
pub fn below_high_watermark(id: &str) -> bool {
    static HIGHEST: AtomicU64 = AtomicU64::new(0);
    if !makes(Mistake::HighWatermark) {
        return false;
    }
    // The vendor's ids look like `1517321060539-0`: milliseconds and a number, below a million here.
    let (ms, number) = id.split_once('-').unwrap_or((id, "0"));
    let (Ok(ms), Ok(number)) = (ms.parse::<u64>(), number.parse::<u64>()) else { return false };
    let id = ms * 1_000_000 + number;
    HIGHEST.fetch_max(id, Ordering::Relaxed) >= id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_dies_at_the_time_asked_for_and_no_other() {
        let plan = Plan::parse("crash:after_get:3,mistake:high_watermark").unwrap();
        let deaths: Vec<bool> = (0..5).map(|_| plan.passes(Moment::AfterGet)).collect();
        assert_eq!(deaths, [false, false, true, false, false]);
        assert!(!plan.passes(Moment::AfterCommit));
        assert_eq!(plan.mistakes, [Mistake::HighWatermark]);
    }

    #[test]
    fn a_word_that_is_no_fault_is_told() {
        for text in ["crash:after_get", "crash:after_get:0", "crash:nowhere:1", "mistake:none", "x"] {
            assert_eq!(Plan::parse(text).err().as_deref(), Some(text));
        }
        assert!(Plan::parse("").is_ok());
    }
}
