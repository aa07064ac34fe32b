//! The machine's rules, one by one.

use super::*;
use crate::failure::{CallError, FailureKind};
use crate::observe::Operation;
use crate::session::outcomes::{Polled, RefreshFailed};
use crate::status::Phase;

pub(super) const DELAY: Duration = Duration::from_secs(120);

pub(super) fn policy() -> Policy {
    Policy {
        api: ApiVersion::V3,
        max_events: 200,
        max_in_flight: 1000,
        inactivity_delay: DELAY,
        poll_timeout: Duration::from_secs(15),
        on_shutdown: OnShutdown::Keep,
        retry: RetrySettings { initial: Duration::from_millis(200), max: Duration::from_secs(30) },
        declared: 0,
        prune: false,
    }
}

pub(super) fn error(kind: FailureKind) -> CallError {
    CallError { operation: Operation::Events, kind, retry_after: None, detail: "it broke".into() }
}

fn throttled(seconds: u64) -> CallError {
    CallError { retry_after: Some(Duration::from_secs(seconds)), ..error(FailureKind::Throttled) }
}

/// A machine with its clock. Jitter is full: every wait has its greatest length.
struct Bench {
    machine: Machine,
    now: Instant,
    load: Load,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        Self::resumed(policy, None)
    }

    fn resumed(policy: Policy, session: Option<(SessionId, Duration)>) -> Self {
        Self {
            machine: Machine::new(policy, Box::new(|| 1.0), session),
            now: Instant::now(),
            load: Load::default(),
        }
    }

    /// With a token and a session, about to poll.
    fn running(policy: Policy) -> Self {
        let mut bench = Self::new(policy);
        bench.refresh();
        bench.expect(&Action::CreateSession);
        bench.created("s1");
        bench
    }

    fn refresh(&mut self) {
        self.expect(&Action::RefreshToken);
        self.machine.token_refreshed(self.now, Duration::from_secs(3600));
    }

    fn created(&mut self, id: &str) {
        self.machine.session_created(self.now, id.into(), DELAY);
    }

    fn next(&mut self) -> Next {
        self.machine.next(self.now, &self.load)
    }

    #[track_caller]
    fn expect(&mut self, action: &Action) {
        assert_eq!(self.next(), Next::Do(action.clone()));
    }

    #[track_caller]
    fn expect_poll(&mut self, session: &str, max_events: u16) {
        self.expect(&Action::Poll { session: session.into(), max_events });
    }

    /// It waits, and this long.
    #[track_caller]
    fn expect_wait(&mut self, wait: Duration) {
        match self.next() {
            Next::Wait(Some(until)) => assert_eq!(until - self.now, wait),
            other => panic!("{other:?}"),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn polled(&mut self, total: usize, fresh: usize) {
        self.machine.polled(self.now, Polled { total, fresh, took: Duration::from_secs(15) });
    }

    fn poll_failed(&mut self, kind: FailureKind) {
        self.machine.poll_failed(self.now, &error(kind));
    }
}

#[test]
fn token_then_session_then_polls() {
    let mut bench = Bench::new(policy());
    bench.refresh();
    bench.expect(&Action::CreateSession);
    assert_eq!(bench.machine.phase(bench.now), Phase::Starting);
    bench.created("s1");
    assert!(bench.machine.is_up(bench.now));
    bench.expect_poll("s1", 200);
    assert!(matches!(bench.next(), Next::Wait(_)), "never two GETs");
    bench.polled(0, 0);
    bench.expect_poll("s1", 200);
    assert_eq!(bench.machine.phase(bench.now), Phase::Polling);
}

#[test]
fn a_saved_session_is_polled_without_creating_one() {
    let mut bench = Bench::resumed(policy(), Some(("old".into(), DELAY)));
    bench.refresh();
    bench.expect_poll("old", 200);
    bench.polled(1, 1);
    assert_eq!(bench.machine.take_notices(), [Notice::SessionResumed]);
}

#[test]
fn an_expired_session_is_replaced_at_once_and_never_used_again() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.polled(1, 1);
    bench.expect_poll("s1", 200);
    bench.poll_failed(FailureKind::Expired);
    bench.expect(&Action::CreateSession);
    bench.created("s1");
    assert!(matches!(bench.next(), Next::Wait(Some(_))), "the vendor gave the dead id again");
    bench.pass(Duration::from_secs(1));
    bench.expect(&Action::CreateSession);
    bench.created("s2");
    bench.expect_poll("s2", 200);
}

