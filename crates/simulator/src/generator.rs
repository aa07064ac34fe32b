//! Makes events: which type comes next, for which interaction, with which values. Depends on the seed alone.

use std::collections::VecDeque;
use std::fmt::Write as _;

use bytes::Bytes;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use xxhash_rust::xxh3::xxh3_64;

use crate::catalogue::{self, Values};
use crate::clock;
use crate::lifecycle::LIFECYCLES;
use crate::settings::Types;
use crate::shape::{Envelope, Shape};

/// A made event: its text as one entry of `events[]` in the v3 shape, and what the journal notes about it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) text: Bytes,
    /// The event type as the client sees it; empty if the entry has none.
    pub(crate) event_type: String,
    pub(crate) user: Option<u32>,
    pub(crate) interaction: Option<u64>,
    pub(crate) session: Option<u64>,
    pub(crate) payload_hash: u64,
    pub(crate) malformed: bool,
    pub(crate) has_id: bool,
}

/// The state of every living interaction.
#[derive(Debug)]
pub(crate) struct Generator {
    seed: u64,
    dice: Xoshiro256PlusPlus,
    lifecycles: Vec<(u32, Vec<usize>)>,
    weight: u32,
    users: u32,
    living: Vec<Interaction>,
    begun: u64,
    payload_bytes: Option<usize>,
    shapes: VecDeque<Shape>,
    odd: u64,
    published: (u64, String),
    plain: String,
    escaped: String,
    entry: String,
}

#[derive(Debug)]
struct Interaction {
    lifecycle: usize,
    step: usize,
    number: u64,
    user: u32,
    user_text: String,
    session_text: String,
    correlation: String,
}

/// Interaction ids go up in steps of this: the ids between belong to the consultation and the conference of the same one.
const ID_STEP: u64 = 4;
const FIRST_ID: u64 = 1030;

impl Generator {
    pub(crate) fn new(seed: u64, interactions: u32, types: &Types, payload_bytes: Option<usize>) -> Self {
        let mut lifecycles = Vec::new();
        for lifecycle in LIFECYCLES {
            let wanted = lifecycle.steps.iter().filter(|name| types.includes(name));
            let steps: Vec<usize> = wanted.filter_map(|name| catalogue::position(name)).collect();
            if !steps.is_empty() {
                lifecycles.push((lifecycle.weight, steps));
            }
        }
        let mut generator = Self {
            seed,
            dice: Xoshiro256PlusPlus::seed_from_u64(seed),
            weight: lifecycles.iter().map(|(weight, _)| weight).sum(),
            lifecycles,
            users: interactions.div_ceil(2),
            living: Vec::new(),
            begun: 0,
            payload_bytes,
            shapes: VecDeque::new(),
            odd: 0,
            published: (u64::MAX, String::new()),
            plain: String::new(),
            escaped: String::new(),
            entry: String::new(),
        };
        for _ in 0..interactions {
            let interaction = generator.begin();
            generator.living.push(interaction);
        }
        generator
    }

    /// The next events get these shapes, one each.
    pub(crate) fn shape_next(&mut self, shape: Shape) {
        self.shapes.push_back(shape);
    }

    /// Whether the next event is to have the id of the one before it.
    pub(crate) fn twin_is_next(&self) -> bool {
        matches!(self.shapes.front(), Some(Shape::DuplicateId))
    }

