//! Child processes that never outlive the test binary, and free ports.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// A port on loopback that was free a moment ago, below the range from which the kernel takes those of outgoing
/// connections, and another one at each call.
///
/// From the kernel's range, any connection of a test that runs at the same time could take it. And while a server is
/// away its clients knock at its port again and again: one of these connections could get that very port as its own,
/// connect to itself and keep the server from coming back.
pub fn free_port() -> io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    for _ in 0..COUNT {
        // Another stretch for every process, so that test binaries that run together do not race for the same port.
        let offset = std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(FIRST + offset % COUNT).map_err(io::Error::other)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::other(format!("no free port between {FIRST} and {}", FIRST + COUNT)))
}

/// `target/brokers` of the workspace: where the native brokers are kept between runs.
pub fn brokers_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target"));
    target.join("brokers")
}
