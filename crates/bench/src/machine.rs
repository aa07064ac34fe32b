//! Where and when it was measured.

use std::fmt;
use std::fs;
use std::process::Command;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The machine, and the programs on it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// Seconds since 1970.
    pub(crate) time: u64,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    /// Processes that were running or wanted to, averaged over the last minute, before it began.
    pub(crate) load: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let first_line = |file: &str| {
            fs::read_to_string(file)
                .ok()
                .and_then(|text| text.lines().next().map(str::to_owned))
                .unwrap_or_default()
        };
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let rustc = Command::new("rustc").arg("--version").output();
        Self {
            time: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            cpu: cpu.trim_start_matches([':', ' ', '\t']).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            rustc: rustc
                .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
                .unwrap_or_default(),
            load: first_line("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, cpu, cores, kernel, rustc, load } = self;
        write!(f, "{cores} cores of {cpu}, Linux {kernel}, {rustc}, load before {load}, at {time}")
    }
}
