//! From the poller's deliveries to acknowledgements.
//!
//! ```text
//!                                    ┌─▶ lane (source × sink 1) ─▶ Sink::publish ─┐
//! Deliveries ─▶ source: route, slot ─┼─▶ lane (source × sink 2) ─▶ Sink::publish ─┼─▶ reports ─▶ source: settle ─▶ AckToken
//!   (poller)                         └─▶ lane (dead letters)    ─▶ Sink::publish ─┘                             (poller)
//! ```
//!
//! **What holds here.** Each source has one lane per sink, and a lane has one batch under way at a time: that keeps the
//! order per key and destination. An event's slot remembers which required sinks still owe a receipt; only when none
//! does, a [`settle::Settled`] exists, and only that consumes the acknowledgement token. Sinks make progress
//! independently: what one has confirmed is never offered to it again because another is slow. Memory is bounded by the
//! poller's `max_in_flight`, because an event leaves the poller's count only with its acknowledgement.

pub(crate) mod backlog;
pub(crate) mod lane;
mod queue;
pub(crate) mod repeats;
pub(crate) mod settle;
#[cfg(test)]
mod simulation;
pub(crate) mod source;
