//! `check --online` and `require_durable`, against real brokers with good and bad settings.

mod durable;
mod kafka;
mod nats;
mod page;
mod undisturbed;
mod vendor;

use std::process::Output;

use serde_json::Value;

use crate::kit::bridge::{Site, viaduct};

/// What `check --online --json` found.
struct Found {
    code: i32,
    document: Value,
    said: String,
}

/// Runs `check --online --json`. No secret may show, in neither form.
fn check(site: &Site, more: &[&str]) -> Found {
    let output = run(site, &[&["--json"], more].concat());
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let document: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{said}", String::from_utf8_lossy(&output.stdout)));
    let found = Found { code: output.status.code().expect("an exit code"), document, said };
    found.has_its_shape();
    found
}

/// Runs `check --online` for people.
fn shown(site: &Site, more: &[&str]) -> (i32, String) {
    let output = run(site, more);
    (output.status.code().expect("an exit code"), String::from_utf8(output.stdout).expect("UTF-8"))
}

fn run(site: &Site, more: &[&str]) -> Output {
    run_with(site, more, &[])
}

fn run_with(site: &Site, more: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = viaduct();
    command.args(["check", "--online", "-c"]).arg(site.config()).args(more).current_dir(site.path(""));
    let output = tokio::task::block_in_place(|| command.envs(environment.iter().copied()).output());
    let output = output.expect("viaduct starts");
    let said = [&output.stdout[..], &output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("hunter2"), "a secret is shown");
    output
}

impl Found {
    fn checks(&self) -> &[Value] {
        self.document["checks"].as_array().expect("checks")
    }

    /// The status and the detail of a check; `subject` may be "".
    fn of(&self, target: &str, check: &str, subject: &str) -> (&str, &str) {
        let found = self.checks().iter().find(|one| {
            one["target"] == target
                && one["check"] == check
                && one["subject"].as_str().unwrap_or("") == subject
        });
        let found = found.unwrap_or_else(|| panic!("no {target} {check} {subject:?} in {:#}", self.document));
        (found["status"].as_str().expect("text"), found["detail"].as_str().expect("text"))
    }

    /// The status of a check of the sink `lake` or `bus`.
    fn status(&self, check: &str, subject: &str) -> &str {
        let sink = self
            .checks()
            .iter()
            .find_map(|one| one["target"].as_str().filter(|name| name.starts_with("sink ")));
        self.of(sink.expect("a sink"), check, subject).0
    }

    /// The word and the sentence of the only verdict.
    fn verdict(&self) -> (&str, &str) {
        let verdicts = self.document["verdicts"].as_array().expect("verdicts");
        let [verdict] = verdicts.as_slice() else { panic!("not one verdict: {verdicts:?}") };
        (verdict["verdict"].as_str().expect("text"), verdict["sentence"].as_str().expect("text"))
    }

    /// What is documented of the document.
    fn has_its_shape(&self) {
        assert_eq!(self.document["ok"], self.code == 0, "{}", self.said);
        for check in self.checks() {
            for key in ["target", "check", "status", "detail", "hint"] {
                assert!(check[key].is_string(), "{key} of {check}");
            }
            let status = check["status"].as_str().expect("text");
            assert!(["ok", "warn", "fail", "unverified"].contains(&status), "{check}");
        }
        for verdict in self.document["verdicts"].as_array().expect("verdicts") {
            let word = verdict["verdict"].as_str().expect("text");
            assert!(["holds", "does_not_hold", "unverified"].contains(&word), "{verdict}");
            assert_eq!(
                word == "holds",
                verdict["because"].as_array().expect("a list").is_empty(),
                "{verdict}"
            );
        }
    }
}
