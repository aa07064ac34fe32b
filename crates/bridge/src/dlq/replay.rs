//! `viaduct dlq replay`: batch by batch, published first, marked then.
//!
//! ```text
//! read ─▶ asked for? marked? ─▶ a batch ─▶ publish, wait for every receipt ─▶ mark, durably ─▶ the next batch
//! ```
//!
//! A process that dies leaves at most one batch published and not marked: that is what a later replay publishes twice.

use std::collections::HashSet;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use viaduct_faults::{Moment, crash_point};
use viaduct_sink::Marks;

use super::args::ReplayArgs;
use super::letter::{Filter, Letter};
use super::marks::{Fate, marks_of};
use super::press::{Done, Press};
use super::shelf::{Shelf, is_marked};
use super::summary::Counts;
use super::{plain, unwritable};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::signals::Signals;

/// The most dead letters of a batch, and about how many bytes.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 8 << 20;
/// How many failures are told one by one.
const TOLD: u64 = 20;
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// Whether it is said which ones are to be replayed.
///
/// # Errors
/// 64: it is not.
pub(super) fn chosen(args: &ReplayArgs) -> Result<(), Failure> {
    if args.all || !args.ids.is_empty() || args.filter.chooses() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        "which dead letters are to be replayed is not said",
        "give ids, or --source, --reason, --type, --since or --until, or --all",
    ))
}

/// Replays what was asked for.
///
/// # Errors
/// 65: some could not be replayed; 69: somebody needed is not there; 75: it was stopped by a signal.
pub(super) async fn replay(
    args: &ReplayArgs,
    config: &Config,
    shelves: &[Shelf],
    out: &mut impl Write,
) -> Result<(), Failure> {
    let stop = stop_on_signal()?;
    let filter = Filter::of(&args.filter);
    let press = Press::new(config)?;
    let mut run = Run {
        args,
        filter,
        press,
        out,
        stop,
        counts: Counts::default(),
        told: 0,
        progress: io::stderr().is_terminal().then(Instant::now),
    };
    let ended = run.shelves(shelves).await;
    run.press.close().await;
    run.end_progress();
    let (counts, missed, stopped) = (&run.counts, run.press.missed, run.stop.is_cancelled());
    let summary = if args.dry_run { counts.would() } else { counts.summary(missed) };
    match writeln!(run.out, "{summary}").and_then(|()| run.out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(unwritable(&error)),
        _ => {}
    }
    ended?;
    if stopped {
        return Err(Failure::new(
            Exit::TempFail,
            "stopped by a signal",
            "run the replay again: what was replayed until now is marked",
        ));
    }
    run.counts.failure()
}

/// Cancelled by the first signal; the second one ends the process.
fn stop_on_signal() -> Result<CancellationToken, Failure> {
    let mut signals = Signals::install()?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        signals.next().await;
        told.cancel();
        signals.next().await;
        eprintln!("viaduct: stopped at once by a second signal");
        std::process::exit(Exit::TempFail as i32);
    });
    Ok(stop)
}

/// A dead letter that is to be replayed.
#[derive(Debug)]
struct Chosen {
    letter: Letter,
    /// Between it and the last one of its log that was chosen stands none that stays unmarked.
    joined: bool,
}

struct Run<'a, W> {
    args: &'a ReplayArgs,
    filter: Filter,
    press: Press,
    out: &'a mut W,
    stop: CancellationToken,
    counts: Counts,
    told: u64,
    /// When it was last shown; `None`: to nobody.
    progress: Option<Instant>,
}

