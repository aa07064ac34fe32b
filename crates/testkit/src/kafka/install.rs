//! Apache Kafka's jars, fetched once from Maven Central into `target/brokers/`.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::native::brokers_dir;

/// The version that the tests run against.
pub(super) const VERSION: &str = "4.3.1";

/// The Java class path of the broker and its tools; installs the jars when they are not there yet.
///
/// Several test binaries may do this at the same time: a lock lets one of them work, and its rename makes the directory
/// appear as a whole.
pub fn class_path() -> Result<String> {
    let home = brokers_dir().join(format!("kafka-{VERSION}"));
    let libs = home.join("libs");
    if !libs.is_dir() {
        fs::create_dir_all(brokers_dir())?;
        let lock = File::create(brokers_dir().join(format!("kafka-{VERSION}.lock")))?;
        lock.lock().context("cannot lock the directory of the brokers")?;
        if !libs.is_dir() {
            download(&home)?;
        }
    }
    // Java expands the asterisk itself.
    Ok(libs.canonicalize()?.join("*").display().to_string())
}

fn download(home: &PathBuf) -> Result<()> {
    let workshop = tempfile::tempdir_in(brokers_dir())?;
    let ready = workshop.path().join("ready");
    fs::create_dir(&ready)?;
    fs::write(ready.join("pom.xml"), pom())?;
    let output = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies"])
        .arg(format!("-DoutputDirectory={}", ready.canonicalize()?.join("libs").display()))
        .current_dir(&ready)
        .output()
        .context("cannot run mvn")?;
    ensure!(
        output.status.success(),
        "mvn failed: {}",
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default()
    );
    fs::rename(&ready, home).with_context(|| format!("cannot move Kafka to {}", home.display()))
}

fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str| {
        format!(
            "    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version></dependency>\n"
        )
    };
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\">\n  <modelVersion>4.0.0</modelVersion>\n  \
         <groupId>viaduct</groupId>\n  <artifactId>kafka-for-tests</artifactId>\n  <version>1</version>\n  \
         <dependencies>\n{}{}{}  </dependencies>\n</project>\n",
        dependency("org.apache.kafka", "kafka_2.13", VERSION),
        dependency("org.apache.kafka", "kafka-tools", VERSION),
        dependency("org.slf4j", "slf4j-simple", "1.7.36"),
    )
}
