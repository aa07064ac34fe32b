//! `viaduct check`: everything that is wrong with a configuration, or what a right one means.

mod online;
mod routes;
mod summary;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::Write;

use serde::Serialize;

use self::routes::RouteTable;
use self::summary::Summary;

use crate::cli::CheckArgs;
use crate::config::{LoadInput, Mistake, Mistakes, load};
use crate::exit::{Exit, Failure};

/// Checks, with `online` against what is really there.
///
/// # Errors
/// Those of [`check`] and of [`online::online`].
pub(crate) async fn check_online(args: &CheckArgs, out: &mut impl Write) -> Result<(), Failure> {
    match load(args.config.load_input()?) {
        Ok(loaded) => online::online(&loaded, args.strict, args.json, out).await,
        // As without `--online`.
        Err(_) => check(args, out),
    }
}

/// Checks without a network: prints what the configuration means and what is doubtful about it.
///
/// # Errors
/// 78 with all mistakes; with `strict` also where there are only warnings. With `json` the mistakes are part of the
/// output, and the failure only counts them.
pub(crate) fn check(args: &CheckArgs, out: &mut impl Write) -> Result<(), Failure> {
    let show = Show { strict: args.strict, json: args.json, routes: args.routes };
    report(args.config.load_input()?, show, out)
}

/// What `check --routes` prints of a configuration.
#[cfg(test)]
pub(crate) fn routes_of(config: &crate::config::Config) -> String {
    RouteTable::of(config).to_string()
}

/// How the report is to be.
#[derive(Debug, Clone, Copy, Default)]
struct Show {
    strict: bool,
    json: bool,
    routes: bool,
}

fn report(input: LoadInput, show: Show, out: &mut impl Write) -> Result<(), Failure> {
    let Show { strict, json, routes } = show;
    let (report, failure) = match load(input) {
        Ok(loaded) => {
            let count = loaded.warnings.len();
            let failure = (strict && count > 0).then(|| {
                let message =
                    format!("{count} warning{} in the configuration", if count == 1 { "" } else { "s" });
                Failure::new(Exit::Config, message, "mend them, or leave out --strict")
            });
            // For a person the table takes the place of the summary.
            let summary = (json || !routes).then(|| Summary::of(&loaded.config));
            let event_types = routes.then(|| RouteTable::of(&loaded.config));
            (
                Report {
                    ok: failure.is_none(),
                    mistakes: None,
                    warnings: loaded.warnings,
                    summary,
                    event_types,
                },
                failure,
            )
        }
        Err(mistakes) if json => {
            let count = mistakes.all().len();
            let message =
                format!("{count} mistake{} in the configuration", if count == 1 { "" } else { "s" });
            let failure = Failure::new(Exit::Config, message, "");
            (
                Report {
                    ok: false,
                    mistakes: Some(mistakes),
                    warnings: Vec::new(),
                    summary: None,
                    event_types: None,
                },
                Some(failure),
            )
        }
        Err(mistakes) => return Err(mistakes.into()),
    };
    let text = if json {
        serde_json::to_string_pretty(&report).map(|text| text + "\n").map_err(|error| {
            Failure::new(
                Exit::Software,
                format!("the report cannot be written as JSON: {error}"),
                "please report this",
            )
        })?
    } else {
        report.to_string()
    };
    out.write_all(text.as_bytes()).map_err(|error| Failure::output("the report", &error))?;
    failure.map_or(Ok(()), Err)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    mistakes: Option<Mistakes>,
    warnings: Vec<Mistake>,
    #[serde(flatten)]
    summary: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_types: Option<RouteTable>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(summary) = &self.summary {
            summary.fmt(f)?;
        }
        if let Some(table) = &self.event_types {
            table.fmt(f)?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        match self.warnings.len() {
            0 => writeln!(f, "the configuration is right"),
            1 => writeln!(f, "the configuration is right, with 1 warning"),
            count => writeln!(f, "the configuration is right, with {count} warnings"),
        }
    }
}
