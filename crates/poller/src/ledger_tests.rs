//! The ledger's rules, one by one and against generated histories.

use super::*;
use proptest::prelude::*;

fn identity(id: &str, content: u128) -> Identity {
    Identity::new(id, ContentHash::from_u128(content))
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(10, true);
    ledger.begin_session();
    ledger
}

fn now() -> Instant {
    Instant::now()
}

fn hand_out(ledger: &mut Ledger, id: &str, content: u128) -> u64 {
    match ledger.receive(&identity(id, content), "c", false, false, now()) {
        Receipt::HandOut(handle) => handle,
        other => panic!("{id} {content}: {other:?}"),
    }
}

fn again(ledger: &mut Ledger, id: &str, content: u128) -> Receipt {
    ledger.receive(&identity(id, content), "c", false, false, now())
}

/// Answers the batch that is under way.
fn answer(ledger: &mut Ledger, verdict: impl Fn(&str) -> Option<bool>) -> Acknowledged {
    let ids = ledger.sending.clone();
    ledger.answered(&ids, verdict, now())
}

fn batch(ledger: &mut Ledger) -> Vec<String> {
    ledger.take_batch(1000, now()).iter().map(ToString::to_string).collect()
}

#[test]
fn an_id_is_acknowledged_after_it_is_durable() {
    let mut ledger = ledger();
    let handle = hand_out(&mut ledger, "1", 1);
    assert!(batch(&mut ledger).is_empty());
    assert_eq!(ledger.settle(handle, true, now()), Settlement::Durable);
    assert_eq!(batch(&mut ledger), ["1"]);
    assert_eq!((ledger.held(), ledger.unacknowledged()), (1, 1));
    let result = answer(&mut ledger, |_| Some(true));
    assert_eq!((result.confirmed.len(), result.not_found), (1, 0));
    assert_eq!((ledger.held(), ledger.unacknowledged(), ledger.oldest_held()), (0, 0, None));
}

#[test]
fn what_is_in_flight_is_not_handed_out_again() {
    let mut ledger = ledger();
    hand_out(&mut ledger, "1", 1);
    assert_eq!(again(&mut ledger, "1", 1), Receipt::Redelivered);
}

#[test]
fn what_was_acknowledged_and_comes_again_is_acknowledged_again() {
    let mut ledger = ledger();
    let handle = hand_out(&mut ledger, "1", 1);
    ledger.settle(handle, true, now());
    batch(&mut ledger);
    answer(&mut ledger, |_| Some(true));
    assert_eq!(again(&mut ledger, "1", 1), Receipt::Redelivered);
    assert_eq!(batch(&mut ledger), ["1"]);
    assert!(answer(&mut ledger, |_| Some(true)).confirmed.is_empty(), "it counts once");
    assert_eq!(ledger.held(), 0);
}

/// A vendor gives out again what a lost session left unacknowledged behind everything that is newer.
#[test]
fn what_the_vendor_did_not_confirm_is_remembered_whatever_it_confirms_later() {
    let mut ledger = ledger();
    let handle = hand_out(&mut ledger, "early", 1);
    ledger.settle(handle, true, now());
    ledger.end_session();
    ledger.begin_session();
    for number in 0..10_000 {
        let handle = hand_out(&mut ledger, &number.to_string(), 1);
        ledger.settle(handle, true, now());
        batch(&mut ledger);
        answer(&mut ledger, |_| Some(true));
    }
    assert_eq!(again(&mut ledger, "early", 1), Receipt::Redelivered);
    assert_eq!(batch(&mut ledger), ["early"]);
    assert_eq!(answer(&mut ledger, |_| Some(true)).confirmed.len(), 1);
    assert!(ledger.records.len() <= 4097, "{}", ledger.records.len());
}

#[test]
fn a_dropped_token_lets_the_entry_be_handed_out_again() {
    let mut ledger = ledger();
    let handle = hand_out(&mut ledger, "1", 1);
    assert_eq!(ledger.settle(handle, false, now()), Settlement::Released);
    assert_eq!((ledger.held(), ledger.unacknowledged()), (0, 1));
    let second = hand_out(&mut ledger, "1", 1);
    assert_ne!(handle, second);
    // The first token is spent; its handle means nothing any more.
    assert_eq!(ledger.settle(handle, true, now()), Settlement::Released);
    assert!(batch(&mut ledger).is_empty());
}

