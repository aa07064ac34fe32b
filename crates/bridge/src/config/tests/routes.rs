//! Exclusions, keys, headers, and routes that no event can reach.

use insta::assert_snapshot;

use super::{SINK, SOURCE, doubts, right, wrong};

fn with_routes(routes: &str) -> String {
    format!("{SOURCE}{SINK}\n{routes}")
}

#[test]
fn what_a_route_cannot_say() {
    let text = with_routes(
        r#"
[[route]]
match = ["!chat.*", "! x"]
sink = "lake"
key = ["user id", "{userId", "\"\"", ".a"]
[[route]]
match = ["!chat.*"]
sink = "lake"
to = "via.{userId:hash}"
headers = { "x y" = "a", ce_id = "1", Nats-Msg-Id = "1", content-type = "text/plain", Viaduct-Reason = "x", x-a = "{", X-A = "1", x-A = "2", x-b = "\u0007", x-c = 5 }
[[route]]
match = ["chat.*"]
sink = "none"
headers = { x-a = "1" }
"#,
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:17:21: a pattern in `match` of [[route]] number 1 contains white space or a control character
      hint: write an event type, with * for any characters: "engagementCenter.*"
    viaduct.toml:19:8: `key` in [[route]] number 1 must be event fields, templates or constants
      hint: write key = ["interactionId", "{org}-{userId}", '"constant"']; [] is no key
    viaduct.toml:19:19: `key` in [[route]] number 1 must be event fields, templates or constants
      hint: write key = ["interactionId", "{org}-{userId}", '"constant"']; [] is no key
    viaduct.toml:19:30: `key` in [[route]] number 1 must be event fields, templates or constants
      hint: write key = ["interactionId", "{org}-{userId}", '"constant"']; [] is no key
    viaduct.toml:19:38: `key` in [[route]] number 1 must be event fields, templates or constants
      hint: write key = ["interactionId", "{org}-{userId}", '"constant"']; [] is no key
    viaduct.toml:21:9: `match` in [[route]] number 2 has only `!` patterns: no event matches
      hint: add "*" for all other events
    viaduct.toml:23:6: `to` in [[route]] number 2 has a `:` in braces with something else than `plain` behind it
      hint: write it like to = "via.{category}"
    viaduct.toml:24:21: the header `x y` in [[route]] number 2 is no name of a header
      hint: use letters, digits, `-`, `_` and `.` only
    viaduct.toml:24:34: the header `ce_id` in [[route]] number 2 belongs to CloudEvents
      hint: choose another name
    viaduct.toml:24:53: the header `Nats-Msg-Id` in [[route]] number 2 belongs to NATS
      hint: choose another name
    viaduct.toml:24:73: the header `content-type` in [[route]] number 2 belongs to the format
      hint: choose another name
    viaduct.toml:24:104: the header `Viaduct-Reason` in [[route]] number 2 belongs to dead letters
      hint: choose another name
    viaduct.toml:24:115: the header `x-a` in [[route]] number 2 has a `{` that no `}` closes
      hint: write it like x-a = "{userId}"
    viaduct.toml:24:137: the header `x-A` in [[route]] number 2 is there twice, but for its case
      hint: keep one of them
    viaduct.toml:24:148: the header `x-b` in [[route]] number 2 contains a control character
      hint: remove it
    viaduct.toml:24:164: `x-c` in [[route]] number 2.headers must be a string, not a whole number
      hint: write it in "quotes"
    viaduct.toml:28:11: `headers` in [[route]] number 3 has no meaning where events are dropped
      hint: remove it
    17 mistakes in the configuration
    "#);
}

#[test]
fn routes_that_nothing_reaches() {
    let text = with_routes(
        r#"
[[route]]
match = ["engagementCenter.*", "!*.Idle", "!*.Break*"]
sink = "lake"
[[route]]                       # reached by Idle and Break…
match = ["engagementCenter.*"]
sink = "lake"
[[route]]                       # covered, but for exclusions of its own
match = ["engagementCenter.Held*", "engagementCenter.Active", "engagementCenter.Idle", "!*.Idle"]
sink = "lake"
[[route]]
match = ["messaging.*", "outreach.Status", "!m*", "!out*"]
sink = "lake"
[[route]]                       # an exclusion that is none of its business
match = ["*", "!engagementCenter.Idle"]
sink = "lake"
[[route]]
match = ["messaging.Entity*"]
sink = "lake"
[[route]]
match = ["engagementCenter.Idle"]
sink = "none"
[[route]]
match = ["messaging.*"]
sink = "none"
"#,
    );
    assert_snapshot!(doubts(&text), @r"
    viaduct.toml:22:1: [[route]] number 3 never applies: an earlier route to this sink matches first
      hint: move it up, or remove it
    viaduct.toml:25:1: [[route]] number 4 never applies: its `!` patterns take back all that it matches
      hint: narrow the `!` patterns, or remove the route
    viaduct.toml:26:25: the pattern `outreach.Status` of [[route]] number 4 matches no documented event type
      hint: did you mean `outreach.status`?
    viaduct.toml:31:1: [[route]] number 6 never applies: an earlier route to this sink matches first
      hint: move it up, or remove it
    viaduct.toml:34:1: [[route]] number 7 drops nothing: all that it matches goes to a sink
      hint: exclude it there with a `!` pattern, or remove the route
    viaduct.toml:37:1: [[route]] number 8 drops nothing: all that it matches goes to a sink
      hint: exclude it there with a `!` pattern, or remove the route
    ");
}

#[test]
fn names_that_nearly_are_documented_types() {
    let text = with_routes(
        r#"
[[route]]
match = ["engagementcenter.*", "engagementCenter.idle", "chat.*", "*.ScreenPop", "!*.Ilde"]
sink = "lake"
"#,
    );
    assert_snapshot!(doubts(&text), @r"
    viaduct.toml:17:10: the pattern `engagementcenter.*` of [[route]] number 1 matches no documented event type
      hint: did you mean `engagementCenter.*`?
    viaduct.toml:17:32: the pattern `engagementCenter.idle` of [[route]] number 1 matches no documented event type
      hint: did you mean `engagementCenter.Idle`?
    viaduct.toml:17:82: the pattern `*.Ilde` of [[route]] number 1 matches no documented event type
      hint: did you mean `*.Idle`?
    ");
}

#[test]
fn files_have_no_headers() {
    let text = format!(
        "{SOURCE}\n[sink.archive]\ntype = \"file\"\ndir = \"e\"\n[[route]]\nmatch = [\"*\"]\nsink = \"archive\"\nheaders = {{ x-a = \"1\" }}\n"
    );
    assert_snapshot!(doubts(&text), @r"
    viaduct.toml:17:11: `headers` in [[route]] number 1 have no effect: this sink writes values only
      hint: remove them
    ");
}

#[test]
fn every_format_and_every_kind_of_key_is_accepted() {
    for format in ["unwrapped", "raw", "payload", "cloudevents"] {
        let text = with_routes(&format!(
            "[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\nformat = \"{format}\"\nkey = ['{{org}}:{{userId}}', 'a.b.0', '\"all\"']\n"
        ));
        assert_eq!(right(&text).warnings, []);
    }
}
