//! What the suite is made of: the binary under test, the vendor's simulator, real brokers, and the invariants.

pub(crate) mod bridge;
pub(crate) mod case;
pub(crate) mod destinations;
pub(crate) mod holdings;
pub(crate) mod invariants;
pub(crate) mod line;
pub(crate) mod page;
pub(crate) mod vendor;
pub(crate) mod wait;
pub(crate) mod world;

use std::sync::OnceLock;

/// One HTTP client for the whole suite.
pub(crate) fn http() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::new()
    })
}