impl<W: Write> Run<'_, W> {
    async fn shelves(&mut self, shelves: &[Shelf]) -> Result<(), Failure> {
        if self.args.ids.is_empty() {
            for shelf in shelves {
                if self.is_over() {
                    break;
                }
                self.shelf(shelf).await?;
            }
            return Ok(());
        }
        // A mistake in one of them is told before anything is published.
        for id in &self.args.ids {
            Shelf::of_id(shelves, id)?;
        }
        for shelf in shelves {
            let mut seen = HashSet::new();
            let ids: Vec<&str> = self
                .args
                .ids
                .iter()
                .map(String::as_str)
                .filter(|id| {
                    let own = Shelf::of_id(shelves, id).is_ok_and(|own| std::ptr::eq(own, shelf));
                    own && seen.insert(*id)
                })
                .collect();
            if !ids.is_empty() {
                self.ids(shelf, &ids).await?;
            }
        }
        Ok(())
    }

    /// Whether no further letter is to be taken.
    fn is_over(&self) -> bool {
        self.stop.is_cancelled() || self.args.filter.limit.is_some_and(|limit| self.counts.taken() >= limit)
    }

    async fn prepared(&self, shelf: &Shelf) -> Result<Marks, Failure> {
        let failed = |error| shelf.failure(&error);
        if !self.args.dry_run {
            shelf.archive.prepare().await.map_err(failed)?;
        }
        if self.args.again { Ok(Marks::new()) } else { shelf.archive.marks().await.map_err(failed) }
    }

    /// Those of a place that the filter asks for.
    async fn shelf(&mut self, shelf: &Shelf) -> Result<(), Failure> {
        let failed = |error| shelf.failure(&error);
        let marks = self.prepared(shelf).await?;
        let mut reading = shelf.archive.read(self.filter.since_ms()).await.map_err(failed)?;
        let mut batch = Batch::default();
        // Logs in which a letter was passed over that stays unmarked.
        let mut gaps: HashSet<Arc<str>> = HashSet::new();
        while let Some(kept) = reading.recv().await {
            let Some(letter) = Letter::of(kept.map_err(failed)?) else { continue };
            self.counts.read += 1;
            self.show_progress();
            if !self.filter.matches(&letter) {
                gaps.insert(letter.place.log);
                continue;
            }
            if is_marked(&marks, &letter.place) {
                self.counts.already += 1;
                continue;
            }
            let joined = !gaps.remove(&letter.place.log);
            batch.push(Chosen { letter, joined });
            let limit = self.args.filter.limit.map(|limit| limit.saturating_sub(self.counts.taken()));
            let at_limit = limit.is_some_and(|limit| batch.letters.len() as u64 >= limit);
            if batch.is_full() || at_limit {
                self.batch(shelf, batch.take()).await?;
            }
            if self.is_over() {
                break;
            }
        }
        self.batch(shelf, batch.take()).await
    }

    /// These ones.
    async fn ids(&mut self, shelf: &Shelf, ids: &[&str]) -> Result<(), Failure> {
        let marks = self.prepared(shelf).await?;
        let mut batch = Batch::default();
        for id in ids {
            if self.stop.is_cancelled() {
                break;
            }
            let found = shelf.archive.find(id).await.map_err(|error| shelf.failure(&error))?;
            match found.and_then(Letter::of) {
                None => {
                    self.counts.missing += 1;
                    self.tell(&format!("there is no dead letter {id} in {}", shelf.name));
                }
                Some(letter) if is_marked(&marks, &letter.place) => self.counts.already += 1,
                Some(letter) => batch.push(Chosen { letter, joined: false }),
            }
            if batch.is_full() {
                self.batch(shelf, batch.take()).await?;
            }
        }
        self.batch(shelf, batch.take()).await
    }

    /// Publishes and marks; or only shows.
    async fn batch(&mut self, shelf: &Shelf, chosen: Vec<Chosen>) -> Result<(), Failure> {
        if chosen.is_empty() {
            return Ok(());
        }
        if self.args.dry_run {
            return self.show(&chosen);
        }
        let letters: Vec<&Letter> = chosen.iter().map(|chosen| &chosen.letter).collect();
        let done = self.press.publish(&letters).await?;
        let marks = marks_of(chosen.iter().zip(&done).map(|(chosen, done)| Fate {
            place: &chosen.letter.place,
            joined: chosen.joined,
            is_over: done.is_over(),
        }));
        crash_point(Moment::BeforeAcknowledge);
        shelf.archive.mark(&marks).await.map_err(|error| shelf.failure(&error))?;
        crash_point(Moment::AfterAcknowledge);
        for (chosen, done) in chosen.iter().zip(done) {
            self.count(&chosen.letter, done);
        }
        self.show_progress();
        Ok(())
    }

    fn show(&mut self, chosen: &[Chosen]) -> Result<(), Failure> {
        for Chosen { letter, .. } in chosen {
            match self.press.show(letter) {
                Ok(text) => {
                    self.counts.shown += 1;
                    match self.out.write_all(text.as_bytes()) {
                        // Whoever was reading has seen enough.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.stop.cancel(),
                        written => written.map_err(|error| unwritable(&error))?,
                    }
                }
                Err(why) => self.count(letter, Done::Stays("cannot be replayed", why)),
            }
        }
        Ok(())
    }

    fn count(&mut self, letter: &Letter, done: Done) {
        let what = format!(
            "{} ({} {})",
            letter.place.id,
            plain(letter.event_id().unwrap_or("without an id")),
            plain(letter.event_type().unwrap_or("malformed"))
        );
        match done {
            Done::Published => self.counts.replayed += 1,
            Done::Dropped => self.counts.dropped += 1,
            Done::Again(reason, detail) => {
                *self.counts.again.entry(reason.as_str()).or_default() += 1;
                self.tell(&format!("{what} is a dead letter again, {reason}: {}", plain(&detail)));
            }
            Done::Stays(reason, detail) => {
                *self.counts.stays.entry(reason).or_default() += 1;
                self.tell(&format!("{what} stays, {reason}: {}", plain(&detail)));
            }
        }
    }

    /// The first failures, one by one.
    fn tell(&mut self, text: &str) {
        self.told += 1;
        if self.told <= TOLD {
            self.end_progress();
            eprintln!("viaduct: {text}");
        } else if self.told == TOLD + 1 {
            eprintln!("viaduct: further ones are only counted");
        }
    }

    fn show_progress(&mut self) {
        if let Some(last) = &mut self.progress
            && last.elapsed() >= PROGRESS
        {
            *last = Instant::now();
            let Counts { read, replayed, .. } = self.counts;
            eprint!("\r{read} dead letters read, {replayed} replayed, {} failed ", self.counts.failed());
        }
    }

    fn end_progress(&self) {
        if self.progress.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// Dead letters that are published together.
#[derive(Debug, Default)]
struct Batch {
    letters: Vec<Chosen>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, chosen: Chosen) {
        self.bytes += chosen.letter.event.len();
        self.letters.push(chosen);
    }

    fn is_full(&self) -> bool {
        self.letters.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    fn take(&mut self) -> Vec<Chosen> {
        self.bytes = 0;
        std::mem::take(&mut self.letters)
    }
}