#[test]
fn one_id_with_two_contents_is_two_entries_and_one_acknowledgement() {
    let mut ledger = ledger();
    let first = hand_out(&mut ledger, "1", 1);
    let second = hand_out(&mut ledger, "1", 2);
    ledger.settle(second, true, now());
    assert!(batch(&mut ledger).is_empty());
    ledger.settle(first, true, now());
    assert_eq!(batch(&mut ledger), ["1"]);
    assert_eq!(answer(&mut ledger, |_| Some(true)).confirmed.len(), 2);
}

#[test]
fn a_second_content_takes_a_queued_id_back() {
    let mut ledger = ledger();
    let first = hand_out(&mut ledger, "1", 1);
    ledger.settle(first, true, now());
    let second = hand_out(&mut ledger, "1", 2);
    assert!(batch(&mut ledger).is_empty());
    ledger.settle(second, true, now());
    assert_eq!(batch(&mut ledger), ["1"]);
}

#[test]
fn a_released_content_holds_its_sibling_s_acknowledgement_back_but_nothing_else() {
    let mut ledger = ledger();
    let first = hand_out(&mut ledger, "1", 1);
    let second = hand_out(&mut ledger, "1", 2);
    ledger.settle(first, true, now());
    ledger.settle(second, false, now());
    assert!(batch(&mut ledger).is_empty());
    assert_eq!(ledger.held(), 0, "a serial poller must go on");
    assert_eq!(again(&mut ledger, "1", 1), Receipt::Redelivered);
    assert!(batch(&mut ledger).is_empty());
    let second = hand_out(&mut ledger, "1", 2);
    ledger.settle(second, true, now());
    assert_eq!(batch(&mut ledger), ["1"]);
    answer(&mut ledger, |_| Some(true));
    assert_eq!(ledger.held(), 0);
}

#[test]
fn a_new_session_acknowledges_only_what_it_delivered() {
    let mut ledger = ledger();
    let durable = hand_out(&mut ledger, "1", 1);
    let flying = hand_out(&mut ledger, "2", 2);
    ledger.settle(durable, true, now());
    ledger.begin_session();
    assert!(batch(&mut ledger).is_empty());
    assert_eq!(ledger.held(), 1);
    // Durable already: only acknowledged.
    assert_eq!(again(&mut ledger, "1", 1), Receipt::Redelivered);
    assert_eq!(batch(&mut ledger), ["1"]);
    answer(&mut ledger, |_| Some(true));
    // In flight across the change, durable before it was seen again: not acknowledged until it is.
    ledger.settle(flying, true, now());
    assert!(batch(&mut ledger).is_empty());
    assert_eq!(again(&mut ledger, "2", 2), Receipt::Redelivered);
    assert_eq!(batch(&mut ledger), ["2"]);
    assert_eq!(answer(&mut ledger, |_| Some(true)).confirmed.len(), 1);
}

#[test]
fn what_is_in_flight_and_seen_in_the_new_session_is_acknowledged_there() {
    let mut ledger = ledger();
    let flying = hand_out(&mut ledger, "2", 2);
    ledger.begin_session();
    assert_eq!(again(&mut ledger, "2", 2), Receipt::Redelivered);
    ledger.settle(flying, true, now());
    assert_eq!(batch(&mut ledger), ["2"]);
}

#[test]
fn a_dead_session_acknowledges_nothing() {
    let mut ledger = ledger();
    let first = hand_out(&mut ledger, "1", 1);
    let second = hand_out(&mut ledger, "2", 1);
    ledger.settle(first, true, now());
    batch(&mut ledger);
    ledger.end_session();
    ledger.not_answered(now());
    ledger.settle(second, true, now());
    // Nobody can acknowledge them any more, so nobody is told to wait for it.
    assert_eq!((ledger.ready(), ledger.held(), ledger.unacknowledged()), (0, 0, 0));
}

#[test]
fn an_entry_without_an_id_is_handed_out_once_and_never_acknowledged() {
    let mut ledger = ledger();
    let handle = hand_out(&mut ledger, "", 1);
    hand_out(&mut ledger, "", 2);
    assert!(matches!(ledger.settle(handle, true, now()), Settlement::Done(_)));
    assert_eq!(again(&mut ledger, "", 1), Receipt::Redelivered);
    assert!(batch(&mut ledger).is_empty());
    assert_eq!(ledger.unacknowledged(), 0);
}

