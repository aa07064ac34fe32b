//! The limit at a pace: the broker's client alone, given one event after the other. What may only go together (a transaction,
//! an atomic batch) takes what has come since the one before.

use std::thread;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::job::{Target, VendorAddress};
use crate::limit::{self, Kafka, Kept, Turns};
use crate::scene::Contender;

/// Atomic batches have at most a thousand messages.
const MOST: usize = 1_000;

/// Publishes a record for every number that is sent, until there is nobody to send another.
pub(crate) async fn start(
    contender: Contender,
    vendor: &VendorAddress,
    target: &Target,
) -> Result<UnboundedSender<u64>> {
    let pattern = limit::fetch(vendor, 1).await?.into_iter().next().context("the vendor has no event")?;
    let (numbers, given) = mpsc::unbounded_channel();
    match (contender, target.clone()) {
        (Contender::Limit, Target::Kafka { bootstrap, topic }) => {
            let kafka = Kafka::with(&bootstrap, |config| {
                config.set("linger.ms", "0");
            })?;
            on_a_thread(move || one_by_one(&kafka, &topic, &pattern, given));
        }
        (Contender::LimitInTransactions, Target::Kafka { bootstrap, topic }) => {
            let turns = Turns::connect(&bootstrap)?;
            on_a_thread(move || in_transactions(&turns, &topic, &pattern, given));
        }
        (Contender::Limit, Target::Nats { url, subject, .. }) => {
            let context = jetstream::new(async_nats::connect(&url).await?);
            tokio::spawn(async move { told(publishes(&context, &subject, &pattern, given).await) });
        }
        (Contender::LimitInBatches, Target::Nats { url, subject, .. }) => {
            let client = async_nats::connect(&url).await?;
            tokio::spawn(async move { told(in_batches(&client, &subject, &pattern, given).await) });
        }
        (contender, _) => bail!("{} cannot be given a pace", contender.name()),
    }
    Ok(numbers)
}

fn on_a_thread(work: impl FnOnce() -> Result<()> + Send + 'static) {
    thread::spawn(move || told(work()));
}

/// Whoever waits for the records gives up in time.
fn told(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("the limit fails: {error:#}");
    }
}

/// The record of the event of this number, which stands at the end of its id.
fn numbered(pattern: &Kept, number: u64) -> Kept {
    let headers = pattern.headers.iter().map(|(name, value)| {
        let value = match name.0 {
            "ce_id" => format!("limit-{number}"),
            _ => value.clone(),
        };
        (*name, value)
    });
    Kept { key: pattern.key.clone(), headers: headers.collect(), value: pattern.value.clone() }
}

fn one_by_one(kafka: &Kafka, topic: &str, pattern: &Kept, mut given: UnboundedReceiver<u64>) -> Result<()> {
    while let Some(number) = given.blocking_recv() {
        kafka.send(topic, &numbered(pattern, number))?;
    }
    kafka.settled()
}

fn in_transactions(
    turns: &Turns,
    topic: &str,
    pattern: &Kept,
    mut given: UnboundedReceiver<u64>,
) -> Result<()> {
    let mut waiting = Vec::new();
    for kafka in turns.each() {
        if given.blocking_recv_many(&mut waiting, MOST) == 0 {
            break;
        }
        let records: Vec<Kept> = waiting.drain(..).map(|number| numbered(pattern, number)).collect();
        kafka.transaction(topic, &records)?;
    }
    Ok(())
}

async fn publishes(
    context: &jetstream::Context,
    subject: &str,
    pattern: &Kept,
    mut given: UnboundedReceiver<u64>,
) -> Result<()> {
    let mut acks = FuturesUnordered::new();
    loop {
        tokio::select! {
            number = given.recv() => {
                let Some(number) = number else { break };
                let record = numbered(pattern, number);
                let headers = limit::nats_headers(&record);
                let ack = context.publish_with_headers(subject.to_owned(), headers, record.value).await?;
                acks.push(ack.into_future());
            }
            Some(ack) = acks.next() => drop(ack?),
        }
    }
    while acks.next().await.transpose()?.is_some() {}
    Ok(())
}

async fn in_batches(
    client: &async_nats::Client,
    subject: &str,
    pattern: &Kept,
    mut given: UnboundedReceiver<u64>,
) -> Result<()> {
    let mut waiting = Vec::new();
    let mut batches = 0u64;
    while given.recv_many(&mut waiting, MOST).await > 0 {
        batches += 1;
        let records: Vec<Kept> = waiting.drain(..).map(|number| numbered(pattern, number)).collect();
        limit::in_batch(client, subject, &format!("paced-{batches}"), &records).await?;
    }
    Ok(())
}
