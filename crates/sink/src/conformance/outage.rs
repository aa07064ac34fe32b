//! The destination goes away and comes back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Harness;
use super::offer::{Copies, PATIENCE, confirm, publish, record, verify};
use crate::{HealthWatch, Outcome, Record, Sink};

/// How long a sink may take to notice that its destination is gone or back.
const NOTICE: Duration = Duration::from_secs(60);
/// How long a publish has to be seen waiting before the check believes it.
const WAITING: Duration = Duration::from_secs(1);

/// While the destination is away, publishes wait without an outcome and health is down with a reason. After it came
/// back they complete by themselves, nothing is lost, order holds, health is up.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn outage(harness: &dyn Harness) {
    let destinations = [harness.destination(70).await, harness.destination(71).await];
    let batch = |source: usize, batch: usize| -> Vec<Record> {
        let (name, key) = (format!("s{source}"), format!("key-of-{source}"));
        (0..100)
            .map(|number| {
                record(&destinations[source % 2], "outage", &name, Some(&key), batch * 100 + number)
            })
            .collect()
    };
    let mut health = harness.sink().health();
    for source in 0..2 {
        confirm(&*harness.sink(), &format!("outage-{source}"), &batch(source, 0)).await;
    }
    wait_for(&mut health, true, "after a confirmed batch").await;

    if !harness.break_destination().await {
        return;
    }
    let mut publishes: Vec<_> = (0..2)
        .map(|source| {
            let (sink, records) = (harness.sink(), batch(source, 1));
            tokio::spawn(async move { publish(&*sink, &format!("outage-{source}"), &records).await })
        })
        .collect();
    wait_for(&mut health, false, "while the destination is away").await;
    assert!(!health.borrow().reason.is_empty(), "health: down without a reason");
    for publish in &mut publishes {
        match timeout(WAITING, publish).await {
            Ok(Ok(outcomes)) => answered(&outcomes),
            Ok(Err(failure)) => std::panic::resume_unwind(failure.into_panic()),
            Err(_) => {}
        }
    }

    harness.heal_destination().await;
    for (source, publish) in publishes.into_iter().enumerate() {
        let outcomes = match timeout(PATIENCE, publish).await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(failure)) => std::panic::resume_unwind(failure.into_panic()),
            Err(_) => panic!("outage: a publish still waits {PATIENCE:?} after the destination came back"),
        };
        // What was under way when the destination went may be unknown: then it is offered again.
        let open: Vec<Record> = batch(source, 1)
            .into_iter()
            .zip(outcomes)
            .filter_map(|(record, outcome)| match outcome {
                Outcome::Confirmed(_) => None,
                Outcome::Retry(_) => Some(record),
                outcome => panic!("outage: {} got {outcome:?} after it", record.message_id),
            })
            .collect();
        confirm(&*harness.sink(), &format!("outage-{source}"), &open).await;
    }
    wait_for(&mut health, true, "after the destination came back").await;
    for source in 0..2 {
        confirm(&*harness.sink(), &format!("outage-{source}"), &batch(source, 2)).await;
    }
    let all: Vec<Record> =
        [0, 1, 2].into_iter().flat_map(|number| [batch(0, number), batch(1, number)].concat()).collect();
    verify(harness, &all, Copies::OneOrMore).await;
}

