//! What a simulator is started with. Values are checked once, by [`Settings::check`]; past that nothing is invalid.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::catalogue;
use crate::fault::FaultPlan;

/// Everything that shapes a simulator. [`Settings::default`] is an organisation `acme` on a free port of the loopback
/// interface that emits 100 events per second without end and makes no faults.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The only organisation: any other name in a path is answered with 404.
    pub org: String,
    /// Same seed and same settings give the same events: ids, types, payloads and their order. `publishedTime` is real
    /// time, and the content faults strike where the client's requests make them strike.
    pub seed: u64,
    /// What GET /events returns of the events that were given out but not acknowledged.
    pub redelivery: Redelivery,
    /// With [`Redelivery::PerSessionNewThenPending`]: how long an event stays unacknowledged before it is given out again.
    pub redelivery_delay: Duration,
    /// What becomes of the unacknowledged events of a session that expired or was deleted.
    pub requeue: Requeue,
    /// How fast events arise. They arise whether or not somebody asks for them, and wait in the organisation's queue.
    pub rate: Rate,
    /// Events arise in groups of this many (at least 1); the mean stays `rate`.
    pub burst: u32,
    /// How many events arise in all; `None`: without end.
    pub total: Option<u64>,
    /// How many interactions are alive at a time (at least 1).
    pub interactions: u32,
    /// Pads payloads to about this many bytes with a field `padding` that the document does not know.
    pub payload_bytes: Option<usize>,
    /// Which event types arise.
    pub types: Types,
    /// How long GET /events waits for an event. Vendor document: 15 seconds. It never waits longer than a quarter of the
    /// session's inactivity delay, the proportion of the documented 15 s and 60 s, so that shortening the delay is enough.
    pub hold: Duration,
    /// What a GET /events that waited in vain is answered with.
    pub empty_poll: EmptyPoll,
    /// How far away the simulator is: every answer comes this much later, half of it before the request is looked at.
    pub round_trip: Duration,
    /// How long an access token is valid.
    pub token_ttl: Duration,
    /// Shortens the clock: sessions are granted this inactivity delay instead of the one they ask for. The answer to
    /// session create reports it in whole seconds, rounded up; the simulator itself expires the session after exactly this.
    pub granted_inactivity: Option<Duration>,
    /// The accepted client id; `None`: any.
    pub client_id: Option<String>,
    /// The accepted client secret; `None`: any that is not empty.
    pub client_secret: Option<String>,
    /// The accepted `x-api-key`; `None`: any that is not empty.
    pub api_key: Option<String>,
    /// The catalog types that subscriptions may name. Vendor document: `engagementCenterThirdParty` has to be enabled by
    /// the vendor's customer care first; a catalog type that is not listed here is answered with 400.
    pub catalog_types: Vec<CatalogType>,
    /// Keeps the text of every event in the journal, not only the hash of its payload. Costs memory.
    pub keep_entries: bool,
    /// Keeps the order of all deliveries in the journal, repeated ones included. Costs 4 bytes for each.
    pub keep_deliveries: bool,
    /// What goes wrong, and when.
    pub faults: FaultPlan,
}

impl fmt::Debug for Settings {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("listen", &self.listen)
            .field("org", &self.org)
            .field("seed", &self.seed)
            .field("redelivery", &self.redelivery)
            .field("redelivery_delay", &self.redelivery_delay)
            .field("requeue", &self.requeue)
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .field("total", &self.total)
            .field("interactions", &self.interactions)
            .field("payload_bytes", &self.payload_bytes)
            .field("types", &self.types)
            .field("hold", &self.hold)
            .field("empty_poll", &self.empty_poll)
            .field("round_trip", &self.round_trip)
            .field("token_ttl", &self.token_ttl)
            .field("granted_inactivity", &self.granted_inactivity)
            .field("client_id", &self.client_id)
            .field("catalog_types", &self.catalog_types)
            .field("keep_entries", &self.keep_entries)
            .field("keep_deliveries", &self.keep_deliveries)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            org: "acme".to_owned(),
            seed: 1,
            redelivery: Redelivery::PerSessionNewThenPending,
            redelivery_delay: Duration::from_secs(1),
            requeue: Requeue::SameId,
            rate: Rate::PerSecond(100.0),
            burst: 1,
            total: None,
            interactions: 50,
            payload_bytes: None,
            types: Types::All,
            hold: Duration::from_secs(15),
            empty_poll: EmptyPoll::EmptyList,
            round_trip: Duration::ZERO,
            token_ttl: Duration::from_secs(3600),
            granted_inactivity: None,
            client_id: None,
            client_secret: None,
            api_key: None,
            catalog_types: vec![CatalogType::ChangeNotification, CatalogType::EngagementCenterThirdParty],
            keep_entries: false,
            keep_deliveries: false,
            faults: FaultPlan::default(),
        }
    }
}

