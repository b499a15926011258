//! A process that uses as much of a core as attackers did, and does nothing with it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// In each period a part is spent, the rest slept.
const PERIOD: Duration = Duration::from_millis(10);
/// As Linux counts CPU time for us: 100 in a second.
pub(crate) const TICKS: u64 = 100;

/// Uses so many thousandths of a core, in as many threads as that takes.
pub(crate) fn burn(share: u32, time: Duration) {
    let threads = share.div_ceil(1000).max(1);
    let busy = PERIOD.mul_f64(f64::from(share) / 1000.0 / f64::from(threads));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| burn_one(busy, time));
        }
    });
}

fn burn_one(busy: Duration, time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        let period = Instant::now();
        while period.elapsed() < busy {
            std::hint::spin_loop();
        }
        std::thread::sleep(PERIOD.saturating_sub(busy));
    }
}

/// CPU time that a process has used, in ticks.
pub(crate) fn cpu_ticks(pid: u32) -> Result<u64> {
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
