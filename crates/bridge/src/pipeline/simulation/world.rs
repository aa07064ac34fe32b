//! The world: everything that may happen, one thing after the other, and what must hold meanwhile.

mod calls;
mod requests;
mod words;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use viaduct_poller::simulation::{Call, Step};

use self::words::{call_words, request_words};
use super::broker::{Answer, Broker, Request, Rules};
use super::client::Client;
use super::instance::{
    AckUnderWay, BROKERS, CallAnswer, CallUnderWay, Disk, Instance, MAX_IN_FLIGHT, Progressed,
};
use super::vendor::{AfterDeath, Kind, Redelivery, Vendor};

/// How long the vendor's tokens are good.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// How long the vendor holds a GET that has nothing to return.
const LONG_POLL: Duration = Duration::from_secs(15);
/// The topics and subjects of the two sinks.
const TOPICS: [[&str; 2]; 2] =
    [["via.engagementCenter", "via.outreach"], ["bus.engagementCenter", "bus.outreach"]];
/// Events without an id can never be acknowledged; a vendor that repeats them from the head is soon full of them.
const MAX_WITHOUT_ID: usize = 2;

/// What a history is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) redelivery: Redelivery,
    pub(super) after_death: AfterDeath,
    /// Whether the sinks A and B deliver exactly once.
    pub(super) exactly_once: [bool; 2],
    /// Dead letters go to sink A rather than to the local file.
    pub(super) letters_to_a: bool,
}

/// Broker, topic, key and instance: records of which the order counts.
type Line = (usize, Arc<str>, Option<Arc<str>>, usize);

/// A request to a destination.
#[derive(Debug)]
struct Flight {
    number: usize,
    by: usize,
    broker: usize,
    request: Request,
    answer: Option<Answer>,
    /// Nobody waits for it any more; it may still arrive.
    orphan: bool,
}

