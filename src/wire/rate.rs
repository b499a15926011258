//! Token buckets: how often something may happen.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// So many at once, and then so many in ten seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    pub burst: u32,
    pub per_ten_seconds: u32,
}

/// A token bucket: what is left, and when that was reckoned.
#[derive(Debug)]
pub struct Bucket(Mutex<(f64, Duration)>);

impl Bucket {
    /// With all tokens, at a time of any clock that does not step.
    pub fn full(rate: Rate, now: Duration) -> Self {
        Self(Mutex::new((f64::from(rate.burst), now)))
    }

    /// Takes a token, if there is one.
    pub fn take(&self, rate: Rate, now: Duration) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refill(&mut bucket, rate, now);
        if bucket.0 < 1.0 {
            return false;
        }
        bucket.0 -= 1.0;
        true
    }

    /// Whether there is a token.
    pub fn has_any(&self, rate: Rate, now: Duration) -> bool {
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refill(&mut bucket, rate, now);
        bucket.0 >= 1.0
    }
}

fn refill(bucket: &mut (f64, Duration), rate: Rate, now: Duration) {
    let gained =
        now.saturating_sub(bucket.1).as_secs_f64() * f64::from(rate.per_ten_seconds) / 10.0;
    *bucket = (
        (bucket.0 + gained).min(f64::from(rate.burst)),
        now.max(bucket.1),
    );
}