/// Which of the unacknowledged events a GET /events returns. The document says only that unacknowledged events come again
/// ("duplicate events will be received in subsequent retrieve events calls"), not when: both readings exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redelivery {
    /// As Redis XREADGROUP is used: events that this session was never given come first; when there are none, the
    /// unacknowledged ones come again, the longest waiting first, each not before [`Settings::redelivery_delay`].
    PerSessionNewThenPending,
    /// Every GET returns the head of the unacknowledged queue, again and at once, until it is acknowledged.
    FromHead,
}

/// What becomes of the unacknowledged events of a lost session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// They go to the next session that asks, under the same ids, before newer events.
    SameId,
    /// They go to the next session that asks, under new ids, before newer events.
    NewId,
    /// They are lost; the journal says which.
    Lost,
}

/// How fast events arise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// This many per second, in total.
    PerSecond(f64),
    /// The queue never runs dry (until [`Settings::total`]). Events are made only as they are asked for, so that memory
    /// stays bounded by what is unacknowledged.
    Unlimited,
    /// For measuring a client: the queue never runs dry (until [`Settings::total`]), and events are prepared ahead and
    /// differ in their ids alone. The journal only counts them, and nothing comes again: what is not acknowledged is lost
    /// with its session. Faults in the content of events are not made.
    Saturated,
}

/// Which event types arise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Types {
    /// All 67 of the document.
    All,
    /// Only these: full names, or `category.*`.
    Only(Vec<String>),
}

impl Types {
    pub(crate) fn includes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| matches(pattern, name)),
        }
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// What a GET /events that waited in vain is answered with. The document lists no status but 200 for success; servers of
/// this kind are known to use 204.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyPoll {
    /// 200 with an empty `events` list.
    EmptyList,
    /// 204 without a body.
    NoContent,
}

/// Vendor document, schema FilterCriteria.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogType {
    /// `changeNotification`
    ChangeNotification,
    /// `engagementCenterThirdParty`
    EngagementCenterThirdParty,
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {problem}")]
pub struct SettingsError {
    /// The option, as it is named on the command line.
    pub option: &'static str,
    /// What is wrong with its value, and what it may be.
    pub problem: String,
}

impl SettingsError {
    pub(crate) fn new(option: &'static str, problem: impl fmt::Display) -> Self {
        Self { option, problem: problem.to_string() }
    }
}

impl Settings {
    /// Checks what the types do not.
    ///
    /// # Errors
    /// The first value that cannot be.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.org.is_empty() || self.org.contains('/') {
            return Err(SettingsError::new("--org", "must be a name without '/'"));
        }
        if let Rate::PerSecond(rate) = self.rate
            && !(rate.is_finite() && (0.0..=1e9).contains(&rate))
        {
            return Err(SettingsError::new(
                "--rate",
                "must be 0 to 1000000000 events per second, or 'unlimited'",
            ));
        }
        if self.burst == 0 {
            return Err(SettingsError::new("--burst", "must be at least 1"));
        }
        if self.interactions == 0 || self.interactions > 1_000_000 {
            return Err(SettingsError::new("--interactions", "must be 1 to 1000000"));
        }
        if self.payload_bytes.is_some_and(|bytes| bytes > 64 << 20) {
            return Err(SettingsError::new("--payload-bytes", "must be at most 64 MiB"));
        }
        if self.granted_inactivity.is_some_and(|granted| granted.is_zero()) {
            return Err(SettingsError::new("--granted-inactivity", "must be more than 0"));
        }
        if self.token_ttl.is_zero() {
            return Err(SettingsError::new("--token-ttl", "must be more than 0"));
        }
        if let Types::Only(patterns) = &self.types {
            if patterns.is_empty() {
                return Err(SettingsError::new("--types", "must name at least one event type, or be 'all'"));
            }
            for pattern in patterns {
                if !catalogue::event_types().any(|name| matches(pattern, name)) {
                    let problem = format!("{pattern} matches no event type of the vendor document");
                    return Err(SettingsError::new("--types", problem));
                }
            }
        }
        Ok(())
    }
}

/// Gives an enum the names that it has on the command line and in text.
macro_rules! named {
    ($type:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    other => Err(format!("{other:?} is not one of {}", [$($name),+].join(", "))),
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $name),+ })
            }
        }
    };
}
pub(crate) use named;

named!(Redelivery { PerSessionNewThenPending = "per_session_new_then_pending", FromHead = "from_head" });
named!(Requeue { SameId = "same_id", NewId = "new_id", Lost = "lost" });
named!(EmptyPoll { EmptyList = "200", NoContent = "204" });
named!(CatalogType {
    ChangeNotification = "changeNotification",
    EngagementCenterThirdParty = "engagementCenterThirdParty",
});

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        if text == "saturated" {
            return Ok(Self::Saturated);
        }
        text.parse().map(Self::PerSecond).map_err(|_| format!("{text:?} is neither a number nor 'unlimited'"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerSecond(rate) => rate.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Saturated => f.write_str("saturated"),
        }
    }
}

impl FromStr for Types {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            list => Ok(Self::Only(list.split(',').map(|name| name.trim().to_owned()).collect())),
        }
    }
}

impl fmt::Display for Types {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Only(patterns) => f.write_str(&patterns.join(",")),
        }
    }
}
