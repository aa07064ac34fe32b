//! `require_durable`: before anything is polled, the destinations are looked at, and a bridge that was told to publish to
//! durable ones only does not start with others.
//!
//! What is not there yet, or gets its name from an event, is judged by the sink when it first meets it: it refuses those
//! records, as it refuses those for a topic that does not exist.

use std::sync::Arc;

use tokio::sync::OnceCell;
use viaduct_sink::Weakness;

use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::sinks::{Destinations, SinkHandle};

/// What the required sinks demand of their destinations.
#[derive(Debug)]
pub(crate) struct Demands {
    sinks: Vec<(Arc<SinkHandle>, Vec<String>)>,
    met: OnceCell<Result<(), Failure>>,
}

impl Demands {
    /// Those of the configuration, whose sinks `handles` are, in the same order.
    pub(crate) fn of(config: &Config, handles: &[Arc<SinkHandle>]) -> Arc<Self> {
        let demanding = config.sink_indices().zip(handles).filter(|(index, _)| {
            let sink = config.sink(*index);
            // Nothing waits for a best-effort sink, this neither.
            sink.require_durable && sink.required
        });
        let sinks =
            demanding.map(|(index, handle)| (handle.clone(), Destinations::of(config, index).names()));
        Arc::new(Self { sinks: sinks.collect(), met: OnceCell::new() })
    }

    /// Waits until all destinations that exist were looked at; sinks that are away are waited for.
    ///
    /// # Errors
    /// 78, with the first destination that is too weak.
    pub(crate) async fn met(&self) -> Result<(), Failure> {
        self.met.get_or_init(|| self.look()).await.clone()
    }

    async fn look(&self) -> Result<(), Failure> {
        for (handle, destinations) in &self.sinks {
            if let Some(weakness) = handle.sink.assess(destinations).await.first() {
                return Err(refusal(&handle.name, weakness));
            }
        }
        Ok(())
    }
}

fn refusal(sink: &str, weakness: &Weakness) -> Failure {
    Failure::new(
        Exit::Config,
        format!("sink {sink} has require_durable = true, but {weakness}"),
        format!(
            "`viaduct check --online` shows all of them; mend {}, or write require_durable = false in [sink.{sink}]",
            weakness.destination
        ),
    )
}

/// Looks at the destinations of every sink, so that what is weak is told at the start and not with the first event.
pub(crate) async fn look_at_all(sinks: Vec<(Arc<SinkHandle>, Vec<String>)>) {
    for (handle, destinations) in sinks {
        // The sink tells what it finds.
        let _ = handle.sink.assess(&destinations).await;
    }
}
