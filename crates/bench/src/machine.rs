//! Where and when it was measured.

use std::fmt;
use std::fs;
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
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
            cores: cores(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            rustc: rustc
                .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
                .unwrap_or_default(),
            load: first_line("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }
}

/// Those that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// CPU time of everything on the machine since it was started, in seconds (proc(5), stat), without what its host took away.
pub(crate) fn busy() -> Result<f64> {
    // USER_HZ, as in `process`.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/stat")?;
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).context("/proc/stat has no sum")?;
    let ticks: Vec<f64> = all.split_ascii_whitespace().filter_map(|text| text.parse().ok()).collect();
    // user, nice, system; idle and iowait are not; irq, softirq. Guests count as user already.
    let busy = [0, 1, 2, 5, 6].into_iter().map(|index| ticks.get(index).copied().unwrap_or_default());
    Ok(busy.sum::<f64>() / TICKS_PER_SECOND)
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time, cpu, cores, kernel, rustc, load } = self;
        write!(f, "{cores} cores of {cpu}, Linux {kernel}, {rustc}, load before {load}, at {time}")
    }
}
