//! The layers over the file: environment variables, then flags.
//!
//! `VIADUCT__SOURCE__MAIN__ORG_ID=acme` sets `org_id` in `[source.main]`: after the prefix, `__` stands between levels,
//! and names are lower-cased. A level means an existing key of the same letters, whatever their case, with `-` and `.`
//! counting as `_` (`VIADUCT__SINK__MY_LAKE__TYPE` sets `type` in `[sink.my-lake]` if there is such a sink); otherwise
//! it makes a new one. Inside `properties` of a sink every `_` stands for the `.` of librdkafka's names:
//! `VIADUCT__SINK__LAKE__PROPERTIES__SASL_PASSWORD`. A value replaces the one below it as a whole; lists are set as a
//! whole too (`VIADUCT__SOURCE__MAIN__SESSION__END_EVENTS='["a", "b"]'`).

use super::mistake::{Mistake, Place};
use super::tree::{Entry, Node, Origins, Table, Value, parse_value};

/// What the names of our variables start with.
const PREFIX: &str = "VIADUCT__";

/// No key of the configuration is deeper than this.
const MAX_LEVELS: usize = 8;

/// One value to lay over the tree.
struct Layer<'a> {
    place: Place,
    levels: Vec<String>,
    value: &'a str,
}

/// Lays the variables, then the flags over the tree.
pub(super) fn apply(
    root: &mut Node,
    env: &[(String, String)],
    overrides: &[(String, String)],
    origins: &mut Origins,
) -> Vec<Mistake> {
    let mut variables: Vec<_> = env.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    // The environment has no order of its own; the same one at every start. Short names first, so that a table as a
    // whole does not wipe out a key inside it.
    variables.sort();
    let variables = variables.into_iter().map(|(name, value)| Layer {
        place: Place::Variable { variable: name.clone() },
        levels: name[PREFIX.len()..].to_lowercase().split("__").map(str::to_owned).collect(),
        value,
    });
    let flags = overrides.iter().map(|(key, value)| Layer {
        place: Place::Flag { flag: key.clone() },
        levels: key.split('.').map(str::to_owned).collect(),
        value,
    });
    let mut mistakes = Vec::new();
    for layer in variables.chain(flags) {
        let place = layer.place.clone();
        if let Err((message, hint)) = lay(root, layer, origins) {
            mistakes.push(Mistake { place, message: message.to_owned(), hint: hint.to_owned() });
        }
    }
    mistakes
}

type Refused = (&'static str, &'static str);

fn lay(root: &mut Node, layer: Layer<'_>, origins: &mut Origins) -> Result<(), Refused> {
    let levels = librdkafka_name(&layer);
    if levels.len() > MAX_LEVELS {
        return Err(("has more levels than any key", "write it like VIADUCT__SOURCE__MAIN__ORG_ID"));
    }
    if levels.iter().any(String::is_empty) {
        return Err(("has an empty level in its name", "write it like VIADUCT__SOURCE__MAIN__ORG_ID"));
    }
    let at = origins.add(layer.place);
    let mut node = root;
    for level in &levels {
        if matches!(node.value, Value::List(_)) {
            return Err((
                "reaches into a list",
                "set the list as a whole, as a TOML value: '[{ … }, { … }]'",
            ));
        }
        if !matches!(node.value, Value::Table(_)) {
            node.value = Value::Table(Table::default());
            node.at = at;
        }
        let Value::Table(table) = &mut node.value else { return Ok(()) };
        let index = match find(table, level)? {
            Some(index) => index,
            None => {
                let empty = Node { value: Value::Table(Table::default()), at, text: None };
                table.0.push(Entry { key: level.clone(), at, node: empty });
                table.0.len() - 1
            }
        };
        node = &mut table.0[index].node;
    }
    *node = parse_value(layer.value, at);
    Ok(())
}

/// The levels, with what stands behind `sink.<name>.properties` as one librdkafka name.
fn librdkafka_name(layer: &Layer<'_>) -> Vec<String> {
    let mut levels = layer.levels.clone();
    if levels.len() > 3 && levels[0] == "sink" && levels[2] == "properties" {
        let mut name = levels.split_off(3).join(".");
        if matches!(layer.place, Place::Variable { .. }) {
            name = name.replace('_', ".");
        }
        levels.push(name);
    }
    levels
}

/// The key that a level means: the very same, or else the only one of the same letters.
fn find(table: &Table, level: &str) -> Result<Option<usize>, Refused> {
    if let Some(index) = table.0.iter().position(|entry| entry.key == level) {
        return Ok(Some(index));
    }
    let fold = |name: &str| name.to_lowercase().replace(['-', '.'], "_");
    let mut same = (0..table.0.len()).filter(|&index| fold(&table.0[index].key) == fold(level));
    match (same.next(), same.next()) {
        (Some(_), Some(_)) => {
            Err(("could mean several names", "rename one of them: they differ only in case, `-` and `_`"))
        }
        (found, _) => Ok(found),
    }
}

/// Tables whose keys are names with dots in them: `[sink.<name>.properties]` with `security.protocol = …`, and
/// `[mask.fields]` with `screenData.ani = …`, which TOML takes for a table in a table. They become flat. Before any
/// layer, so that a variable replaces the file's value however that one was written.
pub(super) fn flatten_names(root: &mut Node, origins: &Origins) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let Some(root) = inner(root) else { return mistakes };
    for entry in &mut root.0 {
        match entry.key.as_str() {
            "sink" => {
                for sink in inner(&mut entry.node).into_iter().flat_map(|sinks| sinks.0.iter_mut()) {
                    flatten_key(&mut sink.node, "properties", origins, &mut mistakes);
                }
            }
            "mask" => flatten_key(&mut entry.node, "fields", origins, &mut mistakes),
            _ => {}
        }
    }
    mistakes
}

/// Makes the table under `key` in `table` a flat one.
fn flatten_key(table: &mut Node, key: &str, origins: &Origins, mistakes: &mut Vec<Mistake>) {
    let Some(table) = inner(table) else { return };
    for entry in table.0.iter_mut().filter(|entry| entry.key == key) {
        let Some(nested) = inner(&mut entry.node) else { continue };
        let mut flat = Table::default();
        flatten(std::mem::take(nested), "", &mut flat, &mut |entry: &Entry| {
            mistakes.push(Mistake {
                place: origins.place(entry.at),
                message: format!("duplicate key `{}`", entry.key),
                hint: "keep one of the two".to_owned(),
            });
        });
        *nested = flat;
    }
}

fn inner(node: &mut Node) -> Option<&mut Table> {
    match &mut node.value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

fn flatten(nested: Table, prefix: &str, flat: &mut Table, duplicate: &mut impl FnMut(&Entry)) {
    for mut entry in nested.0 {
        let key = if prefix.is_empty() { entry.key } else { format!("{prefix}.{}", entry.key) };
        entry.key = key;
        match entry.node.value {
            Value::Table(table) if !is_reference(&table) => flatten(table, &entry.key, flat, duplicate),
            _ if flat.get(&entry.key).is_some() => duplicate(&entry),
            _ => flat.0.push(entry),
        }
    }
}

/// `{ env = … }` and `{ file = … }`: no librdkafka property ends in either word.
fn is_reference(table: &Table) -> bool {
    !table.0.is_empty() && table.0.iter().all(|entry| entry.key == "env" || entry.key == "file")
}
