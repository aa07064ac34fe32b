//! The command line. A wrong one ends with 64 (sysexits `EX_USAGE`), not with clap's own 2.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use url::Url;
use viaduct_simulator::SimulateArgs;

use crate::config::{LoadInput, Pattern};
use crate::dlq::DlqCommand;
use crate::exit::{Exit, Failure};

/// Where `viaduct simulate` listens unless told otherwise, and where `viaduct init --simulator` looks for it.
pub(crate) const SIMULATOR_ADDRESS: &str = "127.0.0.1:8900";

/// A bridge from the Alvaria Cloud event stream to Kafka and NATS JetStream.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the bridge until SIGTERM or SIGINT
    ///
    /// Stops polling then, waits for publishes in flight, acknowledges and saves its state. A second signal ends it at
    /// once.
    Run(RunArgs),
    /// Show everything working, with nothing installed or configured
    ///
    /// Starts the vendor's simulator, an in-memory Kafka and the bridge between them. With --kafka or --nats the events
    /// flow into a real broker instead.
    Demo(DemoArgs),
    /// Run the vendor's simulator alone, to develop against
    Simulate(Box<SimulateArgs>),
    /// Read the configuration and report everything that is wrong with it
    ///
    /// With --online also everything that it names: the vendor, the brokers, topics and streams, permissions, durability.
    Check(CheckArgs),
    /// Write a commented configuration file
    Init(InitArgs),
    /// Show the state of a running bridge on one screen
    Status(StatusArgs),
    /// Follow the events of a running bridge; payloads and keys are not shown
    Tap(TapArgs),
    /// Print shell completions, as in: viaduct completions bash > /etc/bash_completion.d/viaduct
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page per command into a folder
    Man {
        /// The folder, which has to exist
        #[arg(short, long, value_name = "FOLDER")]
        output: Option<PathBuf>,
    },
    /// Show, plan and apply the subscriptions of a source's session
    Subscriptions {
        /// What to do with them.
        #[command(subcommand)]
        command: SubscriptionsCommand,
    },
    /// List, show and replay dead letters
    Dlq {
        /// What to do with them.
        #[command(subcommand)]
        command: DlqCommand,
    },
    /// Print schemas: of the configuration, of the events, of the topics and subjects
    Schema {
        /// Which one.
        #[command(subcommand)]
        command: SchemaCommand,
    },
}

/// `viaduct subscriptions`
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionsCommand {
    /// Show what stands in the session
    List(SubscriptionsArgs),
    /// Show what would turn it into what is declared
    Plan(SubscriptionsArgs),
    /// Do that now
    ///
    /// `viaduct run` does it by itself for every new session, before the first events are fetched.
    Apply(ApplyArgs),
}

/// Which of the subscription commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubscriptionsVerb {
    /// `list`
    List,
    /// `plan`
    Plan,
    /// `apply`
    Apply,
}

impl SubscriptionsCommand {
    /// What they have in common.
    pub(crate) const fn args(&self) -> &SubscriptionsArgs {
        match self {
            Self::List(args) | Self::Plan(args) => args,
            Self::Apply(args) => &args.common,
        }
    }

    /// Which one.
    pub(crate) const fn verb(&self) -> SubscriptionsVerb {
        match self {
            Self::List(_) => SubscriptionsVerb::List,
            Self::Plan(_) => SubscriptionsVerb::Plan,
            Self::Apply(_) => SubscriptionsVerb::Apply,
        }
    }
}

/// `viaduct subscriptions list|plan`
#[derive(Debug, Args)]
pub(crate) struct SubscriptionsArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Only this source [default: all of them]
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `viaduct subscriptions apply`
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// What it has in common with the others.
    #[command(flatten)]
    pub(crate) common: SubscriptionsArgs,
    /// Apply them to a new session, which is deleted again: shows whether the vendor accepts them
    #[arg(long)]
    pub(crate) trial: bool,
}

