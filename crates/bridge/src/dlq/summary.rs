//! What a replay did, in numbers and words.

use std::collections::BTreeMap;

use crate::exit::{Exit, Failure};

/// What became of the dead letters.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Dead letters that were looked at.
    pub(super) read: u64,
    /// Published.
    pub(super) replayed: u64,
    /// Dropped by a route.
    pub(super) dropped: u64,
    /// Replayed before, and passed over.
    pub(super) already: u64,
    /// Shown by a dry run.
    pub(super) shown: u64,
    /// Ids that were not found.
    pub(super) missing: u64,
    /// Failed in another way than before, by reason.
    pub(super) again: BTreeMap<&'static str, u64>,
    /// Failed, and stay what they are, by reason.
    pub(super) stays: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Those that were not passed over.
    pub(super) fn taken(&self) -> u64 {
        self.replayed + self.dropped + self.shown + self.failed()
    }

    /// Those that are not replayed.
    pub(super) fn failed(&self) -> u64 {
        self.again.values().sum::<u64>() + self.stays.values().sum::<u64>()
    }

    /// What a replay ends with.
    pub(super) fn summary(&self, missed: u64) -> String {
        let mut parts = vec![format!("{} replayed", self.replayed)];
        if self.dropped > 0 {
            parts.push(format!("{} dropped by a route", self.dropped));
        }
        let reasons = |counts: &BTreeMap<&'static str, u64>| {
            let reasons: Vec<_> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            (counts.values().sum::<u64>(), reasons.join(", "))
        };
        match reasons(&self.again) {
            (0, _) => {}
            (count, reasons) => parts.push(format!("{count} dead-lettered again ({reasons})")),
        }
        match reasons(&self.stays) {
            (0, _) => {}
            (count, reasons) => parts.push(format!("{count} left as they were ({reasons})")),
        }
        if self.already > 0 {
            parts.push(format!("{} already replayed", self.already));
        }
        if missed > 0 {
            parts.push(format!("{missed} records missed by best-effort sinks"));
        }
        parts.join(", ")
    }

    /// What a dry run ends with.
    pub(super) fn would(&self) -> String {
        let already =
            if self.already > 0 { format!(", {} already replayed", self.already) } else { String::new() };
        let not = match self.failed() {
            0 => String::new(),
            failed => format!(", {failed} cannot be replayed"),
        };
        format!("{} would be replayed{not}{already}; nothing is published or marked", self.shown)
    }

    /// # Errors
    /// 65: not everything that was asked for was replayed.
    pub(super) fn failure(&self) -> Result<(), Failure> {
        match (self.failed(), self.missing) {
            (0, 0) => Ok(()),
            (0, missing) => Err(Failure::new(
                Exit::DataErr,
                format!("not found: {missing} of the ids"),
                "`viaduct dlq list --all` shows those that there are",
            )),
            (failed, _) => Err(Failure::new(
                Exit::DataErr,
                format!("{failed} of {} dead letters could not be replayed", self.taken()),
                "they are dead letters still: `viaduct dlq list` shows them",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_tells_what_happened() {
        let mut counts = Counts { replayed: 12, already: 3, ..Counts::default() };
        assert_eq!(counts.summary(0), "12 replayed, 3 already replayed");
        assert!(counts.failure().is_ok());
        counts.again.insert("too_large", 1);
        counts.stays.insert("unrouted", 2);
        counts.dropped = 4;
        assert_eq!(
            counts.summary(5),
            "12 replayed, 4 dropped by a route, 1 dead-lettered again (too_large 1), 2 left as they were (unrouted 2), \
             3 already replayed, 5 records missed by best-effort sinks"
        );
        let failure = counts.failure().expect_err("three failed");
        assert_eq!(failure.exit(), Exit::DataErr);
        assert!(failure.to_string().contains("3 of 19 dead letters"), "{failure}");
    }
}
