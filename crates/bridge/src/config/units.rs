//! Durations (`"15s"`, `"1m30s"`, `"200ms"`) and sizes (`"64MiB"`).

use std::time::Duration;

use jiff::SignedDuration;

/// Parses a duration; `None` when it is none, or is negative.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    text.parse::<SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok())
}

/// Writes a duration as it is read.
pub(crate) fn duration_text(duration: Duration) -> String {
    let total = duration.as_millis();
    match total {
        0 => "0s".to_owned(),
        _ if !total.is_multiple_of(1000) => format!("{total}ms"),
        _ if total.is_multiple_of(3_600_000) => format!("{}h", total / 3_600_000),
        _ if total.is_multiple_of(60_000) && total > 60_000 => format!("{}m", total / 60_000),
        _ => format!("{}s", total / 1000),
    }
}

/// The units of sizes, and what they count in bytes.
const SIZES: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Parses a size with its unit; `None` when it is none, or does not fit.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, bytes) = SIZES.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(bytes)
}

/// Writes a size as it is read.
pub(crate) fn size_text(bytes: u64) -> String {
    SIZES[..3]
        .iter()
        .rev()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}