/// The destination goes while sources publish batch after batch, and one publish is abandoned during the outage. After
/// it came back the sources go on by themselves, nothing is lost, order holds, and of the abandoned batch there is
/// nothing but whole records.
///
/// # Panics
///
/// When the sink breaks the rule.
pub async fn outage_under_load(harness: &dyn Harness) {
    let destinations = [harness.destination(80).await, harness.destination(81).await];
    let mut health = harness.sink().health();
    let (stop, stopped) = watch::channel(false);
    let mut loads: Vec<Load> = (0..2)
        .map(|source| {
            let destination = Arc::clone(&destinations[source]);
            Load::start(harness.sink(), destination, format!("s{source}"), stopped.clone())
        })
        .collect();
    for load in &mut loads {
        load.progress(3, &health, "before the outage").await;
    }

    let away = harness.break_destination().await;
    let abandoned = load_batch(&destinations[0], "abandoned", 0);
    if away {
        wait_for(&mut health, false, "while the destination is away under load").await;
        let sink = harness.sink();
        if let Ok(outcomes) = timeout(WAITING, publish(&*sink, "load-abandoned", &abandoned)).await {
            answered(&outcomes);
        }
        harness.heal_destination().await;
        for load in &mut loads {
            load.progress(3, &health, "after the outage").await;
        }
        wait_for(&mut health, true, "after the destination came back under load").await;
    }
    stop.send_replace(true);
    let mut all = Vec::new();
    for load in loads {
        all.extend(load.finish().await);
    }
    if away {
        let next = load_batch(&destinations[0], "abandoned", 1);
        confirm(&*harness.sink(), "load-abandoned", &next).await;
        all.extend(next);
    }

    let copies = if away { Copies::OneOrMore } else { Copies::One };
    let read = verify(harness, &all, copies).await;
    let known: HashSet<&[u8]> = all.iter().chain(&abandoned).map(|record| &*record.value).collect();
    for (destination, found) in &read {
        assert!(
            found.iter().all(|observed| known.contains(&*observed.value)),
            "outage: something that nobody published stands in {destination}"
        );
    }
}

fn answered(outcomes: &[Outcome]) -> ! {
    panic!("outage: a publish ended while the destination was away, first with {:?}", outcomes.first());
}

/// A source that publishes one batch after the other until it is told to stop.
struct Load {
    task: JoinHandle<Vec<Record>>,
    done: watch::Receiver<usize>,
}

impl Load {
    fn start(
        sink: Arc<dyn Sink>,
        destination: Arc<str>,
        name: String,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let (report, done) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut all = Vec::new();
            for number in 0.. {
                let records = load_batch(&destination, &name, number);
                confirm(&*sink, &format!("load-{name}"), &records).await;
                all.extend(records);
                report.send_replace(number + 1);
                if *stopped.borrow() {
                    break;
                }
            }
            all
        });
        Self { task, done }
    }

    /// Waits until so many further batches are confirmed.
    async fn progress(&mut self, further: usize, health: &HealthWatch, when: &str) {
        let goal = *self.done.borrow() + further;
        let reached = async { self.done.wait_for(|done| *done >= goal).await.map(drop) };
        match timeout(PATIENCE, reached).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => match (&mut self.task).await {
                Ok(_) => panic!("a source stopped though nobody told it to"),
                Err(failure) => std::panic::resume_unwind(failure.into_panic()),
            },
            Err(_) => panic!(
                "outage: a source does not get on {when}, after {} batches; health says {:?}",
                *self.done.borrow(),
                *health.borrow()
            ),
        }
    }

    /// What it has published, all of it confirmed.
    async fn finish(self) -> Vec<Record> {
        match timeout(PATIENCE, self.task).await {
            Ok(Ok(records)) => records,
            Ok(Err(failure)) => std::panic::resume_unwind(failure.into_panic()),
            Err(_) => panic!("outage: a source does not end"),
        }
    }
}

fn load_batch(destination: &Arc<str>, name: &str, batch: usize) -> Vec<Record> {
    let key = format!("key-of-{name}");
    (0..50).map(|number| record(destination, "load", name, Some(&key), batch * 50 + number)).collect()
}

async fn wait_for(health: &mut HealthWatch, up: bool, when: &str) {
    let word = if up { "up" } else { "down" };
    if timeout(NOTICE, health.wait_for(|health| health.up == up)).await.is_err() {
        panic!("health: not {word} {when}; it says {:?}", *health.borrow());
    }
}
