//! Destinations as file names.

/// What stands behind a destination in the name of its file.
pub(crate) const SUFFIX: &str = ".jsonl";
/// Longest file name that the usual file systems take, in bytes.
const LONGEST: usize = 255;
/// Digits of a rotated file's number; more where there are more than a million.
const DIGITS: usize = 6;

/// Why `destination` cannot be a file in the sink's directory; `None` where it can. `rotating`: files are rotated, so
/// that a name which looks like a rotated file's would get into another destination's way.
pub(crate) fn fault(destination: &str, rotating: bool) -> Option<&'static str> {
    let longest_suffix = ".".len() + DIGITS + SUFFIX.len();
    if destination.is_empty() {
        return Some("a file needs a name");
    }
    if destination.starts_with('.') {
        return Some("a file name must not start with a dot");
    }
    if destination.contains(['/', '\\']) || destination.chars().any(char::is_control) {
        return Some("a file name must not contain a slash, a backslash or a control character");
    }
    if destination.len() + longest_suffix > LONGEST {
        return Some("the file name would be too long");
    }
    if rotating && destination.rsplit_once('.').is_some_and(|(_, end)| number(end).is_some()) {
        return Some("the file name looks like that of a rotated file");
    }
    None
}

/// The name of the file that is written to.
pub(crate) fn active(destination: &str) -> String {
    format!("{destination}{SUFFIX}")
}

/// The name of a rotated file.
pub(crate) fn rotated(destination: &str, number: u64) -> String {
    format!("{destination}.{number:0DIGITS$}{SUFFIX}")
}

/// The number of a rotated file of `destination`, from its name.
pub(crate) fn rotation(file: &str, destination: &str) -> Option<u64> {
    number(file.strip_prefix(destination)?.strip_prefix('.')?.strip_suffix(SUFFIX)?)
}

/// Destination and number of a rotated file, from its name.
pub(crate) fn split_rotated(file: &str) -> Option<(&str, u64)> {
    let (destination, end) = file.strip_suffix(SUFFIX)?.rsplit_once('.')?;
    Some((destination, number(end)?)).filter(|(destination, _)| !destination.is_empty())
}

fn number(text: &str) -> Option<u64> {
    let digits = text.len() >= DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_a_file() {
        for good in ["chat", "via.acme.chat", "a..b", "ü_1", "via.123"] {
            assert_eq!(fault(good, true), None, "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "../x", "a\\b", "a\0b", "a\nb"] {
            assert!(fault(bad, false).is_some(), "{bad:?}");
        }
        assert!(fault(&"x".repeat(242), false).is_none());
        assert!(fault(&"x".repeat(243), false).is_some());
        assert!(fault("chat.000001", true).is_some());
        assert!(fault("chat.000001", false).is_none());
    }

    #[test]
    fn rotated_names_come_back_as_numbers() {
        assert_eq!(rotated("chat", 7), "chat.000007.jsonl");
        assert_eq!(rotation("chat.000007.jsonl", "chat"), Some(7));
        assert_eq!(rotation(&rotated("chat", 1_234_567), "chat"), Some(1_234_567));
        for other in ["chat.jsonl", "chat.x.jsonl", "chats.000007.jsonl", "chat.7.jsonl", "chat.000007"] {
            assert_eq!(rotation(other, "chat"), None, "{other}");
        }
    }
}
