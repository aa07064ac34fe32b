//! Pages of `docs/`: their examples are run as they stand there.

use std::path::Path;
use std::process::Command;

use super::bridge::viaduct;

/// A page's fenced blocks, in order.
#[derive(Debug)]
pub(crate) struct Page {
    name: String,
    blocks: Vec<Block>,
}

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    language: String,
    line: usize,
    text: String,
}

impl Page {
    /// Reads `docs/<name>`.
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut blocks: Vec<Block> = Vec::new();
        let mut inside = false;
        for (index, line) in text.lines().enumerate() {
            match line.strip_prefix("```") {
                Some(_) if inside => inside = false,
                Some(language) => {
                    inside = true;
                    blocks.push(Block {
                        language: language.to_owned(),
                        line: index + 1,
                        text: String::new(),
                    });
                }
                None if inside => {
                    let block = blocks.last_mut().expect("a block is open");
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None => {}
            }
        }
        Self { name: name.to_owned(), blocks }
    }

    /// Makes the page fit this run: every `from` in a block becomes `to`.
    pub(crate) fn with(mut self, from: &str, to: &str) -> Self {
        assert!(
            self.blocks.iter().any(|block| block.text.contains(from)),
            "{} has no {from:?} in its examples",
            self.name
        );
        for block in &mut self.blocks {
            block.text = block.text.replace(from, to);
        }
        self
    }

    /// The blocks of a language, in order.
    pub(crate) fn of(&self, language: &str) -> Vec<&Block> {
        self.blocks.iter().filter(|block| block.language == language).collect()
    }
}

impl Block {
    /// What stands in it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Runs a `console` block in `dir`: each line that begins with `$ ` is a command of bash, what follows is all that it
    /// prints on both outputs. A line `...` stands for any lines; ids of sessions may differ.
    pub(crate) fn run_in(&self, dir: &Path) {
        for part in self.text.split("$ ").skip(1) {
            let (command, expected) = part.split_once('\n').expect("a command ends with its line");
            let program = viaduct();
            let bin = Path::new(program.get_program()).parent().expect("it stands in a folder").to_owned();
            let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("PATH"));
            let mut shell = Command::new("bash");
            for (name, value) in program.get_envs() {
                if value.is_none() {
                    shell.env_remove(name);
                }
            }
            let script = format!("exec 2>&1; {command}");
            let output =
                shell.args(["-c", &script]).current_dir(dir).env("PATH", path).output().expect("bash");
            let printed = String::from_utf8(output.stdout).expect("UTF-8");
            let (seen, wanted) = (without_ids(&printed), without_ids(expected));
            let (seen_lines, wanted_lines): (Vec<&str>, Vec<&str>) =
                (seen.lines().collect(), wanted.trim_end().lines().collect());
            assert!(
                fits(&seen_lines, &wanted_lines),
                "the block at line {}: `{command}` printed\n{printed}",
                self.line
            );
        }
    }
}

fn fits(seen: &[&str], wanted: &[&str]) -> bool {
    match (seen, wanted) {
        (_, ["...", rest @ ..]) => (0..=seen.len()).any(|skipped| fits(&seen[skipped..], rest)),
        ([first, seen @ ..], [expected, wanted @ ..]) => first == expected && fits(seen, wanted),
        ([], []) => true,
        _ => false,
    }
}

/// The text with the shown beginnings of session ids, eight characters and an ellipsis, made equal.
fn without_ids(text: &str) -> String {
    let parts: Vec<&str> = text.split('…').collect();
    let cut = |part: &&str| part.get(..part.len().saturating_sub(8)).unwrap_or(part).to_owned();
    let (last, ids) = parts.split_last().expect("split yields something");
    ids.iter().map(|part| cut(part) + "ID…").chain([(*last).to_owned()]).collect()
}
