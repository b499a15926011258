//! What processes take of this machine, as Linux shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

/// As Linux counts CPU time for us: 100 in a second.
pub const TICKS: u64 = 100;

/// KiB of memory that a process occupies.
pub fn rss(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse()?)
}

/// How many files, connections among them, a process has open.
pub fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// CPU time that a process has used, in ticks.
pub fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let field = |number: usize| {
        fields
            .get(number)
            .context("no time")?
            .parse::<u64>()
            .context("time")
    };
    Ok(field(11)? + field(12)?)
}

/// CPU time that this process has used.
pub fn cpu_time() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).unwrap_or_default()
}

/// CPU time that the processes of each program use that `/proc` shows, in ticks, by the program's
/// name. What has ended is not in it.
pub fn cpu_ticks_of_all() -> Result<BTreeMap<String, u64>> {
    let mut ticks = BTreeMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let program = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        // It may end at any time.
        if let (Ok(program), Ok(used)) = (program, cpu_ticks(pid)) {
            *ticks.entry(program.trim_end().to_owned()).or_default() += used;
        }
    }
    Ok(ticks)
}

/// CPU time of all processors together, in ticks.
#[derive(Clone, Copy, Debug)]
pub struct Processors {
    pub busy: u64,
    pub all: u64,
}

impl Processors {
    /// Since the machine was started.
    pub fn look() -> Result<Self> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        Self::parse(&stat).with_context(|| format!("/proc/stat begins with {stat:.80}"))
    }

    /// How much of the time since `earlier` they were busy, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a run are few")]
    pub fn share_since(&self, earlier: &Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        self.busy.saturating_sub(earlier.busy) as f64 / all as f64
    }

    fn parse(stat: &str) -> Result<Self> {
        let fields = stat
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("cpu "));
        let fields = fields
            .context("no line of all processors")?
            .split_whitespace();
        let times: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>()?;
        ensure!(times.len() >= 8, "{} times", times.len());
        // user, nice, system, idle, iowait, irq, softirq, steal; guests count as user already.
        let all = times[..8].iter().sum();
        Ok(Self {
            busy: all - times[3] - times[4],
            all,
        })
    }
}

/// Whether `/proc` shows processes by the ids that this process knows them by.
pub fn are_visible() -> bool {
    std::fs::read_link("/proc/self")
        .is_ok_and(|own| own.as_os_str() == &*std::process::id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        assert!(are_visible());
        assert!(rss(std::process::id()).unwrap() > 100);
        cpu_ticks(std::process::id()).unwrap();
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(cpu_ticks_of_all().unwrap().contains_key(own.trim_end()));
        assert!(rss(u32::MAX).is_err());
    }

    #[test]
    fn what_waits_for_the_disk_is_not_busy() {
        let [then, now] = [
            "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 …",
            "cpu  150 0 50 840 60 0 0 0 9 9\n",
        ]
        .map(|text| Processors::parse(text).unwrap());
        assert!((now.share_since(&then) - 0.5).abs() < 1e-9);
        assert!(Processors::parse("intr 1").is_err());
    }
}
