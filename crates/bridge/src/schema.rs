//! `viaduct schema`: the formats that other programs depend on, for machines.

mod asyncapi;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::Value;
use viaduct_catalogue::{EventType, bundle, events, find, markdown, payload_schema};

use crate::cli::{AsyncApiArgs, ConfigSchemaArgs, EventSchemaArgs, SchemaCommand};
use crate::config::{self, closest};
use crate::exit::{Exit, Failure};

/// Prints a schema.
///
/// # Errors
/// 64 for an unknown event type, 78 for a wrong configuration, 73 where nothing can be written.
pub(crate) fn schema(command: &SchemaCommand, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        SchemaCommand::Config(ConfigSchemaArgs { markdown: true }) => print_text(&config::reference(), out),
        SchemaCommand::Config(ConfigSchemaArgs { markdown: false }) => print(&config::json_schema(), out),
        SchemaCommand::Events(args) => event_schemas(args, out),
        SchemaCommand::Asyncapi(AsyncApiArgs { config }) => {
            let loaded = config::load(config.load_input()?)?;
            print(&asyncapi::document(&loaded.config), out)
        }
    }
}

fn event_schemas(args: &EventSchemaArgs, out: &mut impl Write) -> Result<(), Failure> {
    if args.markdown {
        return print_text(&markdown(), out);
    }
    match (&args.event_type, &args.dir) {
        (Some(name), _) => print(&payload_schema(known(name)?), out),
        (None, Some(dir)) => write_all(dir, out),
        (None, None) => print(&bundle(), out),
    }
}

fn known(name: &str) -> Result<&'static EventType, Failure> {
    find(name).ok_or_else(|| {
        let hint = match closest(name, events().iter().map(|event| event.event_type.as_str())) {
            Some(near) => format!("did you mean {near}?"),
            None => "docs/events.md lists them".to_owned(),
        };
        Failure::new(Exit::Usage, format!("{name} is no event type of the vendor's document"), hint)
    })
}

/// A file per event type.
fn write_all(dir: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let failed = |error| unwritable(&dir.display().to_string(), &error);
    fs::create_dir_all(dir).map_err(failed)?;
    for event in events() {
        let path = dir.join(format!("{}.schema.json", event.event_type));
        fs::write(path, text(&payload_schema(event))).map_err(failed)?;
    }
    // The files are what counts.
    let _ = writeln!(out, "wrote {} schemas to {}", events().len(), dir.display());
    Ok(())
}

fn print(value: &Value, out: &mut impl Write) -> Result<(), Failure> {
    print_text(&text(value), out)
}

fn print_text(text: &str, out: &mut impl Write) -> Result<(), Failure> {
    out.write_all(text.as_bytes()).map_err(|error| unwritable("standard output", &error))
}

fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

fn unwritable(what: &str, error: &std::io::Error) -> Failure {
    Failure::new(
        Exit::CantCreate,
        format!("the schema cannot be written to {what}: {error}"),
        "check the place, or choose another one",
    )
}
