//! docs/dead-letters.md, from top to bottom.

use crate::kit::page::Page;

#[tokio::test(flavor = "multi_thread")]
async fn the_page_about_dead_letters_is_right() {
    let secret = |name: &str| format!("{{ env = \"{name}\" }}");
    let page = ["VIA_CLIENT_ID", "VIA_CLIENT_SECRET", "VIA_API_KEY"]
        .into_iter()
        .fold(Page::read("dead-letters.md"), |page, name| page.with(&secret(name), "\"hunter2\""));
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let letters = dir.join("viaduct-state/dead-letters");
    std::fs::create_dir_all(&letters).unwrap();
    std::fs::write(letters.join("dead-letters.jsonl"), page.of("json")[0].text()).unwrap();
    let [whole, route] = page.of("toml")[..] else { panic!("a configuration, and what is added to it") };
    let [looking @ .., replaying] = &page.of("console")[..] else { panic!("no console") };
    std::fs::write(dir.join("viaduct.toml"), whole.text()).unwrap();
    tokio::task::block_in_place(|| looking.iter().for_each(|block| block.run_in(dir)));
    std::fs::write(dir.join("viaduct.toml"), [whole.text(), route.text()].concat()).unwrap();
    tokio::task::block_in_place(|| replaying.run_in(dir));
    let published = std::fs::read_to_string(dir.join("events/outreach.jsonl")).unwrap();
    assert_eq!(published.lines().count(), 1);
}
