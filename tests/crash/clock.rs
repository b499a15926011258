//! The clock of one plan: it moves when the plan says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rehome::clock::Clock;

/// When every plan begins: 2026-03-01 08:00 UTC.
const START: i64 = 1_772_352_000;

/// Wall clock and monotonic time in one.
#[derive(Default)]
pub(crate) struct PlanClock {
    passed: AtomicU64,
}

impl PlanClock {
    pub(crate) fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.passed.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for PlanClock {
    fn now(&self) -> Timestamp {
        let start = Timestamp::from_second(START).unwrap();
        start + SignedDuration::try_from(self.monotonic()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::Relaxed))
    }
}
