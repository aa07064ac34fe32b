//! The declared subscriptions of a session: applied before its first GET, refused ones tried again between polls.
//!
//! A refusal (400: the catalog type is not enabled for the organisation, 404, 405, or 403 three times) concerns one
//! subscription. The others are applied, events flow, the refusal stands in the status, and the whole is tried again
//! later. Every other failure (5xx, a broken connection, 429) says nothing about the subscription and is waited out:
//! polling without it would silently miss events.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Action, Job, Machine, Notice, Policy, Waits};
use crate::failure::{CallError, FailureKind};
use crate::observe::Cause;
use crate::subscriptions::SubscriptionChange;

/// First and longest wait before refused subscriptions are tried again.
const REFUSED_WAIT: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
/// 403s in a row after which they are a refusal.
const MAX_FORBIDDEN: u32 = 3;

/// Where a session's subscriptions stand.
#[derive(Debug)]
pub(super) struct Subscriptions {
    step: Step,
    /// They were applied once, so GETs may run; later passes do not stop them.
    applied: bool,
    created: usize,
    updated: usize,
    deleted: usize,
    refused: Vec<String>,
    forbidden: u32,
    passes_with_refusals: u32,
    again_at: Option<Instant>,
}

#[derive(Debug)]
enum Step {
    List,
    Change(VecDeque<SubscriptionChange>),
    Done,
}

impl Subscriptions {
    pub(super) fn new(policy: &Policy) -> Self {
        let nothing_to_do = policy.declared == 0 && !policy.prune;
        Self {
            step: if nothing_to_do { Step::Done } else { Step::List },
            applied: nothing_to_do,
            created: 0,
            updated: 0,
            deleted: 0,
            refused: Vec::new(),
            forbidden: 0,
            passes_with_refusals: 0,
            again_at: None,
        }
    }

    pub(super) fn applied(&self) -> bool {
        self.applied
    }

    /// The refusals as a sentence.
    pub(super) fn refusals(&self) -> Option<String> {
        (!self.refused.is_empty()).then(|| format!("subscriptions are refused: {}", self.refused.join("; ")))
    }

    fn again(&mut self, now: Instant) {
        let (first, longest) = REFUSED_WAIT;
        let wait = first.saturating_mul(1 << self.passes_with_refusals.min(10)).min(longest);
        self.passes_with_refusals = self.passes_with_refusals.saturating_add(1);
        self.again_at = Some(now + wait);
        self.step = Step::Done;
    }
}

impl Machine {
    /// The next call for the subscriptions' sake; `None` when there is none and polling may go on.
    pub(super) fn next_subscription_call(
        &mut self,
        now: Instant,
        waits: &mut Waits,
    ) -> Option<Option<Action>> {
        let session = self.session.as_mut()?;
        let id = session.id.clone();
        let subscriptions = &mut session.subscriptions;
        if let Some(at) = subscriptions.again_at {
            if now < at {
                waits.at(at);
            } else {
                subscriptions.again_at = None;
                subscriptions.step = Step::List;
            }
        }
        match &subscriptions.step {
            Step::Done => None,
            Step::List => {
                Some(self.start(Job::List, now, waits, |_| Action::ListSubscriptions { session: id }))
            }
            Step::Change(changes) => {
                let change = changes.front()?.clone();
                let action = Action::ChangeSubscription { session: id, change };
                Some(self.start(Job::Change, now, waits, |_| action))
            }
        }
    }

    /// The session's subscriptions were listed; `changes` turn them into the declared ones.
    pub(crate) fn subscriptions_listed(&mut self, now: Instant, changes: Vec<SubscriptionChange>) {
        self.lane.job = None;
        self.lane_worked();
        let Some(session) = &mut self.session else { return };
        session.subscriptions.refused.clear();
        session.subscriptions.forbidden = 0;
        session.subscriptions.step = Step::Change(changes.into());
        self.close_pass(now);
    }

    /// The first change was made.
    pub(crate) fn subscription_changed(&mut self, now: Instant) {
        self.lane.job = None;
        self.lane_worked();
        let Some(session) = &mut self.session else { return };
        session.subscriptions.forbidden = 0;
        if let Step::Change(changes) = &mut session.subscriptions.step {
            match changes.pop_front() {
                Some(SubscriptionChange::Create(_)) => session.subscriptions.created += 1,
                Some(SubscriptionChange::Update(..)) => session.subscriptions.updated += 1,
                Some(SubscriptionChange::Delete { .. }) => session.subscriptions.deleted += 1,
                None => {}
            }
        }
        self.close_pass(now);
    }

    /// Listing or a change failed. `describe` names a declared subscription.
    pub(crate) fn subscription_failed(
        &mut self,
        now: Instant,
        error: &CallError,
        describe: impl Fn(usize) -> String,
    ) {
        self.lane.job = None;
        // Whatever becomes of it: the acknowledgement lane may have lost the session meanwhile.
        self.hold(now, error);
        if error.kind == FailureKind::Expired {
            return self.lose_session(now, Cause::Expired, error);
        }
        let Some(session) = &mut self.session else { return };
        let subscriptions = &mut session.subscriptions;
        let refusal = match error.kind {
            FailureKind::Refused | FailureKind::NotFound => true,
            FailureKind::Forbidden => {
                subscriptions.forbidden += 1;
                subscriptions.forbidden >= MAX_FORBIDDEN
            }
            _ => false,
        };
        if !refusal {
            // A change may have been applied and only its answer lost: the next try starts from a fresh list.
            subscriptions.step = Step::List;
            if subscriptions.applied && error.kind != FailureKind::Unauthorized {
                subscriptions.again(now);
                return self.hold(now, error);
            }
            return self.lane_failed(now, error);
        }
        subscriptions.forbidden = 0;
        let refused: Vec<String> = match &mut subscriptions.step {
            Step::Change(changes) => match changes.pop_front() {
                Some(SubscriptionChange::Create(index) | SubscriptionChange::Update(index, _)) => {
                    vec![describe(index)]
                }
                Some(SubscriptionChange::Delete { description, .. }) => vec![format!("{description:?}")],
                None => Vec::new(),
            },
            Step::List | Step::Done => (0..self.policy.declared).map(describe).collect(),
        };
        if matches!(subscriptions.step, Step::List) {
            subscriptions.refused.clear();
            subscriptions.step = Step::Change(VecDeque::new());
        }
        for name in refused {
            let detail = format!("{name} ({})", error.detail);
            subscriptions.refused.push(detail.clone());
            self.notices.push(Notice::SubscriptionRefused { detail });
        }
        self.hold(now, error);
        self.lane_worked();
        self.close_pass(now);
    }

    fn close_pass(&mut self, now: Instant) {
        let Some(session) = &mut self.session else { return };
        let subscriptions = &mut session.subscriptions;
        if !matches!(&subscriptions.step, Step::Change(changes) if changes.is_empty()) {
            return;
        }
        subscriptions.step = Step::Done;
        let (created, updated, deleted) = (
            std::mem::take(&mut subscriptions.created),
            std::mem::take(&mut subscriptions.updated),
            std::mem::take(&mut subscriptions.deleted),
        );
        if created + updated + deleted > 0 || !subscriptions.applied {
            self.notices.push(Notice::SubscriptionsApplied { created, updated, deleted });
        }
        subscriptions.applied = true;
        if subscriptions.refused.is_empty() {
            subscriptions.passes_with_refusals = 0;
        } else {
            subscriptions.again(now);
        }
    }
}
