//! What becomes of calls to the vendor.

use std::time::Duration;

use viaduct_poller::simulation::Call;
use viaduct_poller::{CallError, FailureKind, GrantedSession, Operation, SubscriptionChange};

use super::super::instance::{AckUnderWay, CallAnswer, CallUnderWay};
use super::super::vendor::DELAY;
use super::TOKEN_LIFETIME;
use super::World;

impl World {
    fn failure(&mut self, at: usize, choice: u8) -> CallError {
        use FailureKind as K;
        let kinds = [
            K::Server,
            K::Throttled,
            K::Broken,
            K::TimedOut,
            K::Unreadable,
            K::Unauthorized,
            K::Refused,
            K::NotFound,
        ];
        let kind = kinds[usize::from(choice & 7)];
        let retry_after = (choice & 0x30 == 0x30).then(|| Duration::from_secs(u64::from(choice & 15)));
        if let Some(wait) = retry_after {
            let instance = &mut self.instances[at];
            instance.hold_until = instance.hold_until.max(Some(self.now + wait));
        }
        let line = format!("#{} hears: {kind:?} {retry_after:?}", self.instances[at].number);
        self.tell(line);
        CallError { operation: Operation::Events, kind, retry_after, detail: "it broke".to_owned() }
    }

    fn expired(&mut self, at: usize, session: viaduct_poller::SessionId) -> CallError {
        let line = format!("#{} hears: session {} is dead", self.instances[at].number, session.as_str());
        self.tell(line);
        self.instances[at].dead.insert(session);
        CallError {
            operation: Operation::Events,
            kind: FailureKind::Expired,
            retry_after: None,
            detail: "Invalid or expired session".to_owned(),
        }
    }

    /// The vendor does what the call under way asks for.
    pub(super) fn serve(&mut self, at: usize) {
        let Some(under_way) = &self.instances[at].call else { return };
        if under_way.answer.is_some() {
            return;
        }
        let now = self.now;
        let answer = match &under_way.call {
            Call::CreateSession => Ok(CallAnswer::Created(self.vendor.create(now))),
            Call::ListSubscriptions(session) => {
                self.vendor.is_subscribed(session).map(CallAnswer::Subscribed)
            }
            Call::ChangeSubscription(session, _) => self.vendor.subscribe(session).map(|()| CallAnswer::Done),
            Call::Poll(session, max) => {
                self.vendor.get(session, usize::from(*max), now).map(CallAnswer::Events)
            }
            Call::DeleteSession(session) => {
                self.vendor.kill(session);
                Ok(CallAnswer::Done)
            }
        };
        let answer = answer.unwrap_or(CallAnswer::Expired);
        let line = format!("the vendor answers #{}: {answer:?}", self.instances[at].number);
        self.tell(line);
        if let Some(under_way) = &mut self.instances[at].call {
            under_way.answer = Some(answer);
        }
    }

    /// The call under way comes to its end, well (`None`) or not.
    pub(super) fn end_call(&mut self, at: usize, failed: Option<u8>) {
        self.serve(at);
        let now = self.now;
        let Some(CallUnderWay { call, sent, answer }) = self.instances[at].call.take() else { return };
        let result = match (failed, answer) {
            (Some(choice), _) => Err(self.failure(at, choice)),
            (None, Some(CallAnswer::Expired)) => {
                let session = match &call {
                    Call::ListSubscriptions(session)
                    | Call::ChangeSubscription(session, _)
                    | Call::Poll(session, _)
                    | Call::DeleteSession(session) => session.clone(),
                    Call::CreateSession => return,
                };
                Err(self.expired(at, session))
            }
            (None, answer) => Ok(answer.unwrap_or(CallAnswer::Done)),
        };
        let Self { vendor, instances, .. } = self;
        let instance = &mut instances[at];
        let Some(poller) = &mut instance.poller else { return };
        match (call, result) {
            (Call::CreateSession, result) => {
                let granted = result.map(|answer| match answer {
                    CallAnswer::Created(id) => {
                        GrantedSession { id, inactivity_delay: DELAY, acknowledges: true }
                    }
                    other => panic!("{other:?}"),
                });
                poller.created(granted, now);
            }
            (Call::ListSubscriptions(_), result) => {
                let changes = result.map(|answer| match answer {
                    CallAnswer::Subscribed(true) => Vec::new(),
                    _ => vec![SubscriptionChange::Create(0)],
                });
                poller.listed(changes, now);
            }
            (Call::ChangeSubscription(..), result) => poller.changed(result.map(|_| ()), now),
            (Call::DeleteSession(_), result) => poller.deleted(result.map(|_| ()), now),
            (Call::Poll(session, _), result) => {
                let entries = result.map(|answer| match answer {
                    CallAnswer::Events(numbers) => {
                        let entries = vendor.entries(&numbers);
                        instance.received.extend(numbers);
                        entries
                    }
                    other => panic!("{other:?}"),
                });
                poller.polled(&session, entries, now.duration_since(sent), now);
            }
        }
    }

    pub(super) fn serve_ack(&mut self, at: usize) {
        let Self { vendor, instances, .. } = self;
        let number = instances[at].number;
        if let Some(ack) = &mut instances[at].ack
            && ack.answer.is_none()
        {
            let answer = vendor.acknowledge(&ack.session, &ack.ids, &ack.known);
            let line = format!("the vendor has the acknowledgement of #{number}: {answer:?}");
            ack.answer = Some(answer);
            self.tell(line);
        }
    }

    /// The acknowledgement under way comes to its end.
    pub(super) fn end_ack(&mut self, at: usize, failed: Option<u8>) {
        if failed.is_none() {
            self.serve_ack(at);
        }
        let Some(AckUnderWay { session, ids, answer, .. }) = self.instances[at].ack.take() else { return };
        let result = match (failed, answer) {
            (Some(choice), _) => Err(self.failure(at, choice)),
            (None, Some(Ok(answer))) => Ok(answer),
            (None, _) => Err(self.expired(at, session.clone())),
        };
        let now = self.now;
        if let Some(poller) = &mut self.instances[at].poller {
            poller.acknowledged(&session, &ids, result, now);
        }
    }

    pub(super) fn end_refresh(&mut self, at: usize, failed: Option<u8>) {
        let Some(sent) = self.instances[at].refreshing.take() else { return };
        let result = match failed {
            Some(choice) => Err(self.failure(at, choice)),
            None => Ok(TOKEN_LIFETIME),
        };
        let now = self.now;
        if let Some(poller) = &mut self.instances[at].poller {
            poller.refreshed(sent, result, now);
        }
    }
}
