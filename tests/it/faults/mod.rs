//! The faults that a bridge must survive, one file per kind, each scenario ending with the invariants I1 to I8.
//!
//! `docs/reliability.md` has the table: which fault, which test, what was found. `VIADUCT_FAULT_SEED` makes a run
//! reproducible, `VIADUCT_FAULT_ROUNDS` makes it longer.

mod acknowledge;
mod broker_kill;
mod coordinator;
mod crash;
mod cut_response;
mod fan_out;
mod kafka_commit;
mod long_outage;
mod many_sources;
mod power;
mod producer;
mod refusals;
mod sessions;
mod state_dir;
mod unknown_ends;
mod vendor_errors;
mod zombie;
