//! Generated texts and patterns: loading never panics, matching agrees with a naive reading of the rule.

use proptest::prelude::*;

use super::super::Template;
use super::super::pattern::Pattern;
use super::{SINK, SOURCE, load_with};

/// Lines that look like parts of a configuration, often the wrong ones.
fn line() -> impl Strategy<Value = String> {
    let table = prop::sample::select(vec![
        "",
        "bridge",
        "source",
        "source.main",
        "source.main.auth",
        "source.main.session",
        "source.main.subscription",
        "source.main.retry",
        "sink",
        "sink.lake",
        "sink.bus",
        "sink.lake.properties",
        "sink.bus.tls",
        "route",
        "dead_letter",
        "mask",
        "state",
        "admin",
        "log",
        "tracing",
        "tracing.headers",
        "a.\"b#1\".c",
        "\"\"",
    ]);
    let key = prop::sample::select(vec![
        "name",
        "shards",
        "api_url",
        "org_id",
        "api",
        "max_events",
        "max_in_flight",
        "auth",
        "session",
        "token_url",
        "client_id",
        "client_secret",
        "inactivity_delay",
        "properties",
        "events",
        "type",
        "delivery",
        "required",
        "bootstrap_servers",
        "partitions",
        "url",
        "stream",
        "user",
        "password",
        "tls",
        "dir",
        "rotate_size",
        "match",
        "sink",
        "to",
        "key",
        "format",
        "headers",
        "fields",
        "honour_is_masked",
        "hash_key",
        "level",
        "listen",
        "a.b",
        "\"#\"",
        "security.protocol",
        "refused_after",
        "otlp_endpoint",
        "sample_ratio",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "1",
            "-1",
            "0x7fffffffffffffff",
            "99999999999999999999",
            "1.5",
            "nan",
            "true",
            "1979-05-27",
            "[]",
            "{}",
            "[[]]",
            "[{}]",
            "\"\"",
            "\"kafka\"",
            "\"nats\"",
            "\"file\"",
            "\"stdout\"",
            "\"lake\"",
            "\"none\"",
            "\"*\"",
            "[\"*\"]",
            "\"15s\"",
            "\"-1s\"",
            "\"9223372036854775807h\"",
            "\"nats://a:b@c\"",
            "\"nats://\"",
            "\"https://x\"",
            "{ env = \"PATH\" }",
            "{ env = \"\" }",
            "{ file = \"\" }",
            "\"via.{category}\"",
            "[\"!*\", \"a\"]",
            "{ a.b = \"hash\", \"*\" = \"drop\" }",
            "{ x-a = \"{userId}\" }",
            "\"{\"",
            "\"localhost:9092\"",
            "\"::\"",
            "\"exactly_once\"",
            "\"v2\"",
            "\"127.0.0.1:1\"",
            "\"\"\"",
            "'",
            "[",
        ])
        .prop_map(str::to_owned),
        "\"\\PC{0,12}\"",
        "\\PC{0,12}",
    ];
    prop_oneof![
        1 => table.clone().prop_map(|table| format!("[{table}]")),
        1 => table.prop_map(|table| format!("[[{table}]]")),
        4 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        1 => "\\PC{0,20}",
    ]
}

/// What the rule says, by trying every way to spread the stars.
fn matches_naively(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|taken| matches_naively(rest, &text[taken..])),
        [first, rest @ ..] => text.first() == Some(first) && matches_naively(rest, &text[1..]),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loading_never_panics(
        lines in prop::collection::vec(line(), 0..25),
        start in any::<bool>(),
        name in "(SOURCE|SINK|LOG|ROUTE|X)(__[A-Z_]{0,12}){0,10}",
        value in "\\PC{0,20}",
    ) {
        let text = format!("{}{}", if start { SOURCE.to_owned() + SINK } else { String::new() }, lines.join("\n"));
        let variable = format!("VIADUCT__{name}");
        let key = name.replace("__", ".").to_lowercase();
        match load_with(&text, &[(&variable, &value)], &[(&key, &value)]) {
            Ok(loaded) => {
                prop_assert!(!loaded.config.sources.is_empty() && !loaded.config.routes.is_empty());
            }
            Err(mistakes) => {
                prop_assert!(!mistakes.all().is_empty());
                prop_assert!(mistakes.all().is_sorted());
                for mistake in mistakes.all() {
                    prop_assert!(!mistake.message.is_empty() && !mistake.hint.is_empty(), "{mistake}");
                    prop_assert!(!mistake.message.contains('\n'), "{mistake}");
                }
            }
        }
    }

    #[test]
    fn any_text_loads_or_is_refused(text in "\\PC{0,80}(\n\\PC{0,80}){0,5}") {
        prop_assert!(load_with(&text, &[], &[]).is_err());
    }

    #[test]
    fn a_pattern_matches_what_it_was_made_from(parts in prop::collection::vec("[ab.]{0,3}", 1..5), fill in "[ab.]{0,4}") {
        let pattern = parts.join("*");
        prop_assume!(!pattern.is_empty());
        prop_assert!(Pattern::parse(&pattern).unwrap().matches(&parts.join(&fill)));
    }

    #[test]
    fn a_template_is_written_as_it_is_read(text in "([a-z._-]{1,4}|\\{[a-z][A-Za-z0-9_]{0,5}\\}){1,6}") {
        prop_assert_eq!(Template::parse(&text).unwrap().to_string(), text);
    }

    #[test]
    fn a_template_keeps_all_of_its_text(text in "[a{}_ ]{0,10}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(template.to_string(), text);
        }
    }
}

proptest! {
    // Short texts of few letters, so that parts of patterns often overlap in them; and many.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn patterns_agree_with_the_naive_rule(pattern in "[ab*]{1,5}|[a.*é]{1,8}", text in "[ab]{0,4}|[a.é]{0,10}") {
        let parsed = Pattern::parse(&pattern).unwrap();
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = matches_naively(&characters(&pattern), &characters(&text));
        prop_assert_eq!(parsed.matches(&text), expected, "{} on {}", pattern, text);
        prop_assert_eq!(parsed.to_string(), pattern);
    }

    #[test]
    fn what_is_said_of_two_patterns_holds_for_every_text(one in "[ab*]{1,4}", other in "[ab*]{1,4}", text in "[ab]{0,5}") {
        let (one, other) = (Pattern::of(&one), Pattern::of(&other));
        if one.covers(&other) && other.matches(&text) {
            prop_assert!(one.matches(&text), "{one} does not cover {other}: {text}");
        }
        if one.is_apart_from(&other) {
            prop_assert!(!(one.matches(&text) && other.matches(&text)), "{one} and {other}: {text}");
        }
    }
}

#[test]
fn parts_of_a_pattern_do_not_overlap() {
    let matches = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().matches(text);
    assert!(!matches("*a*a*", "a") && matches("*a*a*", "aa"));
    assert!(!matches("ab*ba", "aba") && matches("ab*ba", "abba"));
    assert!(
        matches("engagementCenter.*", "engagementCenter.a.b")
            && !matches("engagementCenter.*", "engagementCenter")
    );
    assert!(matches("chat", "chat") && !matches("chat", "chat.x"));
    assert!(matches("*", "") && matches("**", "x") && matches("*.Idle", "a.b.Idle"));
}
