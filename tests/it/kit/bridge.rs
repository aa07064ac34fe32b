//! The real `viaduct` binary as a child process, with a configuration of its own.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::invariants::discreet;
use super::wait::until;

/// The binary under test.
pub(crate) fn viaduct() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viaduct"));
    // Nothing of the machine's environment may configure a bridge under test.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VIADUCT_") {
            command.env_remove(name);
        }
    }
    command
}

/// A folder with a configuration, a state directory and a log.
#[derive(Debug)]
pub(crate) struct Site {
    dir: tempfile::TempDir,
    admin: u16,
}

impl Site {
    /// Writes `configuration` (without `[state]` and `[admin]`, which are added).
    pub(crate) fn new(configuration: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let admin = viaduct_testkit::native::free_port().expect("a free port");
        let site = Self { dir, admin };
        let text = format!(
            "{configuration}\n[state]\ndir = {:?}\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n[log]\nlevel = \"info,viaduct=debug,viaduct_poller=debug,viaduct_sink_kafka=debug,viaduct_sink_nats=debug\"\nformat = \"text\"\n",
            site.path("state")
        );
        std::fs::write(site.config(), text).expect("the configuration can be written");
        site
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        self.path("viaduct.toml")
    }

    /// Leaves the folder on the disk, for whoever looks into what was found.
    pub(crate) fn keep(&mut self) {
        self.dir.disable_cleanup(true);
        eprintln!("the bridge's folder stays: {}", self.dir.path().display());
    }

    /// All that bridges of this site have logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts a bridge.
    pub(crate) fn start(&self) -> Bridge {
        self.start_with("")
    }

    /// Starts a bridge that suffers these faults, or makes these mistakes (`VIADUCT_FAULTS`).
    pub(crate) fn start_with(&self, faults: &str) -> Bridge {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).expect("a log file");
        let child = viaduct()
            .arg("run")
            .arg("-c")
            .arg(self.config())
            .env("VIADUCT_FAULTS", faults)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("viaduct starts");
        Bridge { child, admin: self.admin, log: self.path("log") }
    }
}

/// A running bridge; killed when dropped.
#[derive(Debug)]
pub(crate) struct Bridge {
    child: Child,
    admin: u16,
    log: PathBuf,
}

impl Bridge {
    /// SIGKILL, and wait until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Whether it ends by itself within this time; how it ended.
    pub(crate) async fn ends_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.child.try_wait().expect("it can be waited for")
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill exists").success());
    }

    /// SIGTERM; returns the exit status and how long it took.
    pub(crate) async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        self.signal("TERM");
        let status = self.wait(Duration::from_secs(60)).await;
        let took = started.elapsed();
        discreet("the log", &std::fs::read_to_string(&self.log).expect("a log")).none();
        (status, took)
    }

    /// Waits until it ends by itself.
    pub(crate) async fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "viaduct is still running; its log ends with\n{}",
                tail(&self.log)
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_none()
    }

    /// Resident memory in KiB, as the kernel sees it.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.kernel_says("VmRSS:").expect("a running process has memory")
    }

    /// The most resident memory that it ever had, in KiB; `None` where it has ended.
    pub(crate) fn most_resident_kib(&self) -> Option<u64> {
        self.kernel_says("VmHWM:")
    }

    fn kernel_says(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// `GET` of a path of the admin port: status code and body.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String), reqwest::Error> {
        let answer = super::http().get(format!("http://127.0.0.1:{}{path}", self.admin)).send().await?;
        let (status, body) = (answer.status().as_u16(), answer.text().await?);
        discreet(path, &body).none();
        Ok((status, body))
    }

    /// `/status`.
    pub(crate) async fn status(&self) -> Value {
        let (code, body) = self.get("/status").await.expect("the admin port answers");
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).expect("/status is JSON")
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn ready(&self) {
        until("the bridge is ready", Duration::from_secs(60), async || {
            matches!(self.get("/readyz").await, Ok((200, _)))
        })
        .await;
    }

    /// Waits until `/readyz` is 503 with a reason that contains `text`, and returns the whole.
    pub(crate) async fn not_ready(&self, text: &str) -> String {
        let mut last = String::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok((code, body)) = self.get("/readyz").await {
                if code == 503 && body.contains(text) {
                    return body;
                }
                last = body;
            }
            assert!(
                Instant::now() < deadline,
                "/readyz never said {text:?}; last: {last}\n{}",
                tail(&self.log)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the bridge's log ends with\n{}", tail(&self.log));
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(log: &Path) -> String {
    let mut text = String::new();
    if let Ok(mut file) = std::fs::File::open(log) {
        let _ = file.read_to_string(&mut text);
    }
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}
