//! The page of symptoms names every reason of `/readyz` and every exit code.
//!
//! Reasons are sentences that are made where the trouble is met, in several crates. So the texts of those files are read:
//! each one stands on the page, with `…` for what varies, or is listed here as no reason.

use super::{root, text_of};

/// The files in which reasons are made.
const FILES: [&str; 19] = [
    "poller/src/failure.rs",
    "poller/src/http.rs",
    "poller/src/session/reconcile.rs",
    "poller/src/session/view.rs",
    "poller/src/tell.rs",
    "poller/src/token.rs",
    "sink/src/outcome.rs",
    "sink-file/src/stdout.rs",
    "sink-file/src/writer.rs",
    "sink-kafka/src/producer.rs",
    "sink-kafka/src/transaction/checkpoints.rs",
    "sink-kafka/src/transaction/coordinator.rs",
    "sink-kafka/src/transaction/fence.rs",
    "sink-kafka/src/vitals.rs",
    "sink-nats/src/answer.rs",
    "sink-nats/src/epoch.rs",
    "sink-nats/src/exactly_once/standing.rs",
    "sink-nats/src/stream.rs",
    "sink-nats/src/supervisor.rs",
];

/// Texts of these files that no operator sees as a reason: parts of others, what ends a process, what concerns records.
const NO_REASONS: &[&str] = &[
    "…: …: …",
    "… (…)",
    "…: …",
    "no content type",
    "access token",
    "Bearer …",
    "a partition has no leader",
    "this client cannot create topics with OAUTHBEARER",
    "no way to fetch tokens is configured",
    "the sink is closed",
    "the sink was closed",
    "writing to standard output failed",
    "permissions violation",
    "the answer carries no stream sequence",
    "the subject belongs to another stream: …",
    "other instances keep claiming the source",
    "the source is not claimed",
    "nobody listens on the checkpoint's subject",
    "the batch was not stored",
    "the stream does not exist now",
    "the server answers from the past",
    "… the checkpoint on …",
    "the server does not permit to publish to …",
    "it is kept in memory and gone with the server",
    "its retention removes messages once they are consumed or nobody is interested",
    "messages older than … are removed (max_age)",
    "the oldest messages go above … (max_msgs)",
    "the oldest messages go above … bytes (max_bytes)",
];

/// As much of a reason as the page has to have.
const ENOUGH: usize = 40;

/// The texts of a source file that are neither comments nor messages of the log.
fn texts(source: &str) -> Vec<String> {
    let code: Vec<&str> = source
        .split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    // A quote as a character begins no text, and a text may go on in the next line.
    let code = code.join("\n").replace("'\"'", "' '");
    let mut texts = Vec::new();
    let mut rest = code.as_str();
    let mut statement = String::new();
    while let Some((before, after)) = rest.split_once('"') {
        statement = match before.rfind([';', '{', '}']) {
            Some(end) => before[end..].to_owned(),
            None => statement + before,
        };
        let end = end_of_text(after);
        let logged = ["trace!(", "debug!(", "info!(", "warn!(", "error!(", "expect(", "must_use"];
        if !logged.iter().any(|call| statement.contains(call)) {
            texts.push(plain(&after[..end]));
        }
        rest = &after[end + 1..];
    }
    texts.retain(|text| text.split_whitespace().count() > 1);
    texts
}

/// Where the text ends that goes on here.
fn end_of_text(text: &str) -> usize {
    let mut escaped = false;
    let end = text.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.expect("a text ends")
}

/// The text as it is read, with `…` for what varies.
fn plain(literal: &str) -> String {
    let mut text = String::new();
    let mut rest = literal;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        text.push('…');
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    let text = text.replace("\\\"", "\"").replace("\\\n", " ");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_reason_is_on_the_page() {
    let page = text_of("docs/troubleshooting.md").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut missing = Vec::new();
    let mut found = 0;
    for file in FILES {
        let source = std::fs::read_to_string(root().join("crates").join(file)).expect(file);
        for text in texts(&source) {
            let beginning: String = text.chars().take(ENOUGH).collect();
            if page.contains(beginning.trim_end()) {
                found += 1;
            } else if !NO_REASONS.contains(&text.as_str()) {
                missing.push(format!("{file}: {text}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/troubleshooting.md lacks\n{}", missing.join("\n"));
    assert!(found > 50, "{found}");
}

#[test]
fn every_exit_code_is_on_the_pages() {
    let source = std::fs::read_to_string(root().join("crates/bridge/src/exit.rs")).expect("exit.rs");
    let variants = source.split("pub(crate) enum Exit {").nth(1).and_then(|rest| rest.split('}').next());
    let codes: Vec<u8> = variants
        .into_iter()
        .flat_map(str::lines)
        .filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = ")?.1.parse().ok())
        .collect();
    assert!(codes.contains(&0) && codes.contains(&78) && codes.len() >= 8, "{codes:?}");
    for page in ["README.md", "docs/troubleshooting.md"] {
        for code in &codes {
            assert!(text_of(page).contains(&format!("\n| {code} |")), "{page} lacks the exit code {code}");
        }
    }
}

#[test]
fn texts_are_found() {
    let source = r##"
        // "a comment"
        info!(source, "a message of the log");
        health.down("nobody answers here");
        let quote = text.split('"');
        Err(format!("cannot reach {}: \"{why}\", \
                     sorry", place))
        #[cfg(test)]
        mod tests { "not this one" }
    "##;
    assert_eq!(texts(source), ["nobody answers here", "cannot reach …: \"…\", sorry"]);
}
