//! `[mask]`: what it accepts, and what it refuses.

use insta::assert_snapshot;

use super::super::{MaskAction, Pattern};
use super::{SINK, SOURCE, doubts, load_with, right, wrong};

fn with_mask(mask: &str) -> String {
    format!("{SOURCE}{SINK}\n{mask}")
}

#[test]
fn an_empty_table_honours_what_the_vendor_calls_masked() {
    let mask = right(&with_mask("[mask]\n")).config.mask.unwrap();
    assert!(mask.honour_is_masked && mask.rules.is_empty() && mask.hash_key.is_none());
}

#[test]
fn names_with_dots_and_blanks_need_no_quotes_of_their_own() {
    let text = with_mask(
        "[mask.fields]\nscreenData.ani = \"last4\"\nscreenData.dnis = \"drop\"\n\" scriptName \" = \"redact\"\n\"a.b\" = \"drop\"\n",
    );
    let rules = right(&text).config.mask.unwrap().rules;
    let rules: Vec<_> = rules.iter().map(|rule| (rule.path.as_str(), rule.action)).collect();
    assert_eq!(
        rules,
        [
            ("screenData.ani", MaskAction::Last4),
            ("screenData.dnis", MaskAction::Drop),
            (" scriptName ", MaskAction::Redact),
            ("a.b", MaskAction::Drop)
        ]
    );
    assert!(Pattern::of("*.ani").matches("screenData.ani"));
}

#[test]
fn a_variable_can_set_the_key() {
    let text = with_mask("[mask]\nfields = { a = \"hash\" }\n");
    let variable = ("VIADUCT__MASK__HASH_KEY", "s3cret-s3cret-s3cret");
    assert!(load_with(&text, &[variable], &[]).unwrap().config.mask.unwrap().hash_key.is_some());
}

#[test]
fn what_a_mask_cannot_say() {
    let text = with_mask(
        r#"
[mask]
fields = { eventId = "redact", "" = "drop", a = "hide", b = 4, c.d = "hash", "c.d" = "drop" }
honour_is_masked = "yes"
colour = "red"
"#,
    );
    assert_snapshot!(wrong(&text), @r#"
    viaduct.toml:17:22: `fields` in [mask] cannot hide `eventId`
      hint: remove it: an event is known by its id, type and time
    viaduct.toml:17:37: `fields` in [mask] has a field without a name
      hint: write a member's name, or names joined by dots
    viaduct.toml:17:49: `a` in [mask.fields] must be one of `last4`, `hash`, `redact`, `drop`
      hint: write "last4" or "hash" or "redact" or "drop"
    viaduct.toml:17:61: `b` in [mask.fields] must be a string, not a whole number
      hint: write "last4" or "hash" or "redact" or "drop"
    viaduct.toml:17:78: duplicate key `c.d`
      hint: keep one of the two
    viaduct.toml:18:20: `honour_is_masked` in [mask] must be true or false, not a string
      hint: write true or false, without quotes
    viaduct.toml:19:1: unknown key `colour` in [mask]
      hint: the keys here are fields, honour_is_masked, hash_key
    7 mistakes in the configuration
    "#);
    assert_snapshot!(wrong(&with_mask("[mask]\nfields = { a = \"hash\" }\nhash_key = \"short\"\n")), @r"
    viaduct.toml:17:12: `hash_key` in [mask] is shorter than 16 characters
      hint: take a long random text: whoever guesses it can undo the hashes
    1 mistake in the configuration
    ");
    assert_snapshot!(wrong(&with_mask("[mask]\nfields = { a = \"hash\" }\n")), @r#"
    viaduct.toml:15:1: `hash_key` in [mask], which "hash" needs, is missing
      hint: add hash_key = { file = "path" } with a long random text, the same everywhere
    1 mistake in the configuration
    "#);
    assert_snapshot!(wrong(&with_mask("[mask]\nfields = [\"a\"]\nhash_key = { env = \"NOT_SET\" }\n")), @r"
    viaduct.toml:16:10: `fields` in [mask] must be a table, not a list
      hint: write it as a table: [mask.fields.<name>]
    viaduct.toml:17:20: `hash_key` in [mask] cannot be read: the environment variable `NOT_SET` is not set
      hint: set NOT_SET before the start
    2 mistakes in the configuration
    ");
}

#[test]
fn doubtful_masks() {
    assert_snapshot!(doubts(&with_mask("[mask]\nhonour_is_masked = false\n")), @r"
    viaduct.toml:15:1: [mask] masks nothing
      hint: name fields, or remove it
    ");
    let text = with_mask(
        r#"
[[route]]
match = ["outreach.*"]
sink = "lake"
key = ["interactionId", "{org}-{userId}", "phone.number", "ani", "sessionId"]
[mask]
fields = { interactionId = "hash", "*.userId" = "redact", "payload.phone.*" = "last4", ani = "drop" }
hash_key = "s3cret-s3cret-s3cret"
"#,
    );
    assert_snapshot!(doubts(&text), @r#"
    viaduct.toml:19:7: `key` uses `ani`, which is masked: it is never there
      hint: mask it with "hash", or choose another key
    viaduct.toml:19:7: `key` uses `phone.number`, which is masked: it is the same for values that end alike
      hint: mask it with "hash", or choose another key
    viaduct.toml:19:7: `key` uses `userId`, which is masked: it is the same for all events
      hint: mask it with "hash", or choose another key
    "#);
}
