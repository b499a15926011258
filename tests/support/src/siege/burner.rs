//! A process that uses as much of a core as attackers did, and does nothing with it.

use std::time::{Duration, Instant};

/// In each period a part is spent, the rest slept.
const PERIOD: Duration = Duration::from_millis(10);

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
