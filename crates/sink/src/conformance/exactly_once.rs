//! The checks for sinks that keep a checkpoint with the data.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::offer::{PATIENCE, publish, record, settle};
use crate::outcome::Position;
use crate::{Batch, Checkpoints, Claim, Fatal, Outcome, Record, Sink};

/// Starts instances of one exactly-once sink.
#[async_trait]
pub trait Instances: Send + Sync {
    /// Another process of the same bridge and sink, as far as the destination can tell: a sink with a client and an owner of
    /// its own. It knows the sources `one`, `two` … `eight`, and remembers 20,000 events of each.
    async fn start(&self) -> Arc<dyn Sink>;

    /// The `n`-th destination: existing, writable, and for no other test's use.
    async fn destination(&self, n: usize) -> Arc<str>;

    /// The values of everything that a careful reader finds in the destination, in order.
    async fn read(&self, destination: &str) -> Vec<Vec<u8>>;
}

/// Runs every check of this file.
///
/// # Panics
///
/// When the sink breaks a rule.
pub async fn exactly_once(instances: &dyn Instances) {
    takes_over_what_is_stored(instances).await;
    forgets_what_is_acknowledged(instances).await;
    a_usurped_instance_publishes_nothing(instances).await;
    two_lanes_of_one_source(instances).await;
    hands_on_the_session(instances).await;
    remembers_much(instances).await;
}

fn checkpoints(sink: &Arc<dyn Sink>) -> &dyn Checkpoints {
    sink.checkpoints().expect("exactly once: the sink keeps checkpoints")
}

async fn claim(sink: &Arc<dyn Sink>, source: &str) -> Claim {
    let claim = timeout(PATIENCE, checkpoints(sink).claim(source)).await;
    claim.expect("a claim is answered while the destination is there").expect("nobody else is there")
}

fn records(
    destination: &Arc<str>,
    check: &str,
    source: &str,
    numbers: std::ops::Range<usize>,
) -> Vec<Record> {
    numbers
        .map(|number| {
            let key = format!("k{}", number % 3);
            record(destination, check, source, Some(&key), number)
        })
        .collect()
}

async fn expect(instances: &dyn Instances, destination: &Arc<str>, records: &[Record]) {
    let found = instances.read(destination).await;
    let wanted: Vec<Vec<u8>> = records.iter().map(|record| record.value.to_vec()).collect();
    let mut sorted = (found.clone(), wanted.clone());
    sorted.0.sort();
    sorted.1.sort();
    assert_eq!(
        sorted.0.len(),
        sorted.1.len(),
        "exactly once: {} records stand in {destination}, {} were published",
        found.len(),
        wanted.len()
    );
    assert!(sorted.0 == sorted.1, "exactly once: other records stand in {destination} than were published");
    for key in 0..3 {
        let of_key = |values: &[Vec<u8>]| -> Vec<Vec<u8>> {
            let key = format!(r#""key":"k{key}""#).into_bytes();
            let has = |value: &&Vec<u8>| value.windows(key.len()).any(|window| window == key);
            values.iter().filter(has).cloned().collect()
        };
        assert!(of_key(&found) == of_key(&wanted), "exactly once: order of key k{key} in {destination}");
    }
}

fn confirmed(outcomes: &[Outcome], held: bool) {
    for outcome in outcomes {
        let Outcome::Confirmed(receipt) = outcome else { panic!("exactly once: not confirmed: {outcome:?}") };
        let is_held = receipt.position() == Position::Held;
        assert_eq!(
            is_held,
            held,
            "exactly once: {receipt:?}, which was {}published before",
            if held { "" } else { "not " }
        );
    }
}

/// What one instance has stored, the next one confirms without storing it again; new records follow in order.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn takes_over_what_is_stored(instances: &dyn Instances) {
    let destination = instances.destination(100).await;
    let all = records(&destination, "takeover", "one", 0..700);
    let first = instances.start().await;
    let found = claim(&first, "one").await;
    assert!(found.session.is_none() && found.remembered == 0, "exactly once: a new source has no checkpoint");
    confirmed(&settle(&*first, "one", &all[..300]).await, false);
    confirmed(&settle(&*first, "one", &all[100..300]).await, true);

    let second = instances.start().await;
    let found = claim(&second, "one").await;
    assert_eq!(found.remembered, 300, "exactly once: the checkpoint names all that is not acknowledged");
    // A part that is known, in the middle of what is new: the vendor delivers again in any order.
    confirmed(&settle(&*second, "one", &all[250..300]).await, true);
    let outcomes = settle(&*second, "one", &all[200..500]).await;
    confirmed(&outcomes[..100], true);
    confirmed(&outcomes[100..], false);
    confirmed(&settle(&*second, "one", &all[500..]).await, false);
    expect(instances, &destination, &all).await;
    second.close().await;
}

