//! Decides, request by request, which fault strikes.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use crate::fault::{ErrorStatus, Fault, FaultPlan, FaultRule, Operation, When};

/// A fault plan in force: the rules, how often each was asked, and the dice.
#[derive(Debug)]
pub(crate) struct FaultPicker {
    rules: Vec<(FaultRule, u64)>,
    dice: Xoshiro256PlusPlus,
}

impl FaultPicker {
    pub(crate) fn new(plan: FaultPlan, seed: u64) -> Self {
        let dice = Xoshiro256PlusPlus::seed_from_u64(seed ^ 0xFA17);
        Self { rules: plan.rules.into_iter().map(|rule| (rule, 0)).collect(), dice }
    }

    /// Replaces the plan; calls are counted from 1 again, the dice roll on.
    pub(crate) fn replace(&mut self, plan: FaultPlan) {
        self.rules = plan.rules.into_iter().map(|rule| (rule, 0)).collect();
    }

    /// The fault of this request, if it has one. [`Fault::Any`] and [`ErrorStatus::AnyServerError`] come out decided.
    pub(crate) fn pick(&mut self, operation: Operation) -> Option<Fault> {
        for (rule, calls) in &mut self.rules {
            if !rule.concerns(operation) {
                continue;
            }
            *calls += 1;
            let strikes = match &rule.when {
                When::Probability(probability) => self.dice.random_bool(*probability),
                When::Calls(numbers) => numbers.contains(calls),
                When::Every(every) => calls.is_multiple_of(*every),
            };
            if strikes {
                return Some(decide(&rule.fault, operation, &mut self.dice));
            }
        }
        None
    }
}

fn decide(fault: &Fault, operation: Operation, dice: &mut Xoshiro256PlusPlus) -> Fault {
    match fault {
        Fault::Any => {
            let mut fitting: Vec<Fault> =
                Fault::candidates().into_iter().filter(|fault| fault.fits(operation)).collect();
            let chosen = fitting.swap_remove(dice.random_range(0..fitting.len()));
            decide(&chosen, operation, dice)
        }
        Fault::Status { status: ErrorStatus::AnyServerError, after, retry_after } => {
            let status = ErrorStatus::Exactly([500, 502, 503, 504][dice.random_range(0..4)]);
            Fault::Status { status, after: *after, retry_after: *retry_after }
        }
        decided => decided.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picker(plan: &str) -> FaultPicker {
        FaultPicker::new(plan.parse().unwrap(), 7)
    }

    #[test]
    fn a_script_strikes_at_exactly_its_calls() {
        let mut picker = picker("events:cut:@2,4 events:html:@every=3");
        let struck: Vec<_> = (0..5).map(|_| picker.pick(Operation::Events)).collect();
        // The second rule counts only the calls that the first one left to it.
        assert_eq!(struck, [None, Some(Fault::Cut), None, Some(Fault::Cut), Some(Fault::Html)]);
        assert_eq!(picker.pick(Operation::Acknowledge), None);
    }

    #[test]
    fn probability_is_kept_and_reproducible() {
        let strikes = |seed| {
            let mut picker = FaultPicker::new("*:any:5%".parse().unwrap(), seed);
            (0..10_000).map(|_| picker.pick(Operation::Acknowledge)).collect::<Vec<_>>()
        };
        let first = strikes(1);
        assert_eq!(first, strikes(1));
        assert_ne!(first, strikes(2));
        let count = first.iter().flatten().count();
        assert!((400..600).contains(&count), "{count}");
        assert!(
            first.iter().flatten().all(|fault| fault.fits(Operation::Acknowledge) && *fault != Fault::Any)
        );
    }
}