#[test]
fn an_answer_may_say_anything() {
    let mut ledger = ledger();
    for id in ["found", "gone", "silent"] {
        let handle = hand_out(&mut ledger, id, 1);
        ledger.settle(handle, true, now());
    }
    let verdict = |id: &str| match id {
        "found" => Some(true),
        "gone" => Some(false),
        _ => None,
    };
    assert_eq!(batch(&mut ledger).len(), 3);
    let result = answer(&mut ledger, verdict);
    assert_eq!((result.confirmed.len(), result.not_found, result.given_up), (2, 1, 0));
    for _ in 1..MAX_SILENT_ANSWERS {
        assert_eq!(batch(&mut ledger), ["silent"]);
        answer(&mut ledger, verdict);
    }
    assert!(batch(&mut ledger).is_empty());
    assert_eq!((ledger.held(), ledger.unacknowledged()), (0, 1));
}

#[test]
fn an_answer_that_comes_after_its_session_ended_still_counts() {
    let mut ledger = ledger();
    let handle = hand_out(&mut ledger, "1", 1);
    ledger.settle(handle, true, now());
    let ids = ledger.take_batch(1000, now());
    ledger.begin_session();
    assert_eq!(ledger.unacknowledged(), 0);
    assert_eq!(ledger.answered(&ids, |_| Some(true), now()).confirmed.len(), 1);
    assert_eq!((ledger.unacknowledged(), ledger.held()), (0, 0));
}

#[test]
fn a_lost_answer_is_asked_for_again_in_order() {
    let mut ledger = ledger();
    for id in ["1", "2", "3"] {
        let handle = hand_out(&mut ledger, id, 1);
        ledger.settle(handle, true, now());
    }
    assert_eq!(ledger.take_batch(2, now()).len(), 2);
    ledger.not_answered(now());
    assert_eq!(batch(&mut ledger), ["1", "2", "3"]);
}

#[test]
fn beyond_max_in_flight_entries_stay_at_the_vendor() {
    let mut ledger = ledger();
    let handles: Vec<_> = (0..10).map(|n| hand_out(&mut ledger, &n.to_string(), 1)).collect();
    assert_eq!(again(&mut ledger, "x", 1), Receipt::NoRoom);
    ledger.settle(handles[0], true, now());
    assert_eq!(again(&mut ledger, "x", 1), Receipt::NoRoom, "what awaits its acknowledgement is still held");
    batch(&mut ledger);
    answer(&mut ledger, |_| Some(true));
    assert!(matches!(again(&mut ledger, "x", 1), Receipt::HandOut(_)));
    assert!(matches!(ledger.receive(&identity("y", 1), "c", false, true, now()), Receipt::HandOut(_)));
}

#[test]
fn memory_has_an_end() {
    let mut ledger = ledger();
    for n in 0..20_000 {
        let handle = hand_out(&mut ledger, &n.to_string(), 1);
        ledger.settle(handle, true, now());
        batch(&mut ledger);
        answer(&mut ledger, |_| Some(true));
    }
    assert_eq!(ledger.records.len(), 4096);
    assert_eq!(again(&mut ledger, "19999", 1), Receipt::Redelivered);
    assert!(ledger.oldest_held().is_some());
    assert!(ledger.hand_outs.len() <= 2);
}

#[test]
fn memory_of_what_the_vendor_did_not_confirm_has_an_end() {
    let mut ledger = ledger();
    for n in 0..2_000 {
        for m in 0..10 {
            let handle = hand_out(&mut ledger, &format!("{n}-{m}"), 1);
            ledger.settle(handle, true, now());
        }
        ledger.begin_session();
    }
    assert_eq!((ledger.records.len(), ledger.held()), (4096, 0));
    assert_eq!(again(&mut ledger, "1999-9", 1), Receipt::Redelivered);
    assert!(matches!(again(&mut ledger, "0-0", 1), Receipt::HandOut(_)));
}

#[test]
fn v2_is_done_when_it_is_durable() {
    let mut ledger = Ledger::new(10, false);
    ledger.begin_session();
    let handle = hand_out(&mut ledger, "1", 1);
    assert!(matches!(ledger.settle(handle, true, now()), Settlement::Done(_)));
    assert_eq!(again(&mut ledger, "1", 1), Receipt::Redelivered);
    assert_eq!((ledger.held(), ledger.ready(), ledger.unacknowledged()), (0, 0, 0));
}

#[test]
fn an_end_event_is_known_while_it_is_held() {
    let mut ledger = ledger();
    let Receipt::HandOut(handle) = ledger.receive(&identity("1", 1), "c", true, false, now()) else {
        panic!()
    };
    assert!(ledger.ending());
    ledger.settle(handle, true, now());
    assert!(ledger.ending());
    batch(&mut ledger);
    assert!(answer(&mut ledger, |_| Some(true)).confirmed[0].end);
    assert!(!ledger.ending());
}

