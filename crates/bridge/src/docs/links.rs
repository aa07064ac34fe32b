//! Every relative link of every page points to a file that is there, and to a heading of it.

use std::collections::HashMap;

use super::{pages, root, text_of};
use crate::config::slug;

/// The page without its blocks of code.
fn prose(page: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in page.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The targets of `[…](target)`. Code cannot be one: it has no `](`.
fn links(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchors of the headings, as GitHub makes them: a repeated one gets a number.
fn anchors(prose: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut anchors = Vec::new();
    for line in prose.lines().filter(|line| line.starts_with('#')) {
        let anchor = slug(line.trim_start_matches('#').trim());
        let count = seen.entry(anchor.clone()).or_default();
        anchors.push(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
        *count += 1;
    }
    anchors
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut wrong = Vec::new();
    let mut tried = 0;
    for name in pages() {
        let page = prose(&text_of(&name));
        for link in links(&page).filter(|link| !link.contains("://")) {
            let (path, anchor) =
                link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let target = if path.is_empty() { name.clone() } else { format!("{folder}/{path}") };
            tried += 1;
            if !root().join(target.trim_start_matches('/')).exists() {
                wrong.push(format!("{name}: {link}: there is no such file"));
            } else if let Some(anchor) = anchor
                && !anchors(&prose(&text_of(target.trim_start_matches('/'))))
                    .iter()
                    .any(|known| known == anchor)
            {
                wrong.push(format!("{name}: {link}: there is no such heading"));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(tried > 60, "{tried}");
}

#[test]
fn the_table_of_contents_has_every_page() {
    let contents = text_of("docs/README.md");
    for name in pages() {
        if let Some(name) = name.strip_prefix("docs/").filter(|name| *name != "README.md") {
            assert!(contents.contains(&format!("({name})")), "docs/README.md does not lead to {name}");
        }
    }
}

#[test]
fn anchors_are_github_s() {
    let page = "# One `[a.<b>]` of \"c\"\n## Exit codes\n## Exit codes\n### 75: what_now?\n";
    assert_eq!(anchors(page), ["one-ab-of-c", "exit-codes", "exit-codes-1", "75-what_now"]);
}
