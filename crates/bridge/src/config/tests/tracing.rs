//! `[tracing]`: what it accepts, and what it refuses in which words.

use insta::assert_snapshot;
use secrecy::ExposeSecret;

use super::{SINK, SOURCE, doubts, load_with, right, wrong};

#[test]
fn it_is_off_unless_an_endpoint_is_given() {
    assert!(right(&format!("{SOURCE}{SINK}")).config.tracing.is_none());
    assert!(right(&format!("{SOURCE}{SINK}[tracing]\notlp_endpoint = \"off\"")).config.tracing.is_none());
    let text = format!("{SOURCE}{SINK}[tracing]\notlp_endpoint = \"http://localhost:4318\"\n");
    let off = load_with(&text, &[("VIADUCT__TRACING__OTLP_ENDPOINT", "off")], &[]);
    assert!(off.unwrap().config.tracing.is_none());
    let variable =
        load_with(&format!("{SOURCE}{SINK}"), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x:4318")], &[]);
    assert!(variable.unwrap().config.tracing.is_none(), "a variable for other programs changes no record");
}

#[test]
fn every_key() {
    let text = format!(
        "{SOURCE}{SINK}[tracing]\notlp_endpoint = \"https://otel.example.com/otlp/\"\nsample_ratio = 0.25\n\
         service_name = \"bridge\"\n[tracing.headers]\nAuthorization = {{ env = \"OTLP_AUTH\" }}\nx-team = \"ops\"\n"
    );
    let tracing =
        load_with(&text, &[("OTLP_AUTH", "Basic aHVudGVyMg==")], &[]).unwrap().config.tracing.unwrap();
    assert_eq!(tracing.endpoint.as_str(), "https://otel.example.com/otlp/v1/traces");
    assert_eq!(tracing.sample_ratio, 0.25);
    assert_eq!(tracing.service_name.as_deref(), Some("bridge"));
    let names: Vec<&str> = tracing.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["authorization", "x-team"]);
    assert_eq!(tracing.headers[1].1.read().unwrap().expose_secret(), "ops");
    for (ratio, expected) in [("1", 1.0), ("0", 0.0), ("0.001", 0.001)] {
        let text = format!("{SOURCE}{SINK}[tracing]\notlp_endpoint = \"http://c:4318/v1/traces\"\n");
        let tracing = load_with(&text, &[("VIADUCT__TRACING__SAMPLE_RATIO", ratio)], &[])
            .unwrap()
            .config
            .tracing
            .unwrap();
        assert_eq!(tracing.sample_ratio, expected);
        assert_eq!(tracing.endpoint.path(), "/v1/traces");
    }
}

#[test]
fn mistakes() {
    let tracing = |text: &str| wrong(&format!("{SOURCE}{SINK}[tracing]\n{text}"));
    assert_snapshot!(tracing("sample_rate = 0.5"), @r#"
    viaduct.toml:14:1: `otlp_endpoint` in [tracing] is missing
      hint: add otlp_endpoint = "http://localhost:4318"
    viaduct.toml:15:1: unknown key `sample_rate` in [tracing]
      hint: did you mean `sample_ratio`?
    2 mistakes in the configuration
    "#);
    assert_snapshot!(tracing("otlp_endpoint = \"localhost:4318\"\nsample_ratio = 10\nservice_name = \"\""), @r#"
    viaduct.toml:15:17: `otlp_endpoint` in [tracing] must be an http or https URL, or "off"
      hint: write otlp_endpoint = "http://localhost:4318"
    viaduct.toml:16:16: `sample_ratio` in [tracing] must be between 0 and 1
      hint: write sample_ratio = 0.1 for every tenth poll
    viaduct.toml:17:16: `service_name` in [tracing] is empty
      hint: write service_name = "viaduct"
    3 mistakes in the configuration
    "#);
    assert_snapshot!(tracing("otlp_endpoint = \"http://me:hunter2@localhost:4318\""), @r#"
    viaduct.toml:15:17: `otlp_endpoint` in [tracing] contains credentials
      hint: write them as [tracing.headers] Authorization = { env = "NAME" }
    1 mistake in the configuration
    "#);
    assert_snapshot!(tracing("otlp_endpoint = \"http://localhost:4318?key=hunter2\""), @"
    viaduct.toml:15:17: `otlp_endpoint` in [tracing] has a query or a fragment
      hint: remove what follows `?` or `#`
    1 mistake in the configuration
    ");
    assert_snapshot!(
        tracing("otlp_endpoint = \"http://localhost:4318\"\n[tracing.headers]\n\"a b\" = \"x\"\nc = \"ä\\u0001\"\nd = { env = \"UNSET\" }"),
        @"
        viaduct.toml:17:9: `a b` in [tracing.headers] is no name of an HTTP header
          hint: use letters, digits and `-`
        viaduct.toml:18:5: `c` in [tracing.headers] has characters that no HTTP header can have
          hint: write one line of ASCII
        viaduct.toml:19:13: `d` in [tracing.headers] cannot be read: the environment variable `UNSET` is not set
          hint: set UNSET before the start
        3 mistakes in the configuration
        "
    );
}

#[test]
fn the_port_of_grpc_is_doubtful() {
    assert_snapshot!(doubts(&format!("{SOURCE}{SINK}[tracing]\notlp_endpoint = \"http://localhost:4317\"")), @"
    viaduct.toml:15:17: `otlp_endpoint` in [tracing] has the port of OTLP over gRPC, which is not spoken here
      hint: use OTLP over HTTP, which collectors take at port 4318
    ");
}
