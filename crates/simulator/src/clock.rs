//! Real time, as the API writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// ISO 8601 in UTC with milliseconds, as in the vendor document: `1985-04-12T23:20:50.525Z`.
pub(crate) fn iso8601(ms: u64) -> String {
    let timestamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    timestamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_looks_as_in_the_document() {
        assert_eq!(iso8601(482_196_050_525), "1985-04-12T23:20:50.525Z");
        assert_eq!(iso8601(1_517_321_060_000), "2018-01-30T14:04:20.000Z");
    }
}