#[test]
fn sessions_that_die_before_their_first_answer_are_not_created_in_a_tight_loop() {
    let mut bench = Bench::running(policy());
    for (n, wait) in [200, 400, 800].into_iter().enumerate() {
        bench.expect_poll(&format!("s{}", n + 1), 200);
        bench.poll_failed(FailureKind::Expired);
        bench.expect_wait(Duration::from_millis(wait));
        bench.pass(Duration::from_millis(wait));
        bench.expect(&Action::CreateSession);
        bench.created(&format!("s{}", n + 2));
    }
}

#[test]
fn a_session_that_is_refused_again_and_again_is_given_up() {
    let mut bench = Bench::running(policy());
    for _ in 0..3 {
        bench.expect_poll("s1", 200);
        bench.poll_failed(FailureKind::NotFound);
        bench.pass(Duration::from_secs(1));
    }
    bench.expect(&Action::CreateSession);
    let lost = Notice::SessionLost { session: "s1".into(), cause: Cause::Lost };
    assert!(bench.machine.take_notices().contains(&lost));
}

#[test]
fn retry_after_holds_back_every_lane() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.load = Load { held: 1, ready: 1, oldest_ready: Some(bench.now), ..Load::default() };
    bench.machine.poll_failed(bench.now, &throttled(7));
    bench.expect_wait(Duration::from_secs(7));
    bench.pass(Duration::from_millis(6999));
    assert!(matches!(bench.next(), Next::Wait(Some(_))));
    bench.pass(Duration::from_millis(1));
    bench.expect(&Action::Acknowledge { session: "s1".into() });
    bench.machine.acknowledge_failed(bench.now, &"s1".into(), &throttled(3));
    bench.expect_wait(Duration::from_secs(3));
}

#[test]
fn a_rejected_token_is_refreshed_once_and_the_call_repeated_once() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.poll_failed(FailureKind::Unauthorized);
    bench.refresh();
    bench.expect_poll("s1", 200);
    bench.poll_failed(FailureKind::Unauthorized);
    bench.expect_wait(Duration::from_millis(200));
    bench.pass(Duration::from_millis(200));
    bench.refresh();
    bench.expect_poll("s1", 200);
    bench.polled(0, 0);
    assert!(bench.machine.is_up(bench.now));
}

#[test]
fn a_401_to_an_old_token_does_not_reject_the_new_one() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.pass(Duration::from_secs(2880));
    bench.refresh();
    bench.poll_failed(FailureKind::Unauthorized);
    bench.expect_poll("s1", 200);
}

#[test]
fn the_token_is_refreshed_ahead_beside_a_poll() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.pass(Duration::from_secs(2879));
    assert!(matches!(bench.next(), Next::Wait(Some(_))));
    bench.pass(Duration::from_secs(1));
    bench.expect(&Action::RefreshToken);
    assert!(matches!(bench.next(), Next::Wait(_)), "one refresh at a time");
    // The old token serves until it ends.
    bench.machine.token_failed(bench.now, &error(FailureKind::Server));
    bench.polled(0, 0);
    bench.expect_poll("s1", 200);
    bench.polled(0, 0);
    bench.pass(Duration::from_secs(720));
    bench.expect(&Action::RefreshToken);
    assert!(matches!(bench.next(), Next::Wait(_)), "no call with a token that has ended");
}

#[test]
fn refused_credentials_end_the_start_only() {
    let mut bench = Bench::new(policy());
    bench.expect(&Action::RefreshToken);
    assert_eq!(bench.machine.token_failed(bench.now, &error(FailureKind::Server)), RefreshFailed::Retry);
    bench.pass(Duration::from_secs(1));
    bench.expect(&Action::RefreshToken);
    let refused = error(FailureKind::Credentials);
    assert_eq!(bench.machine.token_failed(bench.now, &refused), RefreshFailed::RefusedAtStart);

    let mut bench = Bench::running(policy());
    bench.pass(Duration::from_secs(3600));
    bench.expect(&Action::RefreshToken);
    assert_eq!(bench.machine.token_failed(bench.now, &refused), RefreshFailed::Retry);
    assert!(bench.machine.reason(bench.now).unwrap().contains("it broke"));
}

#[test]
fn overlap_goes_on_while_the_vendor_gives_fresh_ids() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.polled(200, 200);
    for held in [200, 400, 600] {
        bench.load = Load { held, in_flight: held, ..Load::default() };
        bench.expect_poll("s1", 200);
        bench.polled(200, 180);
    }
    // 800 + 200 would take the slots that are kept for keep-alive polls.
    bench.load = Load { held: 800, in_flight: 800, ..Load::default() };
    assert!(matches!(bench.next(), Next::Wait(Some(_))));
    assert_eq!(bench.machine.phase(bench.now), Phase::Stalled);
}

