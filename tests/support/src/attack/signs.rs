//! What shows from outside that a gateway is attacked: its counters, its log and its memory.

use anyhow::{Context, Result};

use super::MARK;
use crate::installation::Installation;
use crate::vitals::rss;

const COUNTER: &str = "rehome_gateway_incidents_total{incident=\"";

/// One look at a gateway.
#[derive(Clone, Debug)]
pub struct Signs {
    metrics: String,
    log: String,
    /// KiB of memory that its process occupies.
    pub rss: u64,
}

impl Signs {
    pub async fn look(at: &Installation) -> Result<Self> {
        let url = format!("http://{}/metrics", at.gateway_health);
        let response = reqwest::get(&url).await.with_context(|| url.clone())?;
        Ok(Self {
            metrics: response.error_for_status()?.text().await?,
            log: at.gateway.output()?,
            rss: rss(at.gateway.pid())?,
        })
    }

    /// How many incidents of that kind were counted.
    pub fn incidents(&self, label: &str) -> u64 {
        let line = format!("{COUNTER}{label}\"}} ");
        let count = self.metrics.lines().find_map(|it| it.strip_prefix(&line));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// How many lines of the log name that kind.
    pub fn lines(&self, label: &str) -> usize {
        let named = |line: &&str| line.contains("WARN") && line.contains(label);
        self.log.lines().filter(named).count()
    }

    /// Where words of an attacker's are, who should be able to write nowhere.
    pub fn poisoned(&self) -> Option<&str> {
        let mut lines = self.metrics.lines().chain(self.log.lines());
        lines.find(|line| line.contains(MARK))
    }
}
