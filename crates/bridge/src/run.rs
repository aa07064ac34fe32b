//! `viaduct run`: the bridge until a signal.

use std::time::Duration;

use tracing::{info, warn};

use crate::admin;
use crate::config::Config;
use crate::engine::{Engine, Summary};
use crate::exit::{Exit, Failure};
use crate::reload::Reload;
use crate::service::Service;
use crate::signals::{Asked, Signals};

/// Runs the bridge until SIGTERM or SIGINT, and drains it. SIGHUP reads the configuration again.
///
/// # Errors
/// Everything of [`Engine::start`] and [`Engine::run`]; 75 where events stay unacknowledged: after
/// `bridge.shutdown_timeout`, or at a second signal.
pub(crate) async fn run(config: &Config, mut reload: Reload) -> Result<(), Failure> {
    let mut signals = Signals::install_with_reload()?;
    let listener = admin::bind(config.admin).await?;
    let mut engine = Engine::start(config).await?;
    let admin = admin::serve(listener, engine.telemetry());
    info!(bridge = config.bridge.name, version = env!("CARGO_PKG_VERSION"), "bridge started");
    let service = Service::ready(engine.telemetry());
    let reloader = engine.reloader();
    let stopper = engine.stopper();
    let timeout = config.bridge.shutdown_timeout;
    let summary = {
        let running = engine.run();
        tokio::pin!(running);
        let asked_to_end = async {
            loop {
                match signals.asked().await {
                    Asked::End(signal) => break signal,
                    Asked::Reload => {
                        service.reloading();
                        reload.reload(&reloader);
                        service.reloaded();
                    }
                }
            }
        };
        tokio::select! {
            ended = &mut running => ended?,
            signal = asked_to_end => {
                info!(signal, "stopping: no more polls, waiting for publishes and acknowledgements under way");
                service.stopping();
                stopper.cancel();
                tokio::select! {
                    ended = &mut running => ended?,
                    () = tokio::time::sleep(timeout) => return Err(gave_up(timeout)),
                    signal = signals.next() => {
                        warn!(signal, "second signal: stopping at once");
                        return Err(Failure::new(
                            Exit::TempFail,
                            "stopped at once by a second signal",
                            "unacknowledged events will be delivered again after a restart",
                        ));
                    }
                }
            }
        }
    };
    admin.close().await;
    settled(summary)
}

fn settled(summary: Summary) -> Result<(), Failure> {
    if summary.unacknowledged == 0 {
        info!("stopped; every event is acknowledged");
        return Ok(());
    }
    Err(Failure::new(
        Exit::TempFail,
        format!("stopped with {} events unacknowledged", summary.unacknowledged),
        "they will be delivered again after a restart",
    ))
}

fn gave_up(timeout: Duration) -> Failure {
    Failure::new(
        Exit::TempFail,
        format!("gave up waiting for publishes and acknowledgements after {timeout:?}"),
        "unacknowledged events will be delivered again after a restart; bridge.shutdown_timeout sets the patience",
    )
}
