//! Partitions read at the same time, merged by timestamp, each with a bounded buffer.
//!
//! The next record is the oldest one at the head of a partition, once every partition that is not at its end has one.
//! A partition whose buffer is full is paused meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use viaduct_sink::{ArchiveError, Kept};

use super::{REQUEST, Reader};
use crate::classify::{Verdict, verdict};
use crate::producer::Context;

/// How long reading may go without anything new.
const SILENCE: Duration = Duration::from_secs(20);
/// How long one poll waits.
const POLL: Duration = Duration::from_millis(100);
/// When the buffer of a partition is full.
const FULL: usize = 500;
const FULL_BYTES: usize = 1 << 20;

/// The partitions of all topics.
pub(super) struct Merge {
    /// A consumer each: the end of a partition is told without its topic's name.
    topics: Vec<Topic>,
}

struct Topic {
    name: Arc<str>,
    consumer: BaseConsumer<Context>,
    parts: Vec<Part>,
}

struct Part {
    partition: i32,
    /// The offset behind the last one to be read.
    end: i64,
    at_end: bool,
    paused: bool,
    buffer: VecDeque<Kept>,
    bytes: usize,
}

impl Part {
    fn is_full(&self) -> bool {
        self.buffer.len() >= FULL || self.bytes >= FULL_BYTES
    }

    /// Whether the next record is not known yet.
    fn is_open(&self) -> bool {
        self.buffer.is_empty() && !self.at_end
    }
}

impl Merge {
    /// Notes the ends, and begins to fetch.
    pub(super) fn begin(reader: &Reader, since_ms: Option<i64>) -> Result<Self, ArchiveError> {
        let first = reader.consumer()?;
        let names = reader.topics(&first)?;
        let mut first = Some(first);
        let mut topics = Vec::new();
        for (name, partitions) in names {
            // The first one knows its brokers already.
            let consumer = first.take().map_or_else(|| reader.consumer(), Ok)?;
            let mut parts = Vec::new();
            let mut wanted = TopicPartitionList::new();
            for partition in partitions {
                let (low, end) = reader.ends(&consumer, &name, partition)?;
                if end > low {
                    add(&mut wanted, &name, partition, Offset::Offset(low))?;
                    let buffer = VecDeque::new();
                    parts.push(Part { partition, end, at_end: false, paused: false, buffer, bytes: 0 });
                }
            }
            if let Some(since_ms) = since_ms {
                wanted = later(reader, &consumer, &name, &parts, since_ms)?;
                parts.retain(|part| wanted.find_partition(&name, part.partition).is_some());
            }
            if parts.is_empty() {
                continue;
            }
            let what = format!("topic {name} cannot be read");
            consumer.assign(&wanted).map_err(|error| reader.explain(&what, &error))?;
            topics.push(Topic { name, consumer, parts });
        }
        Ok(Self { topics })
    }

    /// Gives the records to `each` until it says no.
    pub(super) fn run(
        &mut self,
        reader: &Reader,
        mut each: impl FnMut(Kept) -> bool,
    ) -> Result<(), ArchiveError> {
        let mut heard = Instant::now();
        loop {
            while let Some(kept) = self.next() {
                if !each(kept) {
                    return Ok(());
                }
                // Whoever takes the records may take all the time.
                heard = Instant::now();
            }
            let Some(topic) = self.topics.iter_mut().find(|topic| topic.parts.iter().any(Part::is_open))
            else {
                return Ok(());
            };
            if topic.poll(reader)? {
                heard = Instant::now();
            } else if heard.elapsed() > SILENCE {
                let why = reader.vitals.unreachable();
                return Err(ArchiveError::Unreachable(format!("topic {} cannot be read: {why}", topic.name)));
            }
        }
    }

    /// The next record, if it is known.
    fn next(&mut self) -> Option<Kept> {
        let parts = || {
            self.topics
                .iter()
                .enumerate()
                .flat_map(|(topic, it)| it.parts.iter().enumerate().map(move |(part, it)| (topic, part, it)))
        };
        if parts().any(|(.., part)| part.is_open()) {
            return None;
        }
        let heads =
            parts().filter_map(|(topic, index, part)| Some((part.buffer.front()?.time_ms, topic, index)));
        let (_, topic, index) = heads.min()?;
        let topic = &mut self.topics[topic];
        let part = &mut topic.parts[index];
        let kept = part.buffer.pop_front()?;
        part.bytes = part.bytes.saturating_sub(kept.value.len());
        if part.paused && part.buffer.len() < FULL / 8 && part.bytes < FULL_BYTES / 8 {
            part.paused = false;
            let list = of_one(&topic.name, part.partition);
            // It fails for partitions alone that are not assigned.
            let _ = topic.consumer.resume(&list);
        }
        Some(kept)
    }
}

