//! `viaduct dlq list`: a table, or JSON Lines. Rows are printed as they are read.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use viaduct_sink::Marks;

use super::args::ListArgs;
use super::letter::{Filter, Letter};
use super::shelf::{Shelf, is_marked};
use super::{plain, unwritable};
use crate::exit::Failure;

/// How many rows decide the widths of the columns.
const SAMPLE: usize = 200;

/// A line of `--json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'l> {
    id: &'l str,
    time: Option<String>,
    source: &'l str,
    reason: &'l str,
    event_type: Option<&'l str>,
    event_id: Option<&'l str>,
    destination: Option<&'l str>,
    message: &'l str,
    replayed: bool,
}

/// Lists what was asked for.
///
/// # Errors
/// Places that cannot be read; the others are listed before that is told.
pub(super) async fn list(args: &ListArgs, shelves: &[Shelf], out: &mut impl Write) -> Result<(), Failure> {
    let filter = Filter::of(&args.filter);
    let mut listing = Listing { args, out, table: Table::new(args.all), reasons: BTreeMap::new(), count: 0 };
    let mut failure = None;
    for shelf in shelves {
        match listing.shelf(shelf, &filter).await {
            Ok(true) => {}
            // As many as were asked for, or as somebody wanted to read.
            Ok(false) => break,
            Err(failed) => failure = failure.or(Some(failed)),
        }
    }
    listing.end(shelves).or_else(ignore_closed).map_err(|error| unwritable(&error))?;
    failure.map_or(Ok(()), Err)
}

struct Listing<'a, W> {
    args: &'a ListArgs,
    out: &'a mut W,
    table: Table,
    reasons: BTreeMap<String, u64>,
    count: u64,
}

impl<W: Write> Listing<'_, W> {
    /// Lists a place; whether there may be more to list.
    async fn shelf(&mut self, shelf: &Shelf, filter: &Filter) -> Result<bool, Failure> {
        let failed = |error| shelf.failure(&error);
        let marks = shelf.archive.marks().await.map_err(failed)?;
        let mut reading = shelf.archive.read(filter.since_ms()).await.map_err(failed)?;
        while let Some(kept) = reading.recv().await {
            let Some(letter) = Letter::of(kept.map_err(failed)?) else { continue };
            if !filter.matches(&letter) {
                continue;
            }
            match self.letter(&letter, &marks) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(unwritable(&error)),
            }
            if self.args.filter.limit.is_some_and(|limit| self.count >= limit) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn letter(&mut self, letter: &Letter, marks: &Marks) -> io::Result<()> {
        let replayed = is_marked(marks, &letter.place);
        if !self.args.all && replayed != self.args.replayed {
            return Ok(());
        }
        self.count += 1;
        *self.reasons.entry(letter.reason().to_owned()).or_default() += 1;
        let time = letter.time.map(|time| time.to_string());
        if self.args.json {
            let line = Json {
                id: &letter.place.id,
                time,
                source: letter.source(),
                reason: letter.reason(),
                event_type: letter.event_type(),
                event_id: letter.event_id(),
                destination: letter.destination(),
                message: letter.message(),
                replayed,
            };
            serde_json::to_writer(&mut *self.out, &line)?;
            return self.out.write_all(b"\n");
        }
        let optional = |text: Option<&str>| plain(text.filter(|text| !text.is_empty()).unwrap_or("-"));
        let mut row = vec![
            letter.place.id.clone(),
            time.unwrap_or_else(|| "-".to_owned()),
            optional(Some(letter.source())),
            optional(Some(letter.reason())),
            optional(letter.event_type()),
            optional(letter.destination()),
        ];
        if self.args.all {
            row.push(if replayed { "replayed" } else { "-" }.to_owned());
        }
        row.push(plain(letter.message()));
        self.table.push(row, self.out)
    }

    fn end(&mut self, shelves: &[Shelf]) -> io::Result<()> {
        if self.args.json {
            return self.out.flush();
        }
        if self.count > 0 {
            self.table.flush(self.out)?;
            writeln!(self.out)?;
        }
        let places: Vec<_> = shelves.iter().map(|shelf| shelf.name.as_str()).collect();
        match self.count {
            0 => writeln!(self.out, "no dead letters in {}", places.join(" and "))?,
            count => {
                let letters = if count == 1 { "dead letter" } else { "dead letters" };
                let reasons: Vec<_> =
                    self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                let limited =
                    if self.args.filter.limit == Some(count) { " (--limit; there may be more)" } else { "" };
                writeln!(self.out, "{count} {letters}: {}{limited}", reasons.join(", "))?;
            }
        }
        self.out.flush()
    }
}

fn ignore_closed(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Rows whose columns stand under each other; the first ones decide how wide they are.
#[derive(Debug)]
struct Table {
    titles: Vec<&'static str>,
    waiting: Vec<Vec<String>>,
    widths: Vec<usize>,
}

impl Table {
    fn new(with_state: bool) -> Self {
        let mut titles = vec!["ID", "TIME", "SOURCE", "REASON", "EVENT TYPE", "DESTINATION", "MESSAGE"];
        if with_state {
            titles.insert(6, "STATE");
        }
        Self { titles, waiting: Vec::new(), widths: Vec::new() }
    }

    fn push(&mut self, row: Vec<String>, out: &mut impl Write) -> io::Result<()> {
        self.waiting.push(row);
        if !self.widths.is_empty() || self.waiting.len() >= SAMPLE { self.flush(out) } else { Ok(()) }
    }

    fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.widths.is_empty() {
            let titles: Vec<String> = self.titles.iter().map(|title| (*title).to_owned()).collect();
            self.waiting.insert(0, titles);
            let width = |column: usize| self.waiting.iter().map(|row| row[column].chars().count()).max();
            self.widths = (0..self.titles.len()).map(|column| width(column).unwrap_or(0)).collect();
        }
        for row in self.waiting.drain(..) {
            let mut line = String::new();
            for (text, width) in row.iter().zip(&self.widths) {
                line.push_str(&format!("{text:<width$}  "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
