//! The poller against the simulator, over real sockets. The simulator shares no code with the poller and keeps a journal
//! of everything that a client does wrong.

// A test fails by panicking, in its helping functions too.
#![allow(clippy::unwrap_used)]

mod bench;
mod consumers;
mod faults;
mod flow;
mod lifecycle;
mod v2;
mod v2_crash;