/// An acknowledged event leaves the checkpoint with the next one that is stored, or when the sink is closed; nothing else does.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn forgets_what_is_acknowledged(instances: &dyn Instances) {
    let destination = instances.destination(101).await;
    let all = records(&destination, "forget", "two", 0..40);
    let first = instances.start().await;
    claim(&first, "two").await;
    confirmed(&settle(&*first, "two", &all[..30]).await, false);
    for record in &all[..20] {
        checkpoints(&first).acknowledged("two", &record.event);
    }
    confirmed(&settle(&*first, "two", &all[30..]).await, false);
    let second = instances.start().await;
    let found = claim(&second, "two").await;
    assert_eq!(found.remembered, 20, "exactly once: what is acknowledged is not remembered");
    confirmed(&settle(&*second, "two", &all[20..]).await, true);
    expect(instances, &destination, &all).await;
    for record in &all[20..30] {
        checkpoints(&second).acknowledged("two", &record.event);
    }
    second.close().await;
    let third = instances.start().await;
    let found = claim(&third, "two").await;
    assert_eq!(
        found.remembered, 10,
        "exactly once: a sink that is closed leaves no acknowledged event behind"
    );
    third.close().await;
}

/// From the moment another instance has claimed the source, the one before publishes nothing, says "fenced" for every
/// record, and harms nobody.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn a_usurped_instance_publishes_nothing(instances: &dyn Instances) {
    let destination = instances.destination(102).await;
    let all = records(&destination, "usurped", "three", 0..60);
    let zombie = instances.start().await;
    claim(&zombie, "three").await;
    confirmed(&settle(&*zombie, "three", &all[..20]).await, false);
    let heir = instances.start().await;
    claim(&heir, "three").await;
    confirmed(&settle(&*heir, "three", &all[20..40]).await, false);
    let never = records(&destination, "usurped", "zombie", 0..20);
    for _ in 0..2 {
        let outcomes = timeout(PATIENCE, publish(&*zombie, "three", &never)).await;
        for outcome in outcomes.expect("exactly once: a usurped instance hears of it") {
            assert!(
                matches!(outcome, Outcome::Fatal(Fatal::Fenced(_))),
                "exactly once: usurped, yet {outcome:?}"
            );
        }
    }
    let answer = timeout(PATIENCE, checkpoints(&zombie).claim("three")).await;
    let answer = answer.expect("exactly once: a usurped instance hears of it");
    assert!(matches!(answer, Err(Fatal::Fenced(_))), "exactly once: usurped, yet it claims: {answer:?}");
    confirmed(&settle(&*heir, "three", &all[40..]).await, false);
    expect(instances, &destination, &all).await;
    timeout(PATIENCE, zombie.close()).await.expect("exactly once: a usurped instance closes");
    heir.close().await;
}