/// See the module's documentation.
pub(super) struct World {
    setup: Setup,
    start: Instant,
    now: Instant,
    vendor: Vendor,
    brokers: Vec<Broker>,
    /// Those that run; the youngest is the last.
    instances: Vec<Instance>,
    started: usize,
    flights: Vec<Flight>,
    sent: usize,
    disk: Disk,
    /// Something happened after which at-least-once sinks may hold an event twice.
    disturbed: bool,
    /// The last event, in the order of its instance, per broker, topic, key and instance.
    last: HashMap<Line, usize>,
    without_id: usize,
    healing: bool,
    broken: Option<String>,
    story: Vec<String>,
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let now = Instant::now();
        let rules = |sink: usize, rules: Rules| if setup.exactly_once[sink] { rules } else { Rules::Plain };
        let mut world = Self {
            setup,
            start: now,
            now,
            vendor: Vendor::new(setup.redelivery, setup.after_death),
            brokers: vec![
                Broker::new(rules(0, Rules::Transactions)),
                Broker::new(rules(1, Rules::Batches)),
                Broker::new(Rules::Plain),
            ],
            instances: Vec::new(),
            started: 0,
            flights: Vec::new(),
            sent: 0,
            disk: Disk::default(),
            disturbed: false,
            last: HashMap::new(),
            without_id: 0,
            healing: false,
            broken: None,
            story: Vec::new(),
        };
        world.run_one();
        world.settle();
        world
    }

    /// What is broken, and how it came to it.
    pub(super) fn verdict(&self) -> Result<(), String> {
        let Some(broken) = &self.broken else { return Ok(()) };
        let mut text = format!("{broken}\n{:#?}\n", self.setup);
        for line in &self.story {
            let _ = writeln!(text, "{line}");
        }
        Err(text)
    }

    fn tell(&mut self, what: impl AsRef<str>) {
        let at = self.now.duration_since(self.start).as_secs_f64();
        self.story.push(format!("{at:>9.3}s  {}", what.as_ref()));
    }

    fn violate(&mut self, what: String) {
        self.tell(format!("VIOLATED: {what}"));
        self.broken.get_or_insert(what);
    }

    fn run_one(&mut self) {
        self.started += 1;
        let remember = crate::checkpoints::remembered(MAX_IN_FLIGHT);
        let clients = self.brokers.iter().map(|broker| Client::new(broker.rules, remember)).collect();
        let number = self.started;
        self.instances.push(Instance::new(number, self.disk.clone(), clients, self.setup.letters_to_a));
        self.tell(format!("#{number} starts"));
    }

    /// The instance at this place is gone, with everything in its memory.
    fn remove(&mut self, at: usize, why: &str) {
        let instance = self.instances.remove(at);
        let number = instance.number;
        self.disturbed = true;
        for flight in self.flights.iter_mut().filter(|flight| flight.by == number) {
            flight.orphan = true;
        }
        self.flights.retain(|flight| !flight.orphan || flight.answer.is_none());
        self.tell(format!("#{number} {why}"));
    }

    /// Lets everything go on that waits for nothing.
    fn settle(&mut self) {
        let mut at = 0;
        while at < self.instances.len() && self.broken.is_none() {
            if self.instances[at].frozen {
                at += 1;
                continue;
            }
            if !self.settle_one(at) {
                // Another one may stand in its place.
                at = 0;
                continue;
            }
            at += 1;
        }
    }

    /// False if the instance has ended.
    fn settle_one(&mut self, at: usize) -> bool {
        for _ in 0..1000 {
            if self.broken.is_some() {
                return true;
            }
            let now = self.now;
            let started = self.instances[at].start();
            let progressed = self.instances[at].work(now);
            if let Progressed::Fenced = progressed {
                let number = self.instances[at].number;
                if !self.brokers.iter().any(|broker| broker.owner.is_some_and(|owner| owner != number)) {
                    self.violate(format!("#{number} was fenced, and nobody else owns anything"));
                    return true;
                }
                self.remove(at, "ends: another instance has taken over");
                if self.instances.is_empty() {
                    self.run_one();
                }
                return false;
            }
            let asked = self.ask_clients(at);
            let step = match &mut self.instances[at].poller {
                Some(poller) => poller.next(now),
                None => Step::Wait(None),
            };
            match step {
                Step::Wait(until) => {
                    if until.is_some_and(|until| until <= now) {
                        self.violate("a wait that is over is a tight loop".to_owned());
                    }
                    if !started && !asked && matches!(progressed, Progressed::Nothing) {
                        self.instances[at].wake = until;
                        self.check_memory(at);
                        return true;
                    }
                }
                Step::Finish => {
                    self.remove(at, "ends as it was told to");
                    self.run_one();
                    return false;
                }
                step => self.begin(at, step),
            }
        }
        self.violate("it never waits".to_owned());
        true
    }

    fn check_memory(&mut self, at: usize) {
        let instance = &self.instances[at];
        let held = instance.poller.as_ref().map_or(0, |poller| poller.held());
        let records = instance.records();
        if held > MAX_IN_FLIGHT || records > 2 * MAX_IN_FLIGHT {
            self.violate(format!("I6: {held} events and {records} records are held"));
        }
    }

    /// Sends what the clients have to send.
    fn ask_clients(&mut self, at: usize) -> bool {
        let mut asked = false;
        for (client, name) in BROKERS.into_iter().enumerate() {
            let instance = &mut self.instances[at];
            if !instance.may_ask(client) {
                continue;
            }
            if let Some(request) = instance.clients[client].next(&self.brokers[client]) {
                self.sent += 1;
                let flight = Flight {
                    number: self.sent,
                    by: instance.number,
                    broker: client,
                    request,
                    answer: None,
                    orphan: false,
                };
                let line = format!("#{} → {name}: {}", flight.by, request_words(&flight));
                self.tell(line);
                self.flights.push(flight);
                asked = true;
            }
            asked |= self.instances[at].clients[client].has_done();
        }
        asked
    }

    /// The poller does what it decided.
    fn begin(&mut self, at: usize, step: Step) {
        let now = self.now;
        let instance = &self.instances[at];
        let number = instance.number;
        if step != Step::Abort && instance.hold_until.is_some_and(|until| now < until) {
            self.violate(format!("I5: #{number} ignores Retry-After"));
        }
        let session = match &step {
            Step::Acknowledge { session, .. }
            | Step::Call(
                Call::Poll(session, _)
                | Call::ListSubscriptions(session)
                | Call::ChangeSubscription(session, _)
                | Call::DeleteSession(session),
            ) => Some(session),
            _ => None,
        };
        if session.is_some_and(|session| self.instances[at].dead.contains(session)) {
            self.violate(format!("I5: #{number} uses a dead session"));
        }
        match step {
            Step::RefreshToken => self.instances[at].refreshing = Some(now),
            Step::Call(call) => {
                self.tell(format!("#{number} → vendor: {}", call_words(&call)));
                if self.instances[at].call.is_some() {
                    self.violate(format!("I5: #{number} has two calls under way"));
                }
                self.instances[at].call = Some(CallUnderWay { call, sent: now, answer: None });
            }
            Step::Acknowledge { session, ids } => {
                self.tell(format!("#{number} → vendor: acknowledge {ids:?} in {}", session.as_str()));
                let known = self.instances[at].received.clone();
                for event in self.vendor.pending_of(&session, &ids) {
                    if known.contains(&event)
                        && let Some(sink) = self.missing(event)
                    {
                        self.violate(format!(
                            "I2: event {event} is acknowledged and cannot be read in {sink}"
                        ));
                    }
                }
                self.instances[at].ack = Some(AckUnderWay { session, ids, known, answer: None });
            }
            Step::Abort => self.instances[at].call = None,
            Step::Finish | Step::Wait(_) => {}
        }
    }

    /// The sink in which an event stands neither itself nor as a dead letter.
    fn missing(&self, event: usize) -> Option<&'static str> {
        let emission = &self.vendor.emitted[event];
        let letter = |destination: &str| {
            self.brokers.iter().any(|broker| broker.holds_letter(&emission.name, destination))
        };
        if emission.kind == Kind::WithoutId {
            return (!letter("")).then_some("the dead letters");
        }
        (0..2).find_map(|sink| {
            let skipped = sink == 1 && emission.narrow;
            let topic = TOPICS[sink][usize::from(emission.narrow)];
            let held = skipped || self.brokers[sink].holds(&emission.name) || letter(topic);
            (!held).then_some(BROKERS[sink])
        })
    }

    fn emit(&mut self, choice: u8) {
        for nth in 0..=(choice & 3) {
            let bits = choice.rotate_left(u32::from(nth) * 3);
            let kind = match bits >> 3 {
                0..=1 => Kind::SameIdAsBefore,
                2 if self.without_id < MAX_WITHOUT_ID => Kind::WithoutId,
                3 => Kind::Odd,
                4 => Kind::Huge,
                _ => Kind::Good,
            };
            self.without_id += usize::from(kind == Kind::WithoutId);
            let number = self.vendor.emit(kind, bits & 1, bits & 2 != 0);
            let name = self.vendor.emitted[number].name.clone();
            self.tell(format!("the vendor emits event {number}, {kind:?}: {name}"));
        }
    }

    fn pass(&mut self, until: Instant) {
        self.now = until.max(self.now);
        for session in self.vendor.pass(self.now) {
            self.tell(format!("session {} dies of inactivity", session.as_str()));
        }
    }

    /// When something happens by itself.
    fn wake(&self) -> Option<Instant> {
        let running = self.instances.iter().filter(|instance| !instance.frozen);
        running.flat_map(|instance| [instance.wake, instance.next_try()]).flatten().min()
    }

    /// One thing happens.
    pub(super) fn step(&mut self, what: u8, choice: u8) {
        if self.broken.is_some() {
            return;
        }
        let awake: Vec<usize> = (0..self.instances.len()).filter(|at| !self.instances[*at].frozen).collect();
        let at = awake.get(usize::from(choice >> 7)).or(awake.last()).copied();
        let flight = if self.flights.is_empty() { 0 } else { usize::from(choice) % self.flights.len() };
        match (what % 32, at) {
            (0..=4, Some(at)) => self.end_call(at, None),
            (5, Some(at)) => self.serve(at),
            (6, Some(at)) => self.end_call(at, Some(choice)),
            (7 | 8, Some(at)) => self.end_ack(at, None),
            (9, Some(at)) => self.serve_ack(at),
            (10, Some(at)) => self.end_ack(at, Some(choice)),
            (11, Some(at)) => self.end_refresh(at, (choice < 40).then_some(choice)),
            (12..=17, _) => self.advance(flight, usize::MAX),
            (18, _) => self.advance(flight, usize::from(choice >> 5)),
            (19 | 20, _) => self.lose(flight),
            (21..=23, _) => self.emit(choice),
            (24, _) => self.pass(self.now + Duration::from_millis(u64::from(choice))),
            (25, _) if choice < 60 => self.pass(self.now + Duration::from_secs(u64::from(choice))),
            (25 | 26, _) => self.pass(self.wake().unwrap_or(self.now)),
            (27, _) => {
                let broker = usize::from(choice & 1);
                self.brokers[broker].away = choice & 2 != 0 && choice < 160;
                let away = self.brokers[broker].away;
                self.tell(format!("{} is {}", BROKERS[broker], if away { "away" } else { "there" }));
            }
            (28, _) => {
                let (broker, topic) = (usize::from(choice & 1), usize::from(choice >> 1 & 1));
                let name = TOPICS[broker][topic];
                if choice & 4 == 0 && self.brokers[broker].missing.insert(name) {
                    self.tell(format!("{name} does not exist any more"));
                } else if self.brokers[broker].missing.remove(name) {
                    self.tell(format!("{name} exists again"));
                }
            }
            (29, _) => {
                if let Some(session) = self.vendor.youngest() {
                    self.tell(format!("the vendor drops session {}", session.as_str()));
                    self.vendor.kill(&session);
                }
            }
            (30, Some(at)) if choice < 192 => {
                if choice & 1 == 0 {
                    self.disk = Disk::default();
                    self.tell("the next one starts with an empty disk");
                }
                self.remove(at, "is killed");
                self.run_one();
            }
            (30, Some(at)) => {
                let instance = &mut self.instances[at];
                if let Some(poller) = &mut instance.poller
                    && !instance.stopping
                {
                    instance.stopping = true;
                    poller.stop();
                    let line = format!("#{} is asked to stop", instance.number);
                    self.tell(line);
                }
            }
            _ => self.take_over(),
        }
        self.settle();
    }

    /// Another instance starts elsewhere while this one is frozen; or the frozen one thaws.
    fn take_over(&mut self) {
        let fenced = self.setup.exactly_once.contains(&true);
        if let Some(frozen) = self.instances.iter_mut().find(|instance| instance.frozen) {
            frozen.frozen = false;
            let line = format!("#{} thaws", frozen.number);
            self.tell(line);
        } else if fenced && self.instances.len() == 1 {
            self.instances[0].frozen = true;
            self.disturbed = true;
            self.disk = Disk::default();
            let line = format!("#{} is frozen", self.instances[0].number);
            self.tell(line);
            self.run_one();
        }
    }

    /// All is well from now on: everything has to come to its end by itself.
    pub(super) fn heal(&mut self) {
        self.tell("all is well from now on");
        self.healing = true;
        for broker in &mut self.brokers {
            broker.away = false;
            broker.missing.clear();
        }
        for instance in &mut self.instances {
            instance.frozen = false;
        }
        self.emit(0xff);
        for _ in 0..3000 {
            self.settle();
            if self.broken.is_some() {
                return;
            }
            if self.is_done() {
                self.check_end();
                return;
            }
            self.heal_one();
        }
        self.violate("I7: it never catches up".to_owned());
    }

    fn heal_one(&mut self) {
        // What is late arrives too, the oldest first. One instance after the other: two that fence each other in turn, step
        // by step, would do so for ever.
        let number = self.instances.last().map(|youngest| youngest.number);
        let own = self.flights.iter().position(|flight| Some(flight.by) == number);
        let at = self.flights.iter().position(|flight| flight.orphan).or(own);
        if !self.flights.is_empty() {
            return self.advance(at.unwrap_or(0), usize::MAX);
        }
        for at in 0..self.instances.len() {
            if self.instances[at].refreshing.is_some() {
                return self.end_refresh(at, None);
            }
            if self.instances[at].ack.is_some() {
                self.end_ack(at, None);
                return;
            }
            self.serve(at);
            let empty = |call: &CallUnderWay| matches!(&call.answer, Some(CallAnswer::Events(numbers)) if numbers.is_empty());
            let call = self.instances[at].call.as_ref();
            if let Some(call) = call {
                let over = self.now >= call.sent + LONG_POLL;
                if !empty(call) || over {
                    self.end_call(at, None);
                    return;
                }
            }
        }
        // Everybody waits: for the end of a long poll, or for a time of their own.
        let polls =
            self.instances.iter().filter_map(|one| one.call.as_ref()).map(|call| call.sent + LONG_POLL);
        let next = polls.chain(self.wake()).chain(self.vendor.next_death()).filter(|at| *at > self.now).min();
        match next {
            Some(next) => self.pass(next),
            None => {
                let pollers: Vec<_> = self.instances.iter().map(|instance| &instance.poller).collect();
                self.violate(format!("I7: everything waits for nothing: {pollers:?}"));
            }
        }
    }

    fn is_done(&self) -> bool {
        let all = self.vendor.emitted.iter().enumerate();
        all.into_iter().all(|(event, emission)| {
            emission.lost
                || (emission.acknowledged || emission.kind == Kind::WithoutId)
                    && self.missing(event).is_none()
        })
    }

    fn check_end(&mut self) {
        for event in 0..self.vendor.emitted.len() {
            if !self.vendor.emitted[event].lost
                && let Some(sink) = self.missing(event)
            {
                self.violate(format!("I1: event {event} is not in {sink}"));
            }
        }
    }
}
