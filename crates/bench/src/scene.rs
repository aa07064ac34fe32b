//! One run's surroundings: a simulator of its own, a contender, a topic or stream of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use viaduct_simulator::{Rate, Running, Settings, Simulator};

use crate::job::{Job, Kind, Target, VendorAddress};
use crate::process::Process;

/// Who runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Limit,
    LimitInBatches,
    LimitInTransactions,
    Floor,
    Viaduct,
    ViaductExactlyOnce,
    /// The other build of Viaduct that was asked for.
    Other,
    OtherExactlyOnce,
}

/// The builds of Viaduct that are measured.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) viaduct: PathBuf,
    /// An earlier one, say, to run in turn with it.
    pub(crate) other: Option<PathBuf>,
}

impl Contender {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::LimitInBatches => "limit, atomic batches",
            Self::LimitInTransactions => "limit, transactions",
            Self::Floor => "floor",
            Self::Viaduct => "viaduct",
            Self::ViaductExactlyOnce => "viaduct, exactly once",
            Self::Other => "other build",
            Self::OtherExactlyOnce => "other build, exactly once",
        }
    }

    /// It publishes from memory, not from the vendor.
    pub(crate) fn is_limit(self) -> bool {
        matches!(self, Self::Limit | Self::LimitInBatches | Self::LimitInTransactions)
    }
}

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) payload: usize,
    /// Sources of Viaduct, sessions of the floor.
    pub(crate) sources: usize,
    /// Events per GET.
    pub(crate) batch: usize,
    pub(crate) round_trip: Duration,
    pub(crate) seconds: f64,
    /// `max_in_flight` of Viaduct's sources, where it is not to be the default.
    pub(crate) max_in_flight: Option<usize>,
}

impl Case {
    /// Records that a transaction of Viaduct may have while as many arrive for the next one: half of what a source holds, less
    /// what it keeps free.
    fn most_in_transaction(&self) -> usize {
        self.max_in_flight.unwrap_or(2_000).saturating_sub(64) / 2
    }
}

impl Default for Case {
    fn default() -> Self {
        Self {
            payload: 1024,
            sources: 1,
            batch: 200,
            round_trip: Duration::ZERO,
            seconds: 3.0,
            max_in_flight: None,
        }
    }
}

/// A simulator whose events are prepared and held back.
pub(crate) async fn vendor(case: &Case) -> Result<Running> {
    let settings = Settings {
        rate: Rate::Saturated,
        payload_bytes: Some(case.payload),
        round_trip: case.round_trip,
        ..Settings::default()
    };
    Ok(Simulator::start(settings).await?)
}

/// Where a contender finds it.
pub(crate) fn address(vendor: &Running) -> VendorAddress {
    VendorAddress { api_url: vendor.url(), token_url: vendor.token_url() }
}

/// Starts a contender against a simulator.
pub(crate) fn contender(
    contender: Contender,
    case: &Case,
    binaries: &Binaries,
    vendor: &Running,
    target: &Target,
    folder: &TempDir,
) -> Result<Process> {
    let address = address(vendor);
    let kind = match contender {
        Contender::Limit => Kind::Limit,
        Contender::LimitInBatches => Kind::LimitInBatches,
        Contender::LimitInTransactions => Kind::LimitInTransactions,
        Contender::Floor => Kind::Floor,
        Contender::Viaduct
        | Contender::ViaductExactlyOnce
        | Contender::Other
        | Contender::OtherExactlyOnce => {
            let binary = match contender {
                Contender::Viaduct | Contender::ViaductExactlyOnce => &binaries.viaduct,
                _ => binaries.other.as_ref().context("there is no other build")?,
            };
            let file = configuration(contender, case, &address, target, folder.path())?;
            return Process::start(binary, &["run", "-c", &file.display().to_string()]);
        }
    };
    let job = Job {
        kind,
        vendor: address,
        target: target.clone(),
        sessions: case.sources,
        batch: match contender {
            Contender::LimitInTransactions => case.most_in_transaction(),
            _ => case.batch,
        },
        seconds: case.seconds,
    };
    Process::start(&std::env::current_exe()?, &["contend", &serde_json::to_string(&job)?])
}

/// Waits until every source has a session and waits for events in it.
pub(crate) async fn everybody_waits(vendor: &Running, case: &Case, process: &mut Process) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let waiting = vendor.report().sessions.iter().filter(|session| session.gets > 0).count();
        if waiting >= case.sources {
            return Ok(());
        }
        process.check()?;
        ensure!(Instant::now() < deadline, "{waiting} of {} sources wait for events", case.sources);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes the configuration, as a user would.
fn configuration(
    contender: Contender,
    case: &Case,
    vendor: &VendorAddress,
    target: &Target,
    folder: &Path,
) -> Result<PathBuf> {
    let mut text = String::from("[bridge]\nname = \"bench\"\n");
    for number in 0..case.sources {
        let max_in_flight =
            case.max_in_flight.map_or_else(String::new, |most| format!("max_in_flight = {most}\n"));
        write!(
            text,
            "[source.s{number}]\napi_url = \"{}\"\norg_id = \"acme\"\nmax_events = {}\n{max_in_flight}\
             [source.s{number}.auth]\ntoken_url = \"{}\"\nclient_id = \"bench{number}\"\nclient_secret = \"hunter2\"\n\
             api_key = \"hunter2\"\n",
            vendor.api_url, case.batch, vendor.token_url
        )?;
    }
    let delivery = match contender {
        Contender::ViaductExactlyOnce | Contender::OtherExactlyOnce => "exactly_once",
        _ => "at_least_once",
    };
    let destination = match target {
        Target::Kafka { bootstrap, topic } => {
            write!(text, "[sink.out]\ntype = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n")?;
            topic
        }
        Target::Nats { url, stream, subject } => {
            write!(text, "[sink.out]\ntype = \"nats\"\nurl = \"{url}\"\nstream = \"{stream}\"\n")?;
            subject
        }
    };
    write!(
        text,
        "delivery = \"{delivery}\"\n[[route]]\nmatch = [\"*\"]\nsink = \"out\"\nto = \"{destination}\"\n\
         [state]\ndir = {:?}\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"warn\"\n",
        folder.join("state")
    )?;
    let file = folder.join("viaduct.toml");
    std::fs::write(&file, text)?;
    Ok(file)
}
