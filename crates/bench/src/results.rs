//! What was measured: kept as JSON, shown as a table, compared with what was measured before.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Everything that one run of the bench measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
}

/// One contender in one suite.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) suite: String,
    pub(crate) contender: String,
    /// One value for each round.
    pub(crate) figures: BTreeMap<String, Vec<f64>>,
}

/// What a figure's ratio to another contender's is worth showing for.
const RATIOS: [(&str, &str); 10] = [
    ("events_per_second", "floor"),
    ("events_per_second", "limit"),
    ("events_per_second", "limit, atomic batches"),
    ("events_per_second", "limit, transactions"),
    ("events_per_second", "viaduct"),
    ("events_per_second", "other build"),
    ("cpu_per_million", "floor"),
    ("cpu_per_million", "other build"),
    ("p50_us", "floor"),
    ("p99_us", "floor"),
];

impl Row {
    fn median(&self, figure: &str) -> Option<f64> {
        self.figures.get(figure).map(|values| median(values))
    }
}

impl Book {
    pub(crate) fn new() -> Self {
        Self { machine: Machine::here(), rows: Vec::new() }
    }

    /// Adds one round's figures.
    pub(crate) fn add(&mut self, suite: &str, contender: &str, figures: &[(&str, f64)]) {
        let known = self.rows.iter().position(|row| row.suite == suite && row.contender == contender);
        let index = known.unwrap_or_else(|| {
            let (suite, contender) = (suite.to_owned(), contender.to_owned());
            self.rows.push(Row { suite, contender, figures: BTreeMap::new() });
            self.rows.len() - 1
        });
        for (name, value) in figures {
            self.rows[index].figures.entry((*name).to_owned()).or_default().push(*value);
        }
    }

    pub(crate) fn save(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))
    }

    pub(crate) fn load(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not a result of the bench", file.display()))
    }

    fn find(&self, suite: &str, contender: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.suite == suite && row.contender == contender)
    }

    /// Medians, as Markdown. A ratio is the median of the ratios of each round, because what disturbs the machine
    /// disturbs the contenders of one round alike.
    pub(crate) fn table(&self) -> String {
        let mut out = format!("{}\n", self.machine);
        let mut suites: Vec<&str> = self.rows.iter().map(|row| row.suite.as_str()).collect();
        suites.dedup();
        for suite in suites {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.suite == suite).collect();
            let mut names: Vec<&str> =
                rows.iter().flat_map(|row| row.figures.keys().map(String::as_str)).collect();
            names.sort_unstable();
            names.dedup();
            let ratios: Vec<_> = RATIOS
                .iter()
                .filter(|(figure, other)| {
                    self.find(suite, other).is_some_and(|row| row.figures.contains_key(*figure))
                })
                .collect();
            let _ = write!(out, "\n| {suite} |");
            for name in &names {
                let _ = write!(out, " {name} |");
            }
            for (figure, other) in &ratios {
                let _ = write!(out, " {figure} × {other} |");
            }
            let _ = writeln!(out, "\n|{}", " --- |".repeat(1 + names.len() + ratios.len()));
            for row in rows {
                let _ = write!(out, "| {} |", row.contender);
                for name in &names {
                    let _ = write!(out, " {} |", row.median(name).map(number).unwrap_or_default());
                }
                for (figure, other) in &ratios {
                    let ratio = self.find(suite, other).and_then(|other| ratio(row, other, figure));
                    let _ =
                        write!(out, " {} |", ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default());
                }
                out.push('\n');
            }
        }
        out
    }

    /// What changed since `before`, in percent of its medians.
    pub(crate) fn compared(&self, before: &Self) -> String {
        let mut out = format!("before: {}\n", before.machine);
        for row in &self.rows {
            let Some(old) = before.find(&row.suite, &row.contender) else { continue };
            let _ = write!(out, "{}, {}:", row.suite, row.contender);
            for name in row.figures.keys() {
                if let (Some(now), Some(then)) = (row.median(name), old.median(name)) {
                    let _ = write!(
                        out,
                        "  {name} {} → {} ({:+.1} %)",
                        number(then),
                        number(now),
                        (now / then - 1.0) * 100.0
                    );
                }
            }
            out.push('\n');
        }
        out
    }
}

fn ratio(row: &Row, other: &Row, figure: &str) -> Option<f64> {
    let (mine, theirs) = (row.figures.get(figure)?, other.figures.get(figure)?);
    let ratios: Vec<f64> = mine.iter().zip(theirs).map(|(mine, theirs)| mine / theirs).collect();
    (!ratios.is_empty()).then(|| median(&ratios))
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_rounds() {
        let mut book = Book::new();
        for (floor, viaduct) in [(100.0, 200.0), (10.0, 20.0), (1.0, 3.0)] {
            book.add("s", "floor", &[("events_per_second", floor)]);
            book.add("s", "viaduct", &[("events_per_second", viaduct)]);
        }
        let ratio = ratio(&book.rows[1], &book.rows[0], "events_per_second");
        assert_eq!(ratio, Some(2.0));
        assert_eq!(book.rows[1].median("events_per_second"), Some(20.0));
        let table = book.table();
        assert!(table.contains("| viaduct | 20.00 | 2.00 |"), "{table}");
    }

    #[test]
    fn a_comparison_tells_what_changed_and_what_is_new_is_left_out() {
        let (mut before, mut now) = (Book::new(), Book::new());
        before.add("s", "viaduct", &[("p50_us", 400.0)]);
        now.add("s", "viaduct", &[("p50_us", 300.0)]);
        now.add("s", "another", &[("p50_us", 1.0)]);
        let compared = now.compared(&before);
        assert!(compared.contains("s, viaduct:  p50_us 400 → 300 (-25.0 %)"), "{compared}");
        assert!(!compared.contains("another"));
    }
}
