//! The native broker: its configuration, its Java process, its log.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::topics;
use crate::native::{Tethered, free_port};

/// How long a broker may take to answer. It starts in three seconds on a quiet machine.
const START: Duration = Duration::from_secs(90);
/// How long a broker may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(30);

/// A node's place in its cluster: it is broker and controller at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    id: usize,
    port: u16,
    controller: u16,
}

impl Seat {
    /// Free ports for the nodes of a cluster of this size, numbered from 1.
    pub(super) fn free(size: usize) -> Result<Vec<Self>> {
        (1..=size).map(|id| Ok(Self { id, port: free_port()?, controller: free_port()? })).collect()
    }
}

/// A broker's directory and, while it runs, its process.
#[derive(Debug)]
pub(super) struct Process {
    bootstrap: String,
    class_path: String,
    java: &'static [&'static str],
    dir: TempDir,
    running: Option<Tethered>,
}

/// What a broker of the tests asks of Java: to start quickly and to be small.
const FOR_TESTS: &[&str] = &["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
/// What a broker that is measured asks of Java: what Kafka's own start script does, with a heap of one size.
pub(super) const FOR_LOAD: &[&str] =
    &["-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"];

impl Process {
    /// Formats a new data directory for `own`, one of the nodes of `cluster`. A killed broker may come back when its old
    /// session has ended, hence the short one. Nothing is ever discarded, though tests write records with timestamps of
    /// long ago.
    ///
    /// `properties` stand behind the defaults in `server.properties` and win over them; `{listeners}` in a value stands for
    /// the usual listeners, to add one to them.
    pub(super) fn prepare(
        class_path: String,
        cluster: &[Seat],
        own: Seat,
        properties: &[(&str, &str)],
    ) -> Result<Self> {
        let dir = TempDir::new()?;
        let Seat { id, port, controller } = own;
        let bootstrap = format!("127.0.0.1:{port}");
        let voters: Vec<_> =
            cluster.iter().map(|seat| format!("{}@127.0.0.1:{}", seat.id, seat.controller)).collect();
        let mut text = format!(
            "process.roles=broker,controller\nnode.id={id}\n\
             controller.quorum.voters={}\n\
             listeners=PLAINTEXT://{bootstrap},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\nnum.partitions=1\nlog.retention.ms=-1\n\
             broker.heartbeat.interval.ms=500\nbroker.session.timeout.ms=3000\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n",
            voters.join(","),
            dir.path().join("data").display()
        );
        let listeners = format!("PLAINTEXT://{bootstrap},CONTROLLER://127.0.0.1:{controller}");
        for (name, value) in properties {
            writeln!(text, "{name}={}", value.replace("{listeners}", &listeners))?;
        }
        let process = Self { bootstrap, class_path, java: FOR_TESTS, dir, running: None };
        fs::write(process.settings(), text)?;
        process.format()?;
        Ok(process)
    }

    /// To be started with these options of Java instead of [`FOR_TESTS`].
    pub(super) fn with_java(self, java: &'static [&'static str]) -> Self {
        Self { java, ..self }
    }

    fn format(&self) -> Result<()> {
        // A cluster id is 16 bytes in base64; a fixed one will do for clusters that know nothing of each other.
        let output = Command::new("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", &self.class_path, "kafka.tools.StorageTool"])
            .args(["format", "-t", "VmlhZHVjdFRlc3RzMDAwMQ", "-c"])
            .arg(self.settings())
            .output()
            .context("cannot run java")?;
        ensure!(
            output.status.success(),
            "kafka.tools.StorageTool failed: {}",
            String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()
        );
        Ok(())
    }

    fn settings(&self) -> PathBuf {
        self.dir.path().join("server.properties")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Host and port.
    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The last lines of the broker's log.
    pub(super) fn log_tail(&self) -> String {
        self.log_lines(15, |_| true)
    }

    /// The last warnings, errors and exceptions in it.
    pub(super) fn complaints(&self) -> String {
        let marks = ["] WARN ", "] ERROR ", "] FATAL ", "Exception", "Caused by: "];
        self.log_lines(40, |line| marks.iter().any(|mark| line.contains(mark)))
    }

    fn log_lines(&self, most: usize, which: impl Fn(&str) -> bool) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().filter(|line| which(line)).collect();
        lines[lines.len().saturating_sub(most)..].join("\n")
    }

    /// Starts it on its port with its data and waits until it tells who leads what.
    pub(super) fn start(&mut self) -> Result<()> {
        self.spawn()?;
        let waited = self.wait(1);
        if waited.is_err() {
            self.running = None;
        }
        waited
    }

    /// Starts it on its port with its data.
    pub(super) fn spawn(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the broker runs already");
        let mut command = vec!["java".to_owned()];
        command.extend(self.java.iter().map(|&word| word.to_owned()));
        command.extend([
            "-cp".to_owned(),
            self.class_path.clone(),
            "kafka.Kafka".to_owned(),
            self.settings().display().to_string(),
        ]);
        self.running = Some(Tethered::spawn(&command, self.log())?);
        Ok(())
    }

    /// Waits until it knows of so many brokers, itself included.
    pub(super) fn wait(&self, brokers: usize) -> Result<()> {
        let process = self.running.as_ref().context("the broker does not run")?;
        let deadline = Instant::now() + START;
        while let Err(error) = topics::answers(&self.bootstrap, brokers, Duration::from_millis(500)) {
            let ended = gone(process.pid());
            if ended || Instant::now() > deadline {
                let state = if ended { "has ended" } else { "does not answer" };
                bail!("the broker {state}: {error:#}; the end of its log:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGTERM, and waits until the process is gone; SIGKILL where it does not go.
    pub(super) fn stop(&mut self) -> Result<()> {
        let process = self.running.take().context("the broker does not run")?;
        process.signal("TERM")?;
        let deadline = Instant::now() + STOP;
        while !gone(process.pid()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(process);
        Ok(())
    }

    /// SIGKILL, and waits until the process is gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.running.take().context("the broker does not run").map(drop)
    }

    /// Sends a signal by name.
    pub(super) fn signal(&self, name: &str) -> Result<()> {
        Ok(self.running.as_ref().context("the broker does not run")?.signal(name)?)
    }
}

/// Whether the process has ended. It stays a zombie until its shell collects it.
fn gone(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')),
        Err(_) => true,
    }
}
