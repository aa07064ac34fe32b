//! What `check --online` found: lines, verdicts, and how they are printed.

use std::fmt::Write as _;

use serde::Serialize;

use crate::admin::verdict::Level;
use crate::config::Delivery;
use crate::console::paint::Paint;
use crate::exit::{Exit, Failure};

/// How one check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
    /// Nobody can tell. Never counted as right.
    Unverified,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Unverified => "unverified",
        }
    }

    /// How bad it is, for colours.
    const fn level(self) -> Level {
        match self {
            Self::Ok => Level::Ok,
            Self::Warn | Self::Unverified => Level::Warning,
            Self::Fail => Level::Error,
        }
    }
}

/// One line.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Check {
    /// What was looked at: `source main`, `sink lake`, `state`.
    pub(super) target: String,
    /// Which check, from a fixed set of words.
    pub(super) check: &'static str,
    /// What of the target: a server, a topic, a subject, a subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    pub(super) status: Status,
    pub(super) detail: String,
    /// What to do; empty where nothing is to be done.
    pub(super) hint: String,
    /// The exit code of a failure.
    #[serde(skip)]
    exit: Option<Exit>,
    /// Whether anything but `ok` keeps the sink's guarantee from holding.
    #[serde(skip)]
    bears: bool,
}

impl Check {
    fn new(check: &'static str, status: Status, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            target: String::new(),
            check,
            subject: None,
            status,
            detail: detail.into(),
            hint: hint.into(),
            exit: None,
            bears: false,
        }
    }

    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, detail, "")
    }

    pub(super) fn warn(check: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(check, Status::Warn, detail, hint)
    }

    pub(super) fn fail(
        check: &'static str,
        exit: Exit,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { exit: Some(exit), ..Self::new(check, Status::Fail, detail, hint) }
    }

    pub(super) fn unverified(
        check: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::new(check, Status::Unverified, detail, hint)
    }

    /// What of the target it is about.
    pub(super) fn of(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// The guarantee rests on it.
    pub(super) fn bearing(mut self) -> Self {
        self.bears = true;
        self
    }
}

/// The checks of one source, sink or directory.
#[derive(Debug)]
pub(super) struct Section {
    title: String,
    pub(super) checks: Vec<Check>,
}

impl Section {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), checks: Vec::new() }
    }

    pub(super) fn add(&mut self, check: Check) {
        self.checks.push(Check { target: self.title.clone(), ..check });
    }
}

/// Whether a sink's guarantee holds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Verdict {
    sink: String,
    guarantee: Delivery,
    verdict: Word,
    /// Why it does not hold, or why it cannot be verified; empty where it holds.
    because: Vec<String>,
    /// The same for a person.
    sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Holds,
    DoesNotHold,
    Unverified,
}

impl Verdict {
    /// The verdict of a sink with these checks; `sources`: those of the sources.
    pub(super) fn of(sink: &str, guarantee: Delivery, own: &Section, sources: &[Section]) -> Self {
        let bearing =
            sources.iter().chain([own]).flat_map(|section| &section.checks).filter(|check| check.bears);
        let (mut against, mut unknown) = (Vec::new(), Vec::new());
        for check in bearing {
            let reason = match &check.subject {
                Some(subject) => format!("{} {subject}: {}", check.check, check.detail),
                None => format!("{}: {}", check.check, check.detail),
            };
            let reason =
                if check.target == own.title { reason } else { format!("{}: {reason}", check.target) };
            match check.status {
                Status::Ok => {}
                Status::Warn | Status::Fail => against.push(reason),
                Status::Unverified => unknown.push(reason),
            }
        }
        let name = match guarantee {
            Delivery::ExactlyOnce => "exactly once",
            Delivery::AtLeastOnce => "at least once",
            Delivery::BestEffort => "best effort",
        };
        let (verdict, because, end) = if !against.is_empty() {
            (Word::DoesNotHold, against, "does not hold, because of ")
        } else if !unknown.is_empty() {
            (Word::Unverified, unknown, "cannot be verified, because of ")
        } else {
            (Word::Holds, Vec::new(), "holds")
        };
        let mut sentence = format!("{name} to {sink}: {end}");
        if let Some(first) = because.first() {
            sentence.push_str(first);
            match because.len() {
                1 => {}
                2 => sentence.push_str(", and 1 more reason"),
                count => {
                    let _ = write!(sentence, ", and {} more reasons", count - 1);
                }
            }
        }
        Self { sink: sink.to_owned(), guarantee, verdict, because, sentence }
    }
}

/// Everything.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) sections: Vec<Section>,
    pub(super) verdicts: Vec<Verdict>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Document<'r> {
    ok: bool,
    verdicts: &'r [Verdict],
    checks: Vec<&'r Check>,
}

