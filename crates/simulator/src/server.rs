//! Starting and stopping a simulator.

use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::task::JoinHandle;

use crate::connection::{Connection, Connections};
use crate::control::Control;
use crate::report::Report;
use crate::route::TOKEN_PATH;
use crate::serving;
use crate::settings::{Settings, SettingsError};
use crate::simulation::Simulation;

/// How long [`Running::stop`] waits for requests under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// The simulator of the vendor's API.
#[derive(Debug)]
pub struct Simulator;

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Simulator {
    /// Starts a simulator on the current Tokio runtime.
    ///
    /// # Errors
    /// A setting cannot be, or the address cannot be listened on.
    pub async fn start(settings: Settings) -> Result<Running, StartError> {
        settings.check()?;
        let address = settings.listen;
        let (connections, address) =
            Connections::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        let simulation = Simulation::new(settings);
        let service = Router::new()
            .fallback(serving::serve)
            .with_state(simulation.clone())
            .into_make_service_with_connect_info::<Connection>();
        let server = axum::serve(connections, service)
            .with_graceful_shutdown(simulation.shutdown.clone().cancelled_owned())
            .into_future();
        tracing::info!(%address, org = simulation.settings.org, "simulator is listening");
        Ok(Running { address, simulation, server: tokio::spawn(server) })
    }
}

/// A running simulator. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    simulation: Arc<Simulation>,
    server: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The base URL of the API, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The URL of the token endpoint.
    pub fn token_url(&self) -> String {
        format!("http://{}{TOKEN_PATH}", self.address)
    }

    /// A handle for steering it.
    pub fn control(&self) -> Control {
        Control::new(self.simulation.clone())
    }

    /// What has happened so far, in numbers.
    pub fn report(&self) -> Report {
        self.simulation.report()
    }

    /// Stops: long polls end at once with what there is, idle connections close, and what is under way after five seconds
    /// is cut off. Returns the final report.
    pub async fn stop(mut self) -> Report {
        self.simulation.shutdown.cancel();
        if tokio::time::timeout(PATIENCE, &mut self.server).await.is_err() {
            tracing::warn!("the simulator stops with requests under way");
        }
        self.simulation.report()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.simulation.shutdown.cancel();
        self.server.abort();
    }
}
