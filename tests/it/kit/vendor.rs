//! The vendor's side: a simulator in this process.

use std::time::Duration;

use viaduct_simulator::{Rate, Report, Running, Settings, Simulator};

use super::invariants::Journal;
use super::wait::until;

/// Settings for a test: everything at once, all types, and a journal that keeps the order of deliveries.
pub(crate) fn settings() -> Settings {
    Settings { rate: Rate::Unlimited, total: Some(0), keep_deliveries: true, ..Settings::default() }
}

/// A running simulator.
#[derive(Debug)]
pub(crate) struct Vendor(pub(crate) Running);

impl Vendor {
    /// Starts it.
    pub(crate) async fn start(settings: Settings) -> Self {
        Self(Simulator::start(settings).await.expect("the simulator starts"))
    }

    /// The source's part of a configuration. `session` and `more` are further lines of `[source.main.session]` and of the
    /// document.
    pub(crate) fn source(&self, more: &str) -> String {
        format!(
            "[source.main]\napi_url = \"{}\"\norg_id = \"acme\"\n{more}\n\
             [source.main.auth]\ntoken_url = \"{}\"\nclient_id = \"hunter2-id\"\nclient_secret = \"hunter2-secret\"\napi_key = \"hunter2-key\"\n\
             [source.main.retry]\ninitial = \"20ms\"\nmax = \"500ms\"\n",
            self.0.url(),
            self.0.token_url(),
        )
    }

    /// The journal's numbers.
    pub(crate) fn report(&self) -> Report {
        self.0.report()
    }

    /// The whole journal.
    pub(crate) fn journal(&self) -> Journal {
        let control = self.0.control();
        Journal {
            report: self.0.report(),
            events: control.events(0, usize::MAX),
            deliveries: control.deliveries(),
        }
    }

    /// Whether everything that arose is acknowledged, or has become nothing that could be.
    pub(crate) fn is_settled(&self) -> bool {
        let report = self.report();
        report.unacknowledged == 0
            && report.queued == 0
            && report.waiting.unwrap_or(0) == 0
            && report.emitted > 0
    }

    /// Waits until it is.
    pub(crate) async fn all_acknowledged(&self, patience: Duration) {
        until("everything is acknowledged", patience, async || self.is_settled()).await;
    }
}
