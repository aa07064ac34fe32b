//! `viaduct tap`: the events of a running bridge, one line each, or their records.

use std::io::{Write, stdout};

use serde::Deserialize;
use url::form_urlencoded;

use super::client::Bridge;
use super::paint::Paint;
use super::{tame, written};
use crate::admin::verdict::Level;
use crate::cli::TapArgs;
use crate::exit::{Exit, Failure};
use crate::telemetry::{Note, RecordNote};

/// Prints events until the bridge stops, `--events` have come, or Ctrl-C.
///
/// # Errors
/// 69 where no bridge answers, and where it goes away without having stopped in order.
pub(crate) async fn tap(args: &TapArgs) -> Result<(), Failure> {
    let bridge = Bridge::of(&args.bridge)?;
    let mut answer = bridge.events(&query(args)).await?;
    let paint = Paint::of_stdout();
    let mut reader = SseReader::default();
    let mut left = args.events;
    loop {
        let chunk = match answer.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) | Err(_) => {
                return Err(Failure::new(
                    Exit::Unavailable,
                    format!("the bridge at {} is gone: its events ended without a word", bridge.address()),
                    "`viaduct status` tells whether it is back",
                ));
            }
        };
        for Message { event, data } in reader.read(&chunk) {
            match event.as_str() {
                "event" | "records" => {
                    let line = match event.as_str() {
                        _ if args.json => data,
                        "records" => records(&data, paint)?,
                        _ => line(&data, paint)?,
                    };
                    if !written(print(&line))? {
                        return Ok(());
                    }
                    left = left.map(|left| left - 1);
                    if left == Some(0) {
                        return Ok(());
                    }
                }
                "skipped" => eprintln!("viaduct: {data} events were not shown: this terminal is too slow"),
                "stopped" => {
                    eprintln!("viaduct: the bridge has stopped");
                    return Ok(());
                }
                // A newer bridge may tell more.
                _ => {}
            }
        }
    }
}

/// What the arguments ask for.
fn query(args: &TapArgs) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if args.records {
        query.append_key_only("records");
    }
    for (name, value) in [("source", &args.source), ("type", &args.event_type), ("sink", &args.sink)] {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query.finish()
}

fn print(line: &str) -> std::io::Result<()> {
    let mut out = stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

fn read<'d, T: Deserialize<'d>>(data: &'d str) -> Result<T, Failure> {
    serde_json::from_str(data).map_err(|_| {
        Failure::new(
            Exit::Unavailable,
            "the bridge tells of events in a way that this version does not know",
            "compare `viaduct --version` here and there, or use --json",
        )
    })
}

/// The records of an event, as the dry run shows them.
fn records(data: &str, paint: Paint) -> Result<String, Failure> {
    let note: RecordNote = read(data)?;
    let id = note.id.as_deref().unwrap_or("without an id");
    let event_type = note.event_type.as_deref().unwrap_or("malformed");
    let mut text = format!("{} {} {}", tame(&note.source), tame(id), paint.bold(tame(event_type)));
    if let Some(reason) = &note.dead_letter {
        text.push_str(&paint.level(Level::Warning, format!(" dead letter: {}", tame(reason))));
    }
    text.push('\n');
    for record in &note.records {
        record.push(&mut text);
    }
    Ok(text)
}

fn line(data: &str, paint: Paint) -> Result<String, Failure> {
    let note: Note = read(data)?;
    let event_type = note.event_type.as_deref().unwrap_or("(not an event)");
    let mut line = format!(
        "{}  {}  {}  {}  {} B",
        paint.dim(tame(&note.time)),
        tame(&note.source),
        paint.bold(tame(event_type)),
        tame(note.id.as_deref().unwrap_or("-")),
        note.size
    );
    for record in &note.records {
        let key = record.key_hash.as_deref().map_or_else(String::new, |hash| format!(" #{}", tame(hash)));
        line.push_str(&format!("  → {}:{}{key}", tame(&record.sink), tame(&record.destination)));
    }
    match &note.dead_letter {
        Some(reason) => {
            let text = format!("  → dead letters: {}", tame(reason));
            line.push_str(&paint.level(Level::Warning, text));
        }
        None if note.records.is_empty() => line.push_str("  → dropped by a route"),
        None => {}
    }
    Ok(line)
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    event: String,
    data: String,
}

/// Takes a stream of server-sent events apart (WHATWG HTML, 9.2.6), as far as this port uses them.
#[derive(Debug, Default)]
struct SseReader {
    line: Vec<u8>,
    message: Message,
}

impl SseReader {
    fn read(&mut self, chunk: &[u8]) -> Vec<Message> {
        let mut messages = Vec::new();
        for &byte in chunk {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if line.is_empty() {
                let message = std::mem::take(&mut self.message);
                if !message.data.is_empty() {
                    messages.push(message);
                }
            } else if let Some((field, value)) = line.split_once(':') {
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "event" => value.clone_into(&mut self.message.event),
                    "data" => {
                        if !self.message.data.is_empty() {
                            self.message.data.push('\n');
                        }
                        self.message.data.push_str(value);
                    }
                    _ => {}
                }
            }
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = ": hello\n\nevent: event\ndata: {\"a\":\"ä\"}\n\nevent: skipped\r\ndata: 7\r\n\r\n:\n\nevent: stopped\ndata: x\n\n";
        let message = |event: &str, data: &str| Message { event: event.to_owned(), data: data.to_owned() };
        let all = [message("event", "{\"a\":\"ä\"}"), message("skipped", "7"), message("stopped", "x")];
        for size in 1..text.len() {
            let mut reader = SseReader::default();
            let read: Vec<Message> =
                text.as_bytes().chunks(size).flat_map(|chunk| reader.read(chunk)).collect();
            assert_eq!(read, all, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_per_event() {
        let line = |data: &str| line(data, Paint::PLAIN).unwrap();
        insta::assert_snapshot!(
            line(r#"{"time":"2026-01-02T03:04:05.678Z","source":"main","type":"chat.New","id":"7-1","size":321,
                "records":[{"sink":"lake","destination":"via.chat","key_hash":"0badcafe","size":300},
                           {"sink":"bus","destination":"via.acme.chat.New","key_hash":null,"size":300}],"dead_letter":null}"#),
            @"2026-01-02T03:04:05.678Z  main  chat.New  7-1  321 B  → lake:via.chat #0badcafe  → bus:via.acme.chat.New"
        );
        insta::assert_snapshot!(
            line(r#"{"time":"t","source":"main","type":"\u001b[2Jx","id":null,"size":3,"records":[],"dead_letter":"no_id"}"#),
            @"t  main  �[2Jx  -  3 B  → dead letters: no_id"
        );
        insta::assert_snapshot!(
            line(r#"{"time":"t","source":"main","type":"a.b","id":"1","size":3,"records":[],"dead_letter":null}"#),
            @"t  main  a.b  1  3 B  → dropped by a route"
        );
    }
}
