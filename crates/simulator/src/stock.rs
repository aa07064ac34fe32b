//! Events prepared ahead ([`crate::Rate::Saturated`]): an answer is a copy of what stands ready, with new ids written
//! into it, so that a client can be measured and not the simulator.

use crate::generator::Generator;
use crate::organisation::Acknowledged;
use crate::report::Report;
use crate::session::Version;
use crate::shape;

/// Different events; from then on they differ in their ids alone.
const PREPARED: usize = 2_000;
/// Ids look like those of the document, and all are of one length: milliseconds, then a counter of so many digits.
const ID_PREFIX: &str = "1519073278252-";
const DIGITS: usize = 10;

/// The prepared events, and what became of those given out.
#[derive(Debug)]
pub(crate) struct Stock {
    /// Entries of `events[]`, each with a comma behind it.
    text: Vec<u8>,
    entries: Vec<Prepared>,
    given: u64,
    acknowledged: u64,
    /// A bit for each event given out.
    done: Vec<u64>,
}

/// Where an entry stands in the text.
#[derive(Debug, Clone, Copy)]
struct Prepared {
    start: usize,
    /// Behind its comma.
    end: usize,
    /// The digits of its id.
    digits: usize,
}

impl Stock {
    /// Makes the events, which takes a moment.
    pub(crate) fn new(generator: &mut Generator, now_ms: u64) -> Self {
        let mut stock = Self {
            text: Vec::new(),
            entries: Vec::with_capacity(PREPARED),
            given: 0,
            acknowledged: 0,
            done: Vec::new(),
        };
        let id = format!("{ID_PREFIX}{:0DIGITS$}", 0);
        for _ in 0..PREPARED {
            let made = generator.make(&id, false, now_ms);
            let within = find(&made.text, id.as_bytes()).expect("a plain event shows its id");
            let start = stock.text.len();
            stock.text.extend_from_slice(&made.text);
            stock.text.push(b',');
            let digits = start + within + ID_PREFIX.len();
            stock.entries.push(Prepared { start, end: stock.text.len(), digits });
        }
        stock
    }

    /// The body of an answer with the next `count` events; at least one, at most all that are prepared.
    pub(crate) fn take(&mut self, count: usize, version: Version) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.text.len() / PREPARED * (count + 2) + 128);
        body.extend_from_slice(b"{\"kind\":\"via#streamingEventCollection\",\"totalItems\":");
        body.extend_from_slice(count.to_string().as_bytes());
        body.extend_from_slice(b",\"events\":[");
        let mut left = count;
        while left > 0 {
            let first = (self.given % PREPARED as u64) as usize;
            let stretch = &self.entries[first..PREPARED.min(first + left)];
            let (from, to) = (stretch[0].start, stretch[stretch.len() - 1].end);
            let shift = body.len();
            body.extend_from_slice(&self.text[from..to]);
            for (number, entry) in (self.given..).zip(stretch) {
                write_digits(number, &mut body[shift + entry.digits - from..][..DIGITS]);
            }
            if version == Version::V2 {
                let v3 = body.split_off(shift);
                for entry in stretch {
                    let entry = &v3[entry.start - from..entry.end - from - 1];
                    body.extend_from_slice(shape::as_v2(&String::from_utf8_lossy(entry)).as_bytes());
                    body.push(b',');
                }
            }
            self.given += stretch.len() as u64;
            left -= stretch.len();
        }
        body.pop();
        body.extend_from_slice(b"]}");
        self.done.resize(self.given.div_ceil(64) as usize, 0);
        body
    }

    /// An id was acknowledged; which session was given it is not remembered.
    pub(crate) fn acknowledge(&mut self, id: &str) -> Acknowledged {
        let number = id
            .strip_prefix(ID_PREFIX)
            .filter(|digits| digits.len() == DIGITS)
            .and_then(|digits| digits.parse::<u64>().ok());
        let Some(number) = number.filter(|number| *number < self.given) else {
            return Acknowledged::NeverGivenOut;
        };
        let (word, bit) = (&mut self.done[(number / 64) as usize], 1 << (number % 64));
        if *word & bit != 0 {
            return Acknowledged::Before;
        }
        *word |= bit;
        self.acknowledged += 1;
        Acknowledged::Now
    }

    /// Adds what it counted to a report.
    pub(crate) fn summarise(&self, report: &mut Report) {
        report.emitted += self.given;
        report.delivered += self.given;
        report.acknowledged += self.acknowledged;
        report.unacknowledged += self.given - self.acknowledged;
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}
