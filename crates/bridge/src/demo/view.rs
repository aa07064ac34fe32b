//! What the demo prints.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use url::Url;
use viaduct_simulator::Report;

/// Where the demo publishes.
#[derive(Debug)]
pub(super) struct Destinations<'a> {
    pub(super) kafka: Option<&'a str>,
    pub(super) in_memory: bool,
    pub(super) nats: Option<&'a Url>,
}

/// The numbers at a moment.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) categories: BTreeMap<Arc<str>, Row>,
    /// Sinks that take no records now, and why.
    pub(super) down: Vec<(Arc<str>, String)>,
}

/// The numbers of a category.
#[derive(Debug, Default, Clone)]
pub(super) struct Row {
    pub(super) received: u64,
    pub(super) published: BTreeMap<Arc<str>, u64>,
    pub(super) acknowledged: u64,
}

/// Says what runs where, and how to read along.
pub(super) fn introduce(vendor: &str, to: &Destinations<'_>, admin: Option<SocketAddr>, config: &Path) {
    println!("vendor    {vendor} (simulator)");
    if let Some(kafka) = to.kafka {
        println!("kafka     {kafka}{}", if to.in_memory { " (in memory, gone with the demo)" } else { "" });
        println!("          kcat -b {kafka} -C -o beginning -t via.engagementCenter -f '%p %o %k %s\\n'");
    }
    if let Some(nats) = to.nats {
        println!("nats      {nats}, stream VIA");
        println!("          nats -s {nats} sub 'via.>'");
    }
    if let Some(admin) = admin {
        println!("status    http://{admin}/ (page)   http://{admin}/status   http://{admin}/metrics");
    }
    println!("config    {} (what `viaduct run` would be given)", config.display());
    println!("          Ctrl-C ends the demo\n");
}

/// Says how it ended.
pub(super) fn conclude(report: &Report) {
    println!(
        "\nThe simulator's journal agrees: {} events made, {} acknowledged, none lost, no rule of the vendor's API broken.",
        report.emitted, report.acknowledged
    );
}

/// The live table: redrawn in place on a terminal, a line per second elsewhere.
#[derive(Debug)]
pub(super) struct View {
    terminal: bool,
    drawn_lines: usize,
    printed_second: Option<u64>,
}

impl View {
    /// Nothing is drawn yet.
    pub(super) fn new(terminal: bool) -> Self {
        Self { terminal, drawn_lines: 0, printed_second: None }
    }

    /// Shows the numbers.
    pub(super) fn show(&mut self, elapsed: Duration, numbers: &Numbers) {
        if self.terminal {
            self.redraw(&table(elapsed, numbers));
        } else if self.printed_second != Some(elapsed.as_secs()) {
            self.printed_second = Some(elapsed.as_secs());
            println!("{}", line(elapsed, numbers));
        }
    }

    /// A message between the numbers.
    pub(super) fn note(&mut self, text: &str) {
        println!("{text}");
        self.drawn_lines = 0;
    }

    /// Shows the final numbers.
    pub(super) fn finish(&mut self, elapsed: Duration, numbers: &Numbers) {
        let table = table(elapsed, numbers);
        if self.terminal { self.redraw(&table) } else { print!("\n{table}") }
    }

    fn redraw(&mut self, table: &str) {
        if self.drawn_lines > 0 {
            // Up to the table's first line, and clear from there.
            print!("\x1b[{}A\x1b[J", self.drawn_lines);
        }
        print!("{table}");
        self.drawn_lines = table.lines().count();
    }
}

fn line(elapsed: Duration, numbers: &Numbers) -> String {
    let mut line = format!("{:>4} s  received/published/acknowledged", elapsed.as_secs());
    for (category, row) in &numbers.categories {
        let published = row.published.values().copied().min().unwrap_or(0);
        let _ = write!(line, "  {category} {}/{published}/{}", row.received, row.acknowledged);
    }
    for (sink, reason) in &numbers.down {
        let _ = write!(line, "  [{sink}: {reason}]");
    }
    line
}

fn table(elapsed: Duration, numbers: &Numbers) -> String {
    let mut sinks: Vec<&Arc<str>> =
        numbers.categories.values().flat_map(|row| row.published.keys()).collect();
    sinks.sort();
    sinks.dedup();
    let mut table = format!("{:<18} {:>10}", format!("after {:.1} s", elapsed.as_secs_f64()), "received");
    for sink in &sinks {
        let _ = write!(table, " {:>14}", format!("in {sink}"));
    }
    let _ = writeln!(table, " {:>13}", "acknowledged");
    let mut total = Row::default();
    for (category, row) in &numbers.categories {
        push_row(&mut table, category, row, &sinks);
        total.received += row.received;
        total.acknowledged += row.acknowledged;
        for (sink, count) in &row.published {
            *total.published.entry(sink.clone()).or_default() += count;
        }
    }
    push_row(&mut table, "total", &total, &sinks);
    for (sink, reason) in &numbers.down {
        let _ = writeln!(table, "{sink} takes no records: {reason}");
    }
    table
}

fn push_row(table: &mut String, name: &str, row: &Row, sinks: &[&Arc<str>]) {
    let _ = write!(table, "{name:<18} {:>10}", row.received);
    for sink in sinks {
        let _ = write!(table, " {:>14}", row.published.get(*sink).copied().unwrap_or(0));
    }
    let _ = writeln!(table, " {:>13}", row.acknowledged);
}
