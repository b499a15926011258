//! What was measured, and whether it is as it must be.

use std::fmt;
use std::time::Duration;

/// One attack.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) incident: &'static str,
    pub(crate) incidents: u64,
    pub(crate) lines: usize,
    pub(crate) most_lines: usize,
    pub(crate) writes: usize,
    /// KiB that the gateway grew by, at its largest, and how many it may.
    pub(crate) grown: u64,
    pub(crate) may_grow: u64,
    /// Thousandths of a core that the attackers used.
    pub(crate) share: u32,
    pub(crate) attacked: Duration,
    pub(crate) burnt: Duration,
}

/// How much worse than an equal burner an attack may be for honest devices.
const WORSE: f64 = 2.0;

impl Row {
    fn ratio(&self) -> f64 {
        self.attacked.as_secs_f64() / self.burnt.as_secs_f64().max(0.001)
    }

    /// What is not as it must be.
    pub(crate) fn broken(&self) -> Vec<&'static str> {
        let checks = [
            (self.incidents > 0, "not counted"),
            ((1..=self.most_lines).contains(&self.lines), "log"),
            (self.writes == 0, "writes"),
            (self.grown <= self.may_grow, "memory"),
            (self.ratio() <= WORSE, "honest devices"),
        ];
        let broken = checks.iter().filter(|(holds, _)| !holds);
        broken.map(|(_, what)| *what).collect()
    }
}

pub(crate) const HEAD: &str = "attack                              incident                  counted lines writes  +MiB  core  p99 ms burner ratio";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<35} {:<25} {:>7} {:>5} {:>6} {:>5} {:>5.2} {:>7.1} {:>6.1} {:>5.2}  {}",
            self.name,
            self.incident,
            self.incidents,
            self.lines,
            self.writes,
            self.grown / 1024,
            f64::from(self.share) / 1000.0,
            self.attacked.as_secs_f64() * 1000.0,
            self.burnt.as_secs_f64() * 1000.0,
            self.ratio(),
            match &self.broken()[..] {
                [] => "held".to_owned(),
                broken => format!("BROKEN: {}", broken.join(", ")),
            }
        )
    }
}
