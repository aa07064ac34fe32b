//! `viaduct simulate`: the vendor's simulator alone.

use tracing::info;
use viaduct_simulator::{Settings, SimulateArgs, Simulator};

use crate::config::{Log, LogFormat};
use crate::exit::{Exit, Failure};
use crate::logging;
use crate::signals::Signals;

/// Runs the simulator until SIGTERM or SIGINT.
///
/// # Errors
/// 64 for arguments that do not fit together, 69 where the address cannot be had.
pub(crate) async fn simulate(args: SimulateArgs) -> Result<(), Failure> {
    logging::init(&Log { level: "info".to_owned(), format: LogFormat::Auto });
    let mut signals = Signals::install()?;
    let settings = Settings::try_from(args).map_err(|error| {
        Failure::new(Exit::Usage, format!("simulate: --{error}"), "see viaduct simulate --help")
    })?;
    let address = settings.listen;
    let org = settings.org.clone();
    let running = Simulator::start(settings).await.map_err(|error| {
        Failure::new(
            Exit::Unavailable,
            format!("the simulator cannot listen on {address}: {error}"),
            "choose another address with --listen",
        )
    })?;
    println!("api_url   = \"{}\"", running.url());
    println!("token_url = \"{}\"", running.token_url());
    println!("org_id    = \"{org}\"");
    println!("report      {}/_simulator/report", running.url());
    let signal = signals.next().await;
    let report = running.stop().await;
    info!(
        signal,
        emitted = report.emitted,
        delivered = report.delivered,
        acknowledged = report.acknowledged,
        unacknowledged = report.unacknowledged,
        "simulator stopped"
    );
    Ok(())
}
