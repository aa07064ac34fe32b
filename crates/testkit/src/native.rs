//! Child processes that never outlive the test binary, and free ports.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// A server process which is killed when this value is dropped or when the test binary dies in whatever way.
///
/// Test binaries share servers through statics, which are never dropped, and `unsafe` (`PR_SET_PDEATHSIG`) is
/// forbidden here. So a shell stands between: it kills the server as soon as its own standard input closes.
#[derive(Debug)]
pub struct Tethered {
    shell: Mutex<Child>,
    pid: u32,
}

impl Tethered {
    /// Starts `command` with its output appended to `log`.
    pub fn spawn(command: &[String], log: PathBuf) -> io::Result<Self> {
        let pid_file = log.with_extension("pid");
        let _ = std::fs::remove_file(&pid_file);
        let out = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let script = r#"pidfile=$1; shift; "$@" </dev/null & pid=$!; echo $pid >"$pidfile.tmp"; mv "$pidfile.tmp" "$pidfile"; cat >/dev/null; kill -9 $pid 2>/dev/null; wait $pid"#;
        let shell = Command::new("sh")
            .args(["-c", script, "tether"])
            .arg(&pid_file)
            .args(command)
            .stdin(Stdio::piped())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()?;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let pid = loop {
            if let Some(pid) =
                std::fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok())
            {
                break pid;
            }
            if std::time::Instant::now() > deadline {
                return Err(io::Error::other(format!("{} did not start", command[0])));
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        Ok(Self { shell: Mutex::new(shell), pid })
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal by name (`KILL`, `TERM`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status()?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("kill -{name} {} failed", self.pid)))
        }
    }

    /// Kills the server at once (SIGKILL) and waits until it is gone.
    pub fn kill(&self) {
        let mut shell = self.shell.lock().expect("no panic while the lock is held");
        drop(shell.stdin.take());
        let _ = shell.wait();
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port on loopback that was free a moment ago.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// `target/brokers` of the workspace: where the native brokers are kept between runs.
pub fn brokers_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    target.join("brokers")
}