#[test]
fn beside_others_a_source_fetches_ahead_within_its_share() {
    let mut bench = Bench::running(policy());
    let held = |held| Load { held, in_flight: held, share: Some(400), ..Load::default() };
    for ahead in [0, 200] {
        bench.load = held(ahead);
        bench.expect_poll("s1", 200);
        bench.polled(200, 200);
    }
    for ahead in [201, 400] {
        bench.load = held(ahead);
        assert!(matches!(bench.next(), Next::Wait(Some(_))), "{ahead}");
    }
    // The session is kept alive all the same.
    bench.pass(DELAY / 2);
    bench.expect_poll("s1", 1);
    bench.polled(1, 0);
    bench.load = held(0);
    bench.expect_poll("s1", 200);
}

#[test]
fn a_vendor_that_repeats_the_head_is_polled_serially_with_probes() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.polled(200, 200);
    let held = Load { held: 200, in_flight: 200, ..Load::default() };
    bench.load = held;
    bench.expect_poll("s1", 200);
    bench.polled(200, 179);
    for _ in 0..SERIAL_POLLS_PER_PROBE {
        bench.load = held;
        assert!(matches!(bench.next(), Next::Wait(_)), "serial");
        bench.load = Load::default();
        bench.expect_poll("s1", 200);
        bench.polled(200, 200);
    }
    bench.load = held;
    bench.expect_poll("s1", 200);
    bench.polled(200, 200);
    bench.load = Load { held: 400, ..held };
    bench.expect_poll("s1", 200);
    let notices: Vec<_> = bench
        .machine
        .take_notices()
        .into_iter()
        .filter(|n| matches!(n, Notice::Serial | Notice::Overlap))
        .collect();
    assert_eq!(notices, [Notice::Serial, Notice::Overlap]);
}

#[test]
fn a_stalled_consumer_does_not_cost_the_session() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.polled(200, 200);
    bench.load = Load { held: 900, in_flight: 900, ..Load::default() };
    for _ in 0..40 {
        bench.expect_wait(DELAY / 2);
        bench.pass(DELAY / 2);
        bench.expect_poll("s1", 1);
        bench.polled(1, 0);
    }
}

#[test]
fn the_smaller_delay_counts() {
    for (asked, granted) in [(120, 60), (60, 120)] {
        let mut bench = Bench::new(Policy { inactivity_delay: Duration::from_secs(asked), ..policy() });
        bench.refresh();
        bench.expect(&Action::CreateSession);
        bench.machine.session_created(bench.now, "s1".into(), Duration::from_secs(granted));
        assert_eq!(bench.machine.inactivity_delay(), Some(Duration::from_secs(60)));
    }
}

#[test]
fn polls_that_return_at_once_with_nothing_new_slow_down() {
    let mut bench = Bench::running(policy());
    let mut waits = Vec::new();
    for total in [0, 3, 3, 0, 3, 3, 3] {
        bench.expect_poll("s1", 200);
        bench.machine.polled(bench.now, Polled { total, fresh: 0, took: Duration::from_millis(1) });
        let Next::Wait(Some(until)) = bench.next() else { panic!("a tight loop") };
        waits.push((until - bench.now).as_millis());
        bench.now = until;
    }
    assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
    bench.expect_poll("s1", 200);
    bench.polled(3, 3);
    bench.expect_poll("s1", 200);
}

#[test]
fn a_get_on_a_dead_connection_is_repeated_at_once_but_once() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.poll_failed(FailureKind::Broken);
    bench.expect_poll("s1", 200);
    bench.poll_failed(FailureKind::Broken);
    bench.expect_wait(Duration::from_millis(200));
}

#[test]
fn a_response_that_is_too_large_is_asked_for_in_smaller_parts() {
    let mut bench = Bench::running(policy());
    for expected in [200, 100, 50] {
        bench.expect_poll("s1", expected);
        bench.poll_failed(FailureKind::TooLarge);
        bench.pass(Duration::from_secs(30));
    }
    bench.expect_poll("s1", 25);
    bench.polled(25, 25);
    bench.expect_poll("s1", 50);
}

