//! One Kafka broker, wherever it was found.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::process::{FOR_LOAD, Process, Seat};
use super::{container, install, topics};

/// A Kafka broker, on loopback unless the environment names another.
#[derive(Debug)]
pub struct KafkaBroker {
    bootstrap: String,
    own: Option<Mutex<Process>>,
}

impl KafkaBroker {
    /// The broker which the tests of this process share; it answers when this returns. Panics with one line where no
    /// broker can be had.
    ///
    /// Blocks the calling thread for the first time (some seconds), in a tokio runtime or outside.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<KafkaBroker> = OnceLock::new();
        SHARED.get_or_init(|| {
            if let Ok(bootstrap) = std::env::var("VIADUCT_TEST_KAFKA") {
                if let Err(error) = topics::answers(&bootstrap, 1, Duration::from_secs(10)) {
                    panic!("VIADUCT_TEST_KAFKA={bootstrap} does not answer: {error:#}");
                }
                return Self { bootstrap, own: None };
            }
            if let Ok(bootstrap) = container::start()
                && topics::answers(&bootstrap, 1, Duration::from_secs(10)).is_ok()
            {
                return Self { bootstrap, own: None };
            }
            Self::start_own()
        })
    }

    /// A broker of the test's own. Panics with one line where it cannot be had.
    pub fn start_own() -> Self {
        Self::start_with(&[])
    }

    /// A broker of the test's own with further lines in its `server.properties`, which win over the usual ones
    /// (`message.max.bytes`, `min.insync.replicas` …). Panics with one line where it cannot be had.
    pub fn start_with(properties: &[(&str, &str)]) -> Self {
        Self::launch(None, properties)
    }

    /// A broker of one's own to be measured: it runs in Java as it would in earnest, and so starts more slowly. Panics
    /// with one line where it cannot be had.
    pub fn start_for_load() -> Self {
        Self::launch(Some(FOR_LOAD), &[])
    }

    fn launch(java: Option<&'static [&'static str]>, properties: &[(&str, &str)]) -> Self {
        let started = install::class_path().and_then(|class_path| {
            let prepare = || {
                let seats = Seat::free(1)?;
                let process = Process::prepare(class_path.clone(), &seats, seats[0], properties)?;
                Ok::<_, anyhow::Error>(match java {
                    Some(java) => process.with_java(java),
                    None => process,
                })
            };
            let mut process = prepare()?;
            if process.start().is_err() {
                // Somebody else may have taken one of its ports meanwhile.
                process = prepare()?;
                process.start()?;
            }
            Ok(process)
        });
        match started {
            Ok(process) => Self { bootstrap: process.bootstrap().to_owned(), own: Some(Mutex::new(process)) },
            Err(error) => refuse(&error),
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.own
            .as_ref()
            .expect("only a broker of the test's own can be stopped and started")
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Its address for clients, `HOST:PORT`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The last lines of its log; empty where it is not a process of ours.
    pub fn log_tail(&self) -> String {
        if self.own.is_some() { self.process().log_tail() } else { String::new() }
    }

    /// SIGTERM, and waits until the process is gone. The data stays.
    pub fn stop(&self) -> Result<()> {
        self.process().stop()
    }

    /// SIGKILL, and waits until the process is gone. The data stays.
    pub fn kill(&self) -> Result<()> {
        self.process().kill()
    }

    /// Starts it again on the same port with the same data and waits until it answers.
    pub fn restart(&self) -> Result<()> {
        self.process().start().context("the broker does not come back")
    }

    /// Sends a signal by name: `STOP` freezes it with its connections open, `CONT` thaws it.
    pub fn signal(&self, name: &str) -> Result<()> {
        self.process().signal(name)
    }

    /// Runs one of Kafka's own command line tools, such as `org.apache.kafka.tools.AclCommand`, with the words given to
    /// it, and waits until it has ended. An error where it failed.
    pub fn tool(&self, class: &str, words: &[&str]) -> Result<()> {
        let class_path = install::class_path()?;
        let output = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", &class_path, class])
            .args(words)
            .output()
            .context("cannot run java")?;
        ensure!(
            output.status.success(),
            "{class} failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Drop for KafkaBroker {
    /// A test that fails shows what its own broker complained of.
    fn drop(&mut self) {
        if self.own.is_some() && std::thread::panicking() {
            eprintln!("complaints of the broker at {}:\n{}", self.bootstrap, self.process().complaints());
        }
    }
}

/// Ends the test: no broker can be had.
pub(super) fn refuse(error: &anyhow::Error) -> ! {
    panic!(
        "no Kafka broker for the tests: install Java 17 and Maven (Debian: openjdk-17-jre-headless, maven) with access to \
         Maven Central, or set VIADUCT_TEST_KAFKA=HOST:PORT: {error:#}"
    )
}