impl Topic {
    /// Takes what arrives; whether anything did.
    fn poll(&mut self, reader: &Reader) -> Result<bool, ArchiveError> {
        let several = self.parts.len() > 1;
        match self.consumer.poll(POLL) {
            None => Ok(false),
            Some(Ok(message)) => {
                let Some(part) = self.parts.iter_mut().find(|part| part.partition == message.partition())
                else {
                    return Ok(true);
                };
                if message.offset() < part.end && !part.at_end {
                    let kept = reader.kept(&message);
                    part.bytes += kept.value.len();
                    part.buffer.push_back(kept);
                }
                part.at_end |= message.offset() + 1 >= part.end;
                // What is behind the end is of no use, and what is full has to wait.
                if (several && part.is_full() && !part.paused) || part.at_end {
                    part.paused = true;
                    let list = of_one(&self.name, part.partition);
                    let _ = self.consumer.pause(&list);
                }
                Ok(true)
            }
            // The last offsets may be markers of transactions, which no consumer is given.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(part) = self.parts.iter_mut().find(|part| part.partition == partition) {
                    part.at_end = true;
                }
                Ok(true)
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(code) if verdict(code) == Verdict::Transient => Ok(false),
                _ => Err(reader.explain(&format!("topic {} cannot be read", self.name), &error)),
            },
        }
    }
}

/// Reads one record.
pub(super) fn find(
    reader: &Reader,
    topic: &Arc<str>,
    partition: i32,
    offset: i64,
) -> Result<Option<Kept>, ArchiveError> {
    let consumer = reader.consumer()?;
    let topics = reader.topics(&consumer)?;
    let exists = topics.iter().any(|(name, partitions)| name == topic && partitions.contains(&partition));
    if !exists {
        return Ok(None);
    }
    let (low, end) = reader.ends(&consumer, topic, partition)?;
    if !(low..end).contains(&offset) {
        return Ok(None);
    }
    let mut wanted = TopicPartitionList::new();
    add(&mut wanted, topic, partition, Offset::Offset(offset))?;
    let what = format!("topic {topic} cannot be read");
    consumer.assign(&wanted).map_err(|error| reader.explain(&what, &error))?;
    let begun = Instant::now();
    while begun.elapsed() < SILENCE {
        match consumer.poll(POLL) {
            // It may be a marker of a transaction, or compacted away.
            Some(Ok(message)) => return Ok((message.offset() == offset).then(|| reader.kept(&message))),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(code) if verdict(code) == Verdict::Transient => {}
                _ => return Err(reader.explain(&what, &error)),
            },
            None => {}
        }
    }
    Err(ArchiveError::Unreachable(format!("{what}: {}", reader.vitals.unreachable())))
}

/// Where in each partition the records of that time and later begin; partitions without any are left out.
fn later(
    reader: &Reader,
    asking: &BaseConsumer<Context>,
    topic: &str,
    parts: &[Part],
    since_ms: i64,
) -> Result<TopicPartitionList, ArchiveError> {
    let mut times = TopicPartitionList::new();
    for part in parts {
        add(&mut times, topic, part.partition, Offset::Offset(since_ms))?;
    }
    let mut wanted = TopicPartitionList::new();
    if times.count() == 0 {
        return Ok(wanted);
    }
    let found = asking.offsets_for_times(times, REQUEST).map_err(|error| {
        reader.explain(&format!("the times of topic {topic} cannot be looked up"), &error)
    })?;
    for element in found.elements() {
        if let Offset::Offset(offset) = element.offset() {
            add(&mut wanted, topic, element.partition(), Offset::Offset(offset))?;
        }
    }
    Ok(wanted)
}

fn add(
    list: &mut TopicPartitionList,
    topic: &str,
    partition: i32,
    offset: Offset,
) -> Result<(), ArchiveError> {
    list.add_partition_offset(topic, partition, offset)
        .map_err(|error| ArchiveError::Refused(format!("topic {topic}, partition {partition}: {error}")))
}

fn of_one(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    list
}
