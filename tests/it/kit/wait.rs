//! Waiting for a condition, with a deadline; never for a time.

use std::time::{Duration, Instant};

/// Polls `condition` until it holds.
///
/// # Panics
/// With `what`, when `patience` is over.
pub(crate) async fn until(what: &str, patience: Duration, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