#[test]
fn acknowledgements_run_beside_a_get_and_gather_for_a_moment() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.load = Load { held: 3, in_flight: 2, ready: 1, oldest_ready: Some(bench.now), ..Load::default() };
    bench.expect_wait(ACKNOWLEDGE_LINGER);
    bench.load.in_flight = 0;
    bench.load.ready = 3;
    bench.expect(&Action::Acknowledge { session: "s1".into() });
    assert!(matches!(bench.next(), Next::Wait(_)), "one acknowledgement at a time");
    bench.machine.acknowledge_failed(bench.now, &"s1".into(), &error(FailureKind::Server));
    bench.expect_wait(Duration::from_millis(200));
    bench.pass(Duration::from_millis(200));
    bench.expect(&Action::Acknowledge { session: "s1".into() });
    bench.machine.acknowledged(bench.now, true);
    bench.expect(&Action::Acknowledge { session: "s1".into() });
}

#[test]
fn stopping_aborts_the_get_and_waits_for_what_was_handed_out() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.load = Load { held: 2, in_flight: 1, ready: 1, ..Load::default() };
    bench.machine.stop();
    bench.expect(&Action::Acknowledge { session: "s1".into() });
    bench.expect(&Action::Abort);
    assert_eq!(bench.next(), Next::Wait(None));
    bench.load = Load { held: 1, ready: 1, ..Load::default() };
    bench.machine.acknowledged(bench.now, true);
    bench.expect(&Action::Acknowledge { session: "s1".into() });
    bench.load = Load::default();
    assert_eq!(bench.next(), Next::Wait(None), "the last acknowledgement is under way");
    bench.machine.acknowledged(bench.now, true);
    bench.expect(&Action::Finish { ended: false });
}

#[test]
fn stopping_lets_a_v2_get_finish() {
    let mut bench = Bench::running(Policy { api: ApiVersion::V2, ..policy() });
    bench.expect_poll("s1", 200);
    bench.machine.stop();
    assert_eq!(bench.next(), Next::Wait(None));
    bench.polled(1, 1);
    bench.expect(&Action::Finish { ended: false });
}

#[test]
fn stopping_deletes_the_session_where_asked_and_not_for_ever() {
    let mut bench = Bench::running(Policy { on_shutdown: OnShutdown::Delete, ..policy() });
    bench.machine.stop();
    bench.expect(&Action::DeleteSession { session: "s1".into() });
    bench.machine.deleted(bench.now, Err(&error(FailureKind::Server)));
    bench.pass(Duration::from_secs(1));
    bench.expect(&Action::DeleteSession { session: "s1".into() });
    bench.machine.deleted(bench.now, Err(&throttled(3000)));
    bench.expect_wait(DELETE_PATIENCE - Duration::from_secs(1));
    bench.pass(DELETE_PATIENCE);
    bench.expect(&Action::Finish { ended: false });

    let mut bench = Bench::running(Policy { on_shutdown: OnShutdown::Delete, ..policy() });
    bench.machine.stop();
    bench.expect(&Action::DeleteSession { session: "s1".into() });
    bench.machine.deleted(bench.now, Ok(()));
    bench.expect(&Action::Finish { ended: false });
    assert_eq!(bench.machine.session(), None);
}

#[test]
fn stopping_without_a_vendor_ends_at_once() {
    let mut bench = Bench::new(policy());
    bench.expect(&Action::RefreshToken);
    bench.machine.stop();
    bench.expect(&Action::Finish { ended: false });
}

#[test]
fn an_end_event_ends_the_session_once_everything_is_acknowledged() {
    let mut bench = Bench::running(policy());
    bench.expect_poll("s1", 200);
    bench.polled(2, 2);
    bench.load = Load { held: 2, in_flight: 2, ending: true, ..Load::default() };
    bench.expect_wait(DELAY / 2);
    bench.pass(DELAY / 2);
    bench.expect_poll("s1", 1);
    bench.polled(0, 0);
    bench.load = Load { held: 1, in_flight: 1, ..Load::default() };
    bench.machine.end_event_acknowledged();
    assert!(matches!(bench.next(), Next::Wait(Some(_))));
    // What the consumer gave back is fetched again first.
    bench.load = Load { released: 1, ..Load::default() };
    bench.expect_poll("s1", 200);
    bench.polled(1, 1);
    bench.load = Load::default();
    bench.expect(&Action::DeleteSession { session: "s1".into() });
    bench.machine.deleted(bench.now, Ok(()));
    bench.expect(&Action::Finish { ended: true });
}