/// `viaduct schema`
#[derive(Debug, Subcommand)]
pub(crate) enum SchemaCommand {
    /// JSON Schema of the configuration, for editors
    Config,
    /// JSON Schemas of the event payloads, all in one document
    Events(EventSchemaArgs),
    /// AsyncAPI 3 document of the topics and subjects that a configuration leads to
    Asyncapi(AsyncApiArgs),
}

/// `viaduct schema events`
#[derive(Debug, Args)]
pub(crate) struct EventSchemaArgs {
    /// Only this type, as in engagementCenter.Idle
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "dir")]
    pub(crate) event_type: Option<String>,
    /// Write a file per type into this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Print a page for people instead
    #[arg(long, conflicts_with_all = ["event_type", "dir"])]
    pub(crate) markdown: bool,
}

/// `viaduct schema asyncapi`
#[derive(Debug, Args)]
pub(crate) struct AsyncApiArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// `viaduct run`
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Poll and route, print the records, publish and acknowledge nothing
    ///
    /// Ends at SIGTERM or SIGINT, or when it has shown as many events as the source may hold unacknowledged. The vendor
    /// delivers all of them again to the next run.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Where the configuration comes from. Precedence: flags, then VIADUCT__… variables, then the file.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigArgs {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = "viaduct.toml", env = "VIADUCT_CONFIG")]
    pub(crate) config: PathBuf,
    /// Set a key of the configuration, as in --set source.main.org_id=acme (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Set log.level: error, warn, info, debug, trace, off, or target=level pairs
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// Set log.format: auto, text or json
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

impl ConfigArgs {
    /// What to load: the file, this process's environment, and these flags.
    ///
    /// # Errors
    /// A `--set` without `=`. Its text is not repeated (clap would): it may hold a secret.
    pub(crate) fn load_input(&self) -> Result<LoadInput, Failure> {
        let mut overrides = Vec::new();
        for (index, text) in self.set.iter().enumerate() {
            match text.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    overrides.push((key.trim().to_owned(), value.trim().to_owned()));
                }
                _ => {
                    return Err(Failure::new(
                        Exit::Usage,
                        format!("--set number {} is not KEY=VALUE", index + 1),
                        "write it as in --set log.level=debug",
                    ));
                }
            }
        }
        for (key, value) in [("log.level", &self.log_level), ("log.format", &self.log_format)] {
            overrides.extend(value.clone().map(|value| (key.to_owned(), value)));
        }
        Ok(LoadInput::of_process(&self.config, overrides))
    }
}

/// `viaduct demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Publish to this Kafka instead of the in-memory one
    #[arg(long, value_name = "HOST:PORT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) kafka: Option<String>,
    /// Publish to this NATS server with JetStream
    #[arg(long, value_name = "URL")]
    pub(crate) nats: Option<Url>,
    /// Events per second, in total
    #[arg(long, value_name = "N", default_value = "50", value_parser = rate)]
    pub(crate) rate: f64,
    /// End after this many events [default: none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: Option<u64>,
    /// End after this time, as in 10s [default: none]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
}

/// `viaduct check`
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The configuration.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Try everything that the configuration names, and say whether the guarantee holds
    ///
    /// Works in a session of its own, which is deleted again, and fetches no events: a running bridge is not disturbed.
    #[arg(long, conflicts_with = "routes")]
    pub(crate) online: bool,
    /// Show where each of the documented event types would go
    #[arg(long)]
    pub(crate) routes: bool,
    /// Treat warnings as mistakes (exit 78); with --online also what cannot be verified
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which running bridge to look into.
#[derive(Debug, Args)]
pub(crate) struct BridgeArgs {
    /// The bridge's configuration, which says where its admin port is.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// Address of its admin port; the configuration is not read then
    #[arg(long, value_name = "HOST:PORT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) admin: Option<String>,
}

