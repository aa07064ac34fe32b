//! Flags over environment over file.

use insta::assert_snapshot;
use secrecy::ExposeSecret;

use super::super::*;
use super::{SINK, SOURCE, load_with, wrong_with};

fn layered(text: &str, env: &[(&str, &str)], overrides: &[(&str, &str)]) -> Config {
    load_with(text, env, overrides).unwrap_or_else(|mistakes| panic!("{mistakes}")).config
}

#[test]
fn the_later_layer_wins() {
    let text = format!("{SOURCE}{SINK}[log]\nlevel = \"error\"\n");
    let level = |env: &[(&str, &str)], overrides: &[(&str, &str)]| layered(&text, env, overrides).log.level;
    let variable = ("VIADUCT__LOG__LEVEL", "warn");
    assert_eq!(level(&[], &[]), "error");
    assert_eq!(level(&[variable], &[]), "warn");
    assert_eq!(level(&[variable], &[("log.level", "debug")]), "debug");
    assert_eq!(level(&[variable], &[("log.level", "debug"), ("log.level", "trace")]), "trace");
}

#[test]
fn a_configuration_may_live_in_the_environment_alone() {
    let env = [
        ("VIADUCT__SOURCE__MAIN__API_URL", "https://acme.via.aspect-cloud.net"),
        ("VIADUCT__SOURCE__MAIN__ORG_ID", "acme"),
        ("VIADUCT__SOURCE__MAIN__MAX_EVENTS", "100"),
        ("VIADUCT__SOURCE__MAIN__AUTH__TOKEN_URL", "https://id.example.com/token"),
        ("VIADUCT__SOURCE__MAIN__AUTH__CLIENT_ID", "{ env = \"MY_ID\" }"),
        ("VIADUCT__SOURCE__MAIN__AUTH__CLIENT_SECRET", "0123"),
        ("VIADUCT__SOURCE__MAIN__AUTH__API_KEY", "1_000"),
        ("VIADUCT__SOURCE__MAIN__SESSION__RESUME", "false"),
        ("VIADUCT__SINK__OUT__TYPE", "stdout"),
        ("VIADUCT__ROUTE", "[{ match = [\"chat.*\"], sink = \"out\", to = \"chat\" }]"),
        ("MY_ID", "me"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let input = LoadInput { file: None, env: env.to_vec(), overrides: Vec::new() };
    let config = load(input).unwrap_or_else(|mistakes| panic!("{mistakes}")).config;
    let source = &config.sources[0];
    assert_eq!((source.name.as_str(), source.max_events), ("main", 100));
    assert!(!source.session.resume);
    // What looks like a number stays the text that it is where text is wanted.
    assert_eq!(source.auth.client_secret.read().unwrap().expose_secret(), "0123");
    assert_eq!(source.auth.api_key.read().unwrap().expose_secret(), "1_000");
    assert_eq!(format!("{:?}", source.auth.client_id), "SecretRef(env \"MY_ID\")");
    assert_eq!(config.routes[0].patterns[0].to_string(), "chat.*");
}

#[test]
fn names_are_matched_whatever_their_case_and_dashes() {
    let text = format!("{}{SINK}", SOURCE.replace("source.main", "source.Main-Line"));
    let config = layered(&text, &[("VIADUCT__SOURCE__MAIN_LINE__ORG_ID", "other")], &[]);
    assert_eq!(config.sources.len(), 1);
    assert_eq!((config.sources[0].name.as_str(), config.sources[0].org_id.as_str()), ("Main-Line", "other"));

    let twins = format!("{SOURCE}{}{SINK}", SOURCE.replace("source.main", "source.MAIN"));
    let config = layered(&twins, &[("VIADUCT__SOURCE__MAIN__ORG_ID", "other")], &[]);
    let orgs: Vec<_> = config.sources.iter().map(|source| source.org_id.as_str()).collect();
    assert_eq!(orgs, ["other", "acme"], "the very name wins");

    let twins = format!("{}{}{SINK}", SOURCE.replace("main", "a-b"), SOURCE.replace("main", "A_B"));
    let message = wrong_with(&twins, &[("VIADUCT__SOURCE__A_b__ORG_ID", "other")], &[]);
    assert!(message.contains("VIADUCT__SOURCE__A_b__ORG_ID: could mean several names"), "{message}");
}

#[test]
fn librdkafka_s_names_are_written_with_underscores() {
    let text = format!("{SOURCE}{SINK}[sink.lake.properties]\nsasl.password = \"from the file\"\n");
    let env = [
        ("VIADUCT__SINK__LAKE__PROPERTIES__SASL_PASSWORD", "from the environment"),
        ("VIADUCT__SINK__LAKE__PROPERTIES__SECURITY_PROTOCOL", "SASL_SSL"),
    ];
    let overrides = [("sink.lake.properties.security.protocol", "SASL_PLAINTEXT")];
    let config = layered(&text, &env, &overrides);
    let SinkKind::Kafka(kafka) = &config.sinks[0].kind else { panic!("no Kafka sink") };
    let read = |name: &str| kafka.properties[name].read().unwrap().expose_secret().to_owned();
    assert_eq!(read("sasl.password"), "from the environment");
    assert_eq!(read("security.protocol"), "SASL_PLAINTEXT");
    assert_eq!(kafka.properties.len(), 2);
}

#[test]
fn other_programs_variables_are_none_of_ours() {
    let env =
        [("VIADUCT_CONFIG", "x"), ("VIADUCT", "x"), ("viaduct__log__level", "loud"), ("LOG__LEVEL", "loud")];
    assert_eq!(layered(&format!("{SOURCE}{SINK}"), &env, &[]).log.level, "info");
}

#[test]
fn a_missing_file_says_how_to_write_one() {
    let input = LoadInput { file: Some("/nowhere/viaduct.toml".into()), ..LoadInput::default() };
    assert_snapshot!(load(input).unwrap_err(), @r"
    /nowhere/viaduct.toml: there is no such configuration file
      hint: write one with `viaduct init`, or name another with -c
    1 mistake in the configuration
    ");
}

#[test]
fn a_directory_or_a_picture_is_no_configuration() {
    let dir = tempfile::TempDir::new().unwrap();
    let load_path =
        |path: &Path| load(LoadInput { file: Some(path.into()), ..LoadInput::default() }).unwrap_err();
    assert!(load_path(dir.path()).to_string().contains("cannot be read"));
    let picture = dir.path().join("viaduct.toml");
    std::fs::write(&picture, [0xff, 0xd8, 0xff]).unwrap();
    assert!(load_path(&picture).to_string().contains("is not UTF-8 text"));
}

#[test]
fn variables_and_flags() {
    let text = format!("{SOURCE}{SINK}");
    let env = [
        ("VIADUCT__SOURCE__MAIN__MAX_EVENTS", "500"),
        ("VIADUCT__SOURCE__MAIN__ORG", "acme"),
        ("VIADUCT__SOURCE__MAIN__SESSION", "resume"),
        ("VIADUCT__SINK__LAKE__TYPE", "Kafka"),
        ("VIADUCT__SORCE__MAIN__ORG_ID", "acme"),
        ("VIADUCT__LOG____LEVEL", "info"),
        ("VIADUCT__A__B__C__D__E__F__G__H__I", "1"),
        ("VIADUCT__SOURCE__MAIN__AUTH__API_KEY__ENV", "NOT_SET"),
        ("VIADUCT_CONFIG", "not a key of the configuration"),
    ];
    let overrides = [("log.level", "loud"), ("state", "/tmp"), ("admin.port", "9464")];
    assert_snapshot!(wrong_with(&text, &env, &overrides), @r#"
    environment variable VIADUCT__A__B__C__D__E__F__G__H__I: has more levels than any key
      hint: write it like VIADUCT__SOURCE__MAIN__ORG_ID
    environment variable VIADUCT__LOG____LEVEL: has an empty level in its name
      hint: write it like VIADUCT__SOURCE__MAIN__ORG_ID
    environment variable VIADUCT__SINK__LAKE__TYPE: `type` in [sink.lake] must be one of `kafka`, `nats`, `file`, `stdout`
      hint: did you mean "kafka"?
    environment variable VIADUCT__SORCE__MAIN__ORG_ID: unknown key `sorce` in the configuration
      hint: did you mean `source`?
    environment variable VIADUCT__SOURCE__MAIN__AUTH__API_KEY__ENV: `api_key` in [source.main.auth] cannot be read: the environment variable `NOT_SET` is not set
      hint: set NOT_SET before the start
    environment variable VIADUCT__SOURCE__MAIN__MAX_EVENTS: `max_events` in [source.main] must be between 1 and 200
      hint: write max_events = 200
    environment variable VIADUCT__SOURCE__MAIN__ORG: unknown key `org` in [source.main]
      hint: did you mean `org_id`?
    environment variable VIADUCT__SOURCE__MAIN__SESSION: `session` in [source.main] must be a table, not a string
      hint: write it as a table: [source.main.session]
    command line (admin.port): unknown key `port` in [admin]
      hint: the keys here are listen, records
    command line (log.level): `level` in [log] must be one of `error`, `warn`, `info`, `debug`, `trace`, `off`, or target=level pairs
      hint: write level = "info", or "info,viaduct_poller=debug"
    command line (state): `state` in the configuration must be a table, not a string
      hint: write it as a table: [state]
    11 mistakes in the configuration
    "#);
}

#[test]
fn a_variable_inside_a_list() {
    let text = format!("{SOURCE}{SINK}[[route]]\nmatch = [\"*\"]\nsink = \"lake\"\n");
    let env = [("VIADUCT__ROUTE__0__SINK", "lake"), ("VIADUCT__SINK__LAKE__PARTITIONS", "many")];
    assert_snapshot!(wrong_with(&text, &env, &[]), @r"
    environment variable VIADUCT__ROUTE__0__SINK: reaches into a list
      hint: set the list as a whole, as a TOML value: '[{ … }, { … }]'
    environment variable VIADUCT__SINK__LAKE__PARTITIONS: `partitions` in [sink.lake] must be a whole number, not a string
      hint: write digits, without quotes
    2 mistakes in the configuration
    ");
}
