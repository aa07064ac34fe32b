//! Subjects: which ones a record may have, and which ones a stream covers.
//!
//! Rules: NATS documentation, "Subject-Based Messaging". The server itself takes odd subjects such as `a..b` in a
//! publish and then stores them nowhere, so they are refused before they are sent.

/// Longest subject that is sent. The server's line limit (`max_control_line`, 4,096 bytes by default) holds subject,
/// reply and lengths together, and a longer line costs the connection.
const LONGEST: usize = 3_500;

/// Why nothing can be published to `subject`; `None` where it can.
pub(crate) fn fault(subject: &str) -> Option<&'static str> {
    if subject.len() > LONGEST {
        return Some("the subject is too long");
    }
    if subject.split('.').any(str::is_empty) {
        return Some("the subject has an empty token");
    }
    if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Some("the subject has whitespace or a control character");
    }
    if subject.contains(['*', '>']) {
        return Some("the subject has a wildcard");
    }
    if subject.starts_with('$') {
        return Some("the subject belongs to the server");
    }
    None
}

/// Whether `filter` is a subject with or without wildcards.
pub(crate) fn is_filter(filter: &str) -> bool {
    let tokens: Vec<&str> = filter.split('.').collect();
    let last = tokens.len() - 1;
    tokens.iter().enumerate().all(|(index, token)| match *token {
        "" => false,
        "*" => true,
        ">" => index == last,
        literal => {
            !literal.contains(['*', '>']) && !literal.chars().any(|c| c.is_whitespace() || c.is_control())
        }
    })
}

/// Whether a stream can have this name.
pub(crate) fn is_stream_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    !name.is_empty() && name.len() <= 255 && !name.contains(bad)
}

/// Whether every subject that `narrow` names is named by `wide` too; both may have wildcards.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether some subject is named by both; both may have wildcards.
pub(crate) fn overlaps(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn subjects_overlap_where_one_is_named_by_both() {
        for (one, other) in [("via.>", "via.acme.*"), ("*.acme", "via.*"), ("via.x", "via.x"), (">", "via")] {
            assert!(overlaps(one, other) && overlaps(other, one), "{one} {other}");
        }
        for (one, other) in [("via.x", "via.y"), ("via.>", "via"), ("*.acme.*", "via.*"), ("a.>", "b.>")] {
            assert!(!overlaps(one, other) && !overlaps(other, one), "{one} {other}");
        }
    }

    use super::*;

    #[test]
    fn what_a_record_may_have() {
        for good in ["via", "via.acme.chat.X", "via.a-b_c.ü", "via.acme.a$b"] {
            assert_eq!(fault(good), None, "{good}");
        }
        for bad in [
            "",
            ".",
            "via.",
            ".via",
            "via..x",
            "via x",
            "via.\n",
            "via.\u{0}",
            "via.*",
            "via.>",
            "$JS.API.INFO",
        ] {
            assert!(fault(bad).is_some(), "{bad:?}");
        }
        assert!(fault(&"x".repeat(4_000)).is_some());
    }

    #[test]
    fn what_a_filter_may_be() {
        assert!(is_filter("via.>") && is_filter(">") && is_filter("via.*.x"));
        assert!(!is_filter("via.>.x") && !is_filter("") && !is_filter("via.a*") && !is_filter("via. "));
    }

    #[test]
    fn what_covers_what() {
        for (wide, narrow) in [
            ("via.>", "via.a.b"),
            ("via.*", "via.a"),
            ("via.>", "via.*"),
            ("via.>", "via.>"),
            (">", "via.>"),
            ("a.*.c", "a.b.c"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("via.>", "via"),
            ("via.*", "via.a.b"),
            ("via.*", "via.>"),
            ("via.a", "via.*"),
            ("via.a", "via.b"),
            ("a.*", "a"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }
}
