//! A contender as a child process: its life, its CPU time, its memory.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// A child process; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    /// When it was started.
    pub(crate) started: Instant,
}

impl Process {
    /// Starts `program`; what it says on stderr is shown.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let started = Instant::now();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        Ok(Self { child, stdin, stdout, started })
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the contender ended by itself");
        Ok(line.trim().to_owned())
    }

    /// Tells it to go on.
    pub(crate) fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("no stdin")?;
        stdin.write_all(b"\n")?;
        Ok(stdin.flush()?)
    }

    /// Fails where it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "the contender ended by itself: {ended:?}");
        Ok(())
    }

    /// CPU time so far in seconds, user and system, all threads (proc(5), stat).
    pub(crate) fn cpu(&self) -> Result<f64> {
        // CONFIG_HZ does not matter here: user space always sees hundredths.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> =
            stat.rsplit(") ").next().unwrap_or_default().split_ascii_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
        // Fields 14 and 15; what stands behind the name begins with field 3.
        Ok((ticks(11).context("no utime")? + ticks(12).context("no stime")?) / TICKS_PER_SECOND)
    }

    /// The most memory it ever had resident, in MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        self.status("VmHWM:").map(|kib| kib / 1024.0)
    }

    /// The memory it has resident, in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        self.status("VmRSS:").map(|kib| kib / 1024.0)
    }

    /// What of it is not mapped from a file, in MiB.
    pub(crate) fn anonymous_mib(&self) -> Result<f64> {
        self.status("RssAnon:").map(|kib| kib / 1024.0)
    }

    fn status(&self, name: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