    /// Makes the next event. `twin`: its id is that of the event before it; a shape that asks for one waits for it.
    pub(crate) fn make(&mut self, id: &str, twin: bool, published_ms: u64) -> Made {
        let slot = self.dice.random_range(0..self.living.len());
        let (lifecycle, step) = (self.living[slot].lifecycle, self.living[slot].step);
        let steps = &self.lifecycles[lifecycle].1;
        let event_type = &catalogue::catalogue()[steps[step]];
        let is_last = step + 1 == steps.len();
        let template = &event_type.variants[self.dice.random_range(0..event_type.variants.len())];
        if self.published.0 != published_ms {
            self.published = (published_ms, clock::iso8601(published_ms));
        }
        let shape = match self.twin_is_next() && !twin {
            true => Shape::Plain,
            false => self.shapes.pop_front().unwrap_or(Shape::Plain),
        };

        let interaction = &self.living[slot];
        let values = Values {
            user: &interaction.user_text,
            ehub: 200 + u64::from(interaction.user),
            interaction: interaction.number,
            session: &interaction.session_text,
            request: &interaction.correlation,
            step: step as u32,
        };
        self.plain.clear();
        self.escaped.clear();
        template.fill(&values, &mut self.plain, &mut self.escaped);
        shape.extend_payload(&mut self.plain, &mut self.escaped);
        if let Some(missing) = self.payload_bytes.and_then(|wanted| wanted.checked_sub(self.plain.len() + 13))
        {
            add_padding(missing, &mut self.plain, &mut self.escaped);
        }
        self.odd += u64::from(shape != Shape::Plain);
        let envelope = Envelope {
            kind: &event_type.kind,
            id,
            correlation: &interaction.correlation,
            event_type: event_type.name,
            published: &self.published.1,
            plain: &self.plain,
            escaped: &self.escaped,
        };
        self.entry.clear();
        let written = shape.write(&envelope, self.odd, &mut self.entry);
        let carries = template.carries;
        let made = Made {
            text: Bytes::copy_from_slice(self.entry.as_bytes()),
            event_type: written.event_type.to_owned(),
            user: (carries.user && !written.malformed).then_some(interaction.user),
            interaction: (carries.interaction && !written.malformed).then_some(interaction.number),
            session: (carries.session && !written.malformed).then_some(interaction.number),
            payload_hash: xxh3_64(written.payload.unwrap_or(&self.plain).as_bytes()),
            malformed: written.malformed,
            has_id: written.has_id,
        };
        if is_last {
            self.living[slot] = self.begin();
        } else {
            self.living[slot].step += 1;
        }
        made
    }

    fn begin(&mut self) -> Interaction {
        let mut dart = self.dice.random_range(0..self.weight);
        let mut lifecycle = 0;
        while dart >= self.lifecycles[lifecycle].0 {
            dart -= self.lifecycles[lifecycle].0;
            lifecycle += 1;
        }
        let number = FIRST_ID + self.begun * ID_STEP;
        self.begun += 1;
        let user = self.dice.random_range(0..self.users);
        Interaction {
            lifecycle,
            step: 0,
            number,
            user,
            user_text: user_id(self.seed, user),
            session_text: session_id(self.seed, number),
            correlation: uuid(mix(self.seed, number), mix(self.seed ^ 0xC0, number)),
        }
    }
}

fn add_padding(bytes: usize, plain: &mut String, escaped: &mut String) {
    let fill = "x".repeat(bytes);
    crate::shape::add_field("padding", &format!("\"{fill}\""), plain, escaped);
}

/// The vendor's id of an agent, as `userId` carries it.
pub(crate) fn user_id(seed: u64, user: u32) -> String {
    format!("{:014x}", mix(seed ^ 0x05E4, u64::from(user)) >> 8)
}

/// The id of a Fast Path session, as `sessionId` of the outreach events carries it.
pub(crate) fn session_id(seed: u64, number: u64) -> String {
    uuid(mix(seed ^ 0x5E55, number), mix(seed ^ 0x5E56, number))
}

/// SplitMix64: spreads a counter over all 64 bits, the same on every machine and for ever.
fn mix(seed: u64, value: u64) -> u64 {
    let mut z = seed.wrapping_add(value.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// 128 bits in the form of a version 4 UUID.
pub(crate) fn uuid(high: u64, low: u64) -> String {
    let mut text = String::with_capacity(36);
    let (a, b, c) = (high >> 32, (high >> 16) & 0xFFFF, 0x4000 | (high & 0x0FFF));
    let (d, e) = (0x8000 | ((low >> 48) & 0x3FFF), low & 0xFFFF_FFFF_FFFF);
    let _ = write!(text, "{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}");
    text
}