/// However much is unacknowledged, the next instance knows all of it, and what is acknowledged is forgotten.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn remembers_much(instances: &dyn Instances) {
    let destination = instances.destination(106).await;
    let all = records(&destination, "much", "six", 0..9_000);
    let mut instance = instances.start().await;
    for part in all.chunks(3_000) {
        claim(&instance, "six").await;
        for batch in part.chunks(500) {
            confirmed(&settle(&*instance, "six", batch).await, false);
        }
        instance = instances.start().await;
    }
    let found = claim(&instance, "six").await;
    assert_eq!(
        found.remembered,
        all.len(),
        "exactly once: the checkpoint names all that is not acknowledged"
    );
    for batch in all.chunks(1_000) {
        confirmed(&settle(&*instance, "six", batch).await, true);
    }
    for record in &all[..8_990] {
        checkpoints(&instance).acknowledged("six", &record.event);
    }
    let more = records(&destination, "much", "six", 9_000..9_010);
    confirmed(&settle(&*instance, "six", &more).await, false);
    instance.close().await;
    let last = instances.start().await;
    assert_eq!(
        claim(&last, "six").await.remembered,
        20,
        "exactly once: what is acknowledged is not remembered"
    );
    confirmed(&settle(&*last, "six", &all[8_990..]).await, true);
    let all: Vec<Record> = all.into_iter().chain(more).collect();
    expect(instances, &destination, &all).await;
    last.close().await;
}

/// Two batches of one source at a time (events and dead letters) end up in one checkpoint, and an abandoned publish
/// leaves either both its records and their names or neither.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn two_lanes_of_one_source(instances: &dyn Instances) {
    let destinations = [instances.destination(103).await, instances.destination(104).await];
    let first = instances.start().await;
    claim(&first, "four").await;
    let events = records(&destinations[0], "lanes", "events", 0..200);
    let letters = records(&destinations[1], "lanes", "letters", 0..200);
    let in_batches = async |all: &[Record]| {
        for batch in all.chunks(20) {
            confirmed(&settle(&*first, "four", batch).await, false);
        }
    };
    tokio::join!(in_batches(&events), in_batches(&letters));

    let abandoned = records(&destinations[0], "lanes", "events", 200..400);
    for (round, batch) in abandoned.chunks(40).enumerate() {
        let patience = Duration::from_micros(700 * round as u64);
        let _ = timeout(patience, first.publish(Batch { source: "four", records: batch })).await;
        // It is offered again before anything later is, or there would be no order to keep: to the same instance, the last
        // one to the next instance.
        if round < 4 {
            settle(&*first, "four", batch).await;
        }
    }
    let second = instances.start().await;
    claim(&second, "four").await;
    confirmed(&settle(&*second, "four", &events).await, true);
    confirmed(&settle(&*second, "four", &letters).await, true);
    settle(&*second, "four", &abandoned).await;
    let all: Vec<Record> = events.into_iter().chain(abandoned).collect();
    expect(instances, &destinations[0], &all).await;
    expect(instances, &destinations[1], &letters).await;
    second.close().await;
}

/// The session reaches the next instance: with records, and without any.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn hands_on_the_session(instances: &dyn Instances) {
    let destination = instances.destination(105).await;
    let session =
        |id: usize| Some(RawValue::from_string(format!(r#"{{"session_id":"s-{id}"}}"#)).expect("JSON"));
    let mut instance = instances.start().await;
    claim(&instance, "five").await;
    for round in 0..3 {
        checkpoints(&instance).session("five", session(round));
        if round != 1 {
            let batch = records(&destination, "session", "five", round * 10..(round + 1) * 10);
            confirmed(&settle(&*instance, "five", &batch).await, false);
        } else {
            // In good order, so that "soon" is now.
            instance.close().await;
        }
        let next = instances.start().await;
        let found = claim(&next, "five").await.session;
        let (found, wanted) = (found.map(|found| found.get().to_owned()), session(round));
        assert_eq!(
            found.as_deref(),
            wanted.as_ref().map(|wanted| wanted.get()),
            "exactly once: the session of round {round}"
        );
        instance = next;
    }
    checkpoints(&instance).session("five", None);
    instance.close().await;
    let last = instances.start().await;
    assert!(
        claim(&last, "five").await.session.is_none(),
        "exactly once: a session that ended is not handed on"
    );
    last.close().await;
}