/// `viaduct status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Which one.
    #[command(flatten)]
    pub(crate) bridge: BridgeArgs,
    /// Show it again each second
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Print JSON, on one line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `viaduct tap`
#[derive(Debug, Args)]
pub(crate) struct TapArgs {
    /// Which one.
    #[command(flatten)]
    pub(crate) bridge: BridgeArgs,
    /// Print each event as a line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Show the records themselves: destination, key, headers, value; covered unless the bridge has admin.records = "clear"
    #[arg(long)]
    pub(crate) records: bool,
    /// Only events of this source
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Option<String>,
    /// Only events whose type fits, as in 'engagementCenter.*'
    #[arg(long = "type", value_name = "PATTERN", value_parser = pattern)]
    pub(crate) event_type: Option<String>,
    /// Only what goes to this sink
    #[arg(long, value_name = "NAME")]
    pub(crate) sink: Option<String>,
    /// End after this many events [default: none]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: Option<u64>,
}

/// `viaduct init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// With a Kafka sink
    #[arg(long)]
    pub(crate) kafka: bool,
    /// With a NATS JetStream sink
    #[arg(long)]
    pub(crate) nats: bool,
    /// With `viaduct simulate` as the vendor: runs as it is
    #[arg(long)]
    pub(crate) simulator: bool,
    /// Where to write it
    #[arg(short, long, value_name = "FILE", default_value = "viaduct.toml")]
    pub(crate) output: PathBuf,
}

/// Reads the command line of this process.
///
/// # Errors
/// The exit code after help, version or a mistake, which is printed already.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        // Nothing is left to tell it to when even this cannot be written.
        let _ = error.print();
        exit_of(error.kind()).into()
    })
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
        _ => Exit::Usage,
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("write a number above 0".to_owned()),
    }
}

/// A pattern that some event type may match.
fn pattern(text: &str) -> Result<String, String> {
    Pattern::parse(text).map(|pattern| pattern.as_str().to_owned()).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::config::duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "write a time such as 10s, 500ms or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run_with(arguments: &[&str]) -> ConfigArgs {
        let all = ["viaduct", "run"].into_iter().chain(arguments.iter().copied());
        match Cli::try_parse_from(all).map(|cli| cli.command) {
            Ok(Command::Run(run)) => run.config,
            other => panic!("not `run`: {other:?}"),
        }
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_keys() {
        let args = run_with(&["--set", "bridge.name = edge", "--log-level", "debug", "-c", "other.toml"]);
        let input = args.load_input().unwrap();
        assert_eq!(input.file, Some(PathBuf::from("other.toml")));
        let keys: Vec<_> = input.overrides.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(keys, ["bridge.name=edge", "log.level=debug"]);
    }

    #[test]
    fn a_flag_that_sets_nothing_is_not_repeated() {
        let failure = run_with(&["--set", "a=b", "--set", "hunter2"]).load_input().err().expect("a failure");
        assert_eq!(failure.exit(), Exit::Usage);
        insta::assert_snapshot!(failure, @r"
        --set number 2 is not KEY=VALUE
          hint: write it as in --set log.level=debug
        ");
    }

    #[test]
    fn the_simulator_is_where_init_expects_it() {
        let cli = Cli::try_parse_from(["viaduct", "simulate"]).unwrap();
        let Command::Simulate(simulate) = cli.command else { panic!("not `simulate`") };
        assert_eq!(simulate.listen.to_string(), SIMULATOR_ADDRESS);
        assert_eq!(simulate.org, "acme");
    }

    #[test]
    fn a_wrong_command_line_is_64_and_help_is_0() {
        let exit = |arguments: &[&str]| exit_of(Cli::try_parse_from(arguments).unwrap_err().kind());
        assert_eq!(exit(&["viaduct", "--help"]), Exit::Ok);
        assert_eq!(exit(&["viaduct", "--version"]), Exit::Ok);
        assert_eq!(exit(&["viaduct"]), Exit::Usage);
        assert_eq!(exit(&["viaduct", "rnu"]), Exit::Usage);
        assert_eq!(exit(&["viaduct", "demo", "--rate", "-1"]), Exit::Usage);
        assert_eq!(exit(&["viaduct", "demo", "--duration", "0s"]), Exit::Usage);
    }
}