impl Report {
    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.sections.iter().flat_map(|section| &section.checks)
    }

    fn count(&self, status: Status) -> usize {
        self.checks().filter(|check| check.status == status).count()
    }

    /// What the command ends with. A failure that an operator of this bridge can mend comes before an outage.
    pub(super) fn failure(&self, strict: bool) -> Option<Failure> {
        let rank = |exit: Exit| match exit {
            Exit::NoPerm => 0,
            Exit::Config => 1,
            Exit::CantCreate => 2,
            _ => 3,
        };
        let failed = self.checks().filter_map(|check| Some((check.exit?, check)));
        if let Some((exit, check)) = failed.min_by_key(|(exit, _)| rank(*exit)) {
            let count = self.count(Status::Fail);
            let more = match count - 1 {
                0 => String::new(),
                1 => " (and 1 more)".to_owned(),
                more => format!(" (and {more} more)"),
            };
            let subject = check.subject.as_ref().map(|subject| format!(" {subject}")).unwrap_or_default();
            let message = format!("{}: {}{subject}: {}{more}", check.target, check.check, check.detail);
            return Some(Failure::new(exit, message, check.hint.clone()));
        }
        let doubts = self.count(Status::Warn) + self.count(Status::Unverified);
        (strict && doubts > 0).then(|| {
            let message = match doubts {
                1 => "1 check gave a warning or could not be verified".to_owned(),
                _ => format!("{doubts} checks gave a warning or could not be verified"),
            };
            Failure::new(Exit::Config, message, "mend what they name, or leave out --strict")
        })
    }

    pub(super) fn json(&self, strict: bool) -> String {
        let document = Document {
            ok: self.failure(strict).is_none(),
            verdicts: &self.verdicts,
            checks: self.checks().collect(),
        };
        format!("{:#}\n", serde_json::json!(document))
    }

    pub(super) fn text(&self, paint: Paint) -> String {
        let name = |check: &Check| match &check.subject {
            Some(subject) => format!("{} {subject}", check.check),
            None => check.check.to_owned(),
        };
        let mut text = String::new();
        for section in self.sections.iter().filter(|section| !section.checks.is_empty()) {
            let _ = writeln!(text, "{}", section.title);
            let width = section.checks.iter().map(|check| name(check).chars().count()).max().unwrap_or(0);
            for check in &section.checks {
                let word = paint.level(check.status.level(), format!("{:10}", check.status.word()));
                let line = format!("  {word}  {:width$}  {}", name(check), check.detail);
                let _ = writeln!(text, "{}", line.trim_end());
                if !check.hint.is_empty() {
                    let _ = writeln!(text, "{:14}hint: {}", "", check.hint);
                }
            }
        }
        for verdict in &self.verdicts {
            let _ = writeln!(text, "{}", verdict.sentence);
        }
        let _ = writeln!(
            text,
            "{} ok, {} warn, {} fail, {} unverified",
            self.count(Status::Ok),
            self.count(Status::Warn),
            self.count(Status::Fail),
            self.count(Status::Unverified)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(checks: Vec<Check>) -> Section {
        let mut section = Section::new("sink lake");
        for check in checks {
            section.add(check);
        }
        section
    }

    fn sentence(checks: Vec<Check>) -> String {
        Verdict::of("lake", Delivery::ExactlyOnce, &section(checks), &[]).sentence
    }

    #[test]
    fn what_is_not_known_is_never_counted_as_right() {
        let right = || Check::ok("topic", "").bearing();
        let weak = || Check::warn("durability", "replication factor 1", "").of("via.chat").bearing();
        let unknown = || Check::unverified("write", "no answer", "").of("via.chat").bearing();
        let aside = || Check::warn("retention", "short", "");
        assert_eq!(sentence(vec![right(), aside()]), "exactly once to lake: holds");
        assert_eq!(
            sentence(vec![right(), unknown()]),
            "exactly once to lake: cannot be verified, because of write via.chat: no answer"
        );
        assert_eq!(
            sentence(vec![unknown(), weak(), weak(), weak()]),
            "exactly once to lake: does not hold, because of durability via.chat: replication factor 1, and 2 more reasons"
        );
    }

    #[test]
    fn the_failure_that_can_be_mended_here_comes_first() {
        let of = |checks, strict| {
            let report = Report { sections: vec![section(checks)], verdicts: Vec::new() };
            report.failure(strict).map(|failure| failure.exit())
        };
        let away = || Check::fail("server", Exit::Unavailable, "", "");
        let missing = || Check::fail("topic", Exit::Config, "", "");
        let refused = || Check::fail("token", Exit::NoPerm, "", "");
        assert_eq!(of(vec![away(), missing(), refused()], false), Some(Exit::NoPerm));
        assert_eq!(of(vec![away(), missing()], false), Some(Exit::Config));
        assert_eq!(of(vec![away()], true), Some(Exit::Unavailable));
        assert_eq!(of(vec![Check::warn("topic", "", "")], false), None);
        assert_eq!(of(vec![Check::unverified("topic", "", "")], true), Some(Exit::Config));
    }
}