fn change(index: usize) -> SubscriptionChange {
    SubscriptionChange::Create(index)
}

#[test]
fn subscriptions_stand_before_the_first_get() {
    let mut bench = Bench::running(Policy { declared: 2, ..policy() });
    bench.expect(&Action::ListSubscriptions { session: "s1".into() });
    assert!(!bench.machine.is_up(bench.now));
    bench.machine.subscriptions_listed(bench.now, vec![change(0), change(1)]);
    bench.expect(&Action::ChangeSubscription { session: "s1".into(), change: change(0) });
    bench.machine.subscription_changed(bench.now);
    bench.expect(&Action::ChangeSubscription { session: "s1".into(), change: change(1) });
    // Perhaps applied, perhaps not: the list tells.
    bench.machine.subscription_failed(bench.now, &error(FailureKind::Server), |_| String::new());
    bench.pass(Duration::from_secs(1));
    bench.expect(&Action::ListSubscriptions { session: "s1".into() });
    bench.machine.subscriptions_listed(bench.now, vec![]);
    bench.expect_poll("s1", 200);
    assert!(bench.machine.take_notices().contains(&Notice::SubscriptionsApplied {
        created: 1,
        updated: 0,
        deleted: 0
    }));
}

#[test]
fn a_refused_subscription_holds_nothing_back_and_is_tried_again() {
    let mut bench = Bench::running(Policy { declared: 2, ..policy() });
    bench.expect(&Action::ListSubscriptions { session: "s1".into() });
    bench.machine.subscriptions_listed(bench.now, vec![change(0), change(1)]);
    bench.expect(&Action::ChangeSubscription { session: "s1".into(), change: change(0) });
    bench.machine.subscription_failed(bench.now, &error(FailureKind::Refused), |_| "\"third party\"".into());
    bench.expect(&Action::ChangeSubscription { session: "s1".into(), change: change(1) });
    bench.machine.subscription_changed(bench.now);
    bench.expect_poll("s1", 200);
    assert!(bench.machine.is_up(bench.now));
    assert!(bench.machine.reason(bench.now).unwrap().contains("third party"));
    bench.pass(Duration::from_secs(30));
    bench.polled(1, 1);
    bench.expect(&Action::ListSubscriptions { session: "s1".into() });
    // Trouble on the way does not stop the events.
    bench.machine.subscription_failed(bench.now, &error(FailureKind::Server), |_| String::new());
    bench.expect_poll("s1", 200);
    bench.pass(Duration::from_secs(60));
    bench.polled(1, 1);
    bench.expect(&Action::ListSubscriptions { session: "s1".into() });
    bench.machine.subscriptions_listed(bench.now, vec![]);
    bench.expect_poll("s1", 200);
    assert_eq!(bench.machine.reason(bench.now), None);
}

/// Pruning needs a look at the session even where nothing is declared, and a deletion that is refused is named.
#[test]
fn what_is_not_declared_is_deleted_where_the_source_prunes() {
    let mut bench = Bench::running(Policy { prune: true, ..policy() });
    bench.expect(&Action::ListSubscriptions { session: "s1".into() });
    let deletion =
        |id: &str| SubscriptionChange::Delete { id: id.into(), description: "somebody else's".into() };
    bench.machine.subscriptions_listed(bench.now, vec![deletion("f1"), deletion("f2")]);
    bench.expect(&Action::ChangeSubscription { session: "s1".into(), change: deletion("f1") });
    bench.machine.subscription_changed(bench.now);
    bench.expect(&Action::ChangeSubscription { session: "s1".into(), change: deletion("f2") });
    bench.machine.subscription_failed(bench.now, &error(FailureKind::Refused), |_| unreachable!());
    bench.expect_poll("s1", 200);
    let notices = bench.machine.take_notices();
    assert!(notices.contains(&Notice::SubscriptionsApplied { created: 0, updated: 0, deleted: 1 }));
    assert!(bench.machine.reason(bench.now).unwrap().contains("\"somebody else's\""));
}

#[test]
fn a_session_that_expires_between_its_subscriptions_is_replaced() {
    let mut bench = Bench::running(Policy { declared: 1, ..policy() });
    bench.expect(&Action::ListSubscriptions { session: "s1".into() });
    bench.machine.subscription_failed(bench.now, &error(FailureKind::Expired), |_| String::new());
    bench.pass(Duration::from_secs(1));
    bench.expect(&Action::CreateSession);
    bench.created("s2");
    bench.expect(&Action::ListSubscriptions { session: "s2".into() });
}
