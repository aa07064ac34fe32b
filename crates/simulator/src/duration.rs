//! Durations as people write them: `15s`, `500ms`, `2m`, `1h 30m`.

use std::time::Duration;

use jiff::SignedDuration;

/// Reads a duration.
///
/// # Errors
/// A sentence that says what was expected.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 15s, 500ms or 2m");
    Duration::try_from(text.parse::<SignedDuration>().map_err(|_| wrong())?).map_err(|_| wrong())
}