/// One step of a generated history.
#[derive(Debug, Clone)]
enum Op {
    Deliver { id: u8, content: u8 },
    Settle { nth: usize, durable: bool },
    Take(usize),
    Answer(u8),
    Lost,
    NewSession,
    SessionEnds,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0u8..8, 0u8..2).prop_map(|(id, content)| Op::Deliver { id, content }),
        6 => (0usize..10, prop::bool::weighted(0.8)).prop_map(|(nth, durable)| Op::Settle { nth, durable }),
        3 => (1usize..4).prop_map(Op::Take),
        3 => any::<u8>().prop_map(Op::Answer),
        1 => Just(Op::Lost),
        1 => Just(Op::NewSession),
        1 => Just(Op::SessionEnds),
    ]
}

/// What is known from outside about one (id, content).
#[derive(Debug, Default, Clone)]
struct Outside {
    in_flight: bool,
    durable: bool,
    /// Delivered since the id's contents were last all settled, and neither durable nor in flight: released.
    released: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_history_breaks_the_rules(ops in prop::collection::vec(op(), 0..120)) {
        let mut ledger = Ledger::new(6, true);
        let mut outside: HashMap<(u8, u8), Outside> = HashMap::new();
        let mut tokens: Vec<(u64, (u8, u8))> = Vec::new();
        let mut seen: std::collections::HashSet<u8> = std::collections::HashSet::new();
        let (mut alive, mut sending) = (false, Vec::<u8>::new());
        for op in ops {
            match op {
                Op::Deliver { id, content } => {
                    let held = ledger.held();
                    let receipt = again(&mut ledger, &id.to_string(), u128::from(content));
                    seen.insert(id);
                    let known = outside.entry((id, content)).or_default();
                    match receipt {
                        Receipt::HandOut(handle) => {
                            prop_assert!(held < 6);
                            prop_assert!(!known.in_flight && !known.durable, "handed out twice");
                            *known = Outside { in_flight: true, ..Outside::default() };
                            tokens.push((handle, (id, content)));
                        }
                        Receipt::Redelivered => prop_assert!(known.in_flight || known.durable),
                        Receipt::NoRoom => {
                            prop_assert!(held >= 6);
                            known.released = true;
                        }
                    }
                }
                Op::Settle { nth, durable } if !tokens.is_empty() => {
                    let (handle, key) = tokens.swap_remove(nth % tokens.len());
                    ledger.settle(handle, durable, now());
                    outside.insert(key, Outside { in_flight: false, durable, released: !durable });
                }
                Op::Take(limit) if sending.is_empty() => {
                    sending = ledger.take_batch(limit, now()).iter().map(|id| id.parse().unwrap()).collect();
                    prop_assert!(sending.len() <= limit);
                    for id in &sending {
                        prop_assert!(alive && seen.contains(id), "acknowledged an id that this session never delivered");
                        for content in 0..2 {
                            let known = outside.get(&(*id, content)).cloned().unwrap_or_default();
                            prop_assert!(!known.in_flight && !known.released, "acknowledged before it was durable");
                        }
                    }
                }
                Op::Answer(kind) if !sending.is_empty() => {
                    sending.clear();
                    answer(&mut ledger, |id| match (kind ^ id.as_bytes()[0]) % 4 {
                        0 => None,
                        1 => Some(false),
                        _ => Some(true),
                    });
                }
                Op::Lost => {
                    sending.clear();
                    ledger.not_answered(now());
                }
                Op::NewSession => {
                    (alive, _) = (true, seen.clear());
                    sending.clear();
                    ledger.begin_session();
                }
                Op::SessionEnds => {
                    alive = false;
                    sending.clear();
                    ledger.end_session();
                }
                Op::Settle { .. } | Op::Take(_) | Op::Answer(_) => {}
            }
            prop_assert_eq!(ledger.in_flight(), tokens.len());
            prop_assert!(ledger.held() >= tokens.len());
            prop_assert_eq!(ledger.oldest_held().is_some(), ledger.held() > 0);
        }
        // The vendor heals and delivers everything that it still holds, in a new session; the consumer settles all.
        ledger.begin_session();
        for _ in 0..4 {
            for ((id, content), _) in outside.clone() {
                if let Receipt::HandOut(handle) = again(&mut ledger, &id.to_string(), u128::from(content)) {
                    tokens.push((handle, (id, content)));
                }
                for (handle, _) in tokens.drain(..) {
                    ledger.settle(handle, true, now());
                }
                ledger.take_batch(1000, now());
                answer(&mut ledger, |_| Some(true));
            }
        }
        prop_assert_eq!((ledger.held(), ledger.ready(), ledger.unacknowledged()), (0, 0, 0));
    }
}
