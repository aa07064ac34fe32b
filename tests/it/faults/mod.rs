//! The faults that a bridge must survive, one file per kind, each scenario ending with the invariants I1 to I8.
//!
//! `docs/reliability.md` has the table: which fault, which test, what was found. `VIADUCT_FAULT_SEED` makes a run
//! reproducible, `VIADUCT_FAULT_ROUNDS` makes it longer.

mod acknowledge;
mod crash;
mod cut_response;
mod long_outage;
mod power;
mod sessions;
mod vendor_errors;
