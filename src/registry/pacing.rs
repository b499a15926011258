//! Keeps the operator below a hub's throttle, so that the hub's other users never notice a move.
//!
//! One token bucket per class of operation, as Azure counts them (page "IoT Hub quotas and
//! throttling"). A 429 halves the rate and pauses; quiet minutes bring it back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::v1alpha1::Sku;

/// Share of a hub's throttle that the operator takes; the rest is for back ends and people.
const SHARE: f64 = 0.8;
/// What Azure's throttling error asks a client to wait; it sends no Retry-After.
pub(super) const PAUSE_AFTER_THROTTLING: Duration = Duration::from_secs(10);
/// Seconds of a class's rate that may be spent at once.
const BURST_SECONDS: f64 = 6.0;
/// The rate never falls below this share of the full one.
const LOWEST_SHARE: f64 = 0.05;
/// Part of the full rate that a second without throttling gives back.
const RECOVERY_PER_SECOND: f64 = 0.01;

/// Class of operation, as hubs throttle them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpClass {
    Registry,
    TwinRead,
    TwinWrite,
    Query,
}

/// Operations per second that a hub may be asked for, by class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    registry: f64,
    twin_read: f64,
    twin_write: f64,
    query: f64,
}

impl Rates {
    /// Rates for the hub of that host name; `None` means unlimited, which is right for hubs that
    /// are not Azure's. An Azure hub whose tier is not given counts as one unit of S1.
    pub fn of(host: &str, sku: Option<Sku>, units: Option<u32>) -> Option<Self> {
        let azure = [
            ".azure-devices.net",
            ".azure-devices.cn",
            ".azure-devices.us",
        ];
        let sku = match sku {
            Some(sku) => sku,
            None if azure.iter().any(|domain| host.ends_with(domain)) => Sku::S1,
            None => return None,
        };
        let units = f64::from(units.unwrap_or(1));
        let (registry, twin_read, twin_write, query) = match sku {
            Sku::F1 | Sku::S1 => (100.0 * units, 100.0, 50.0, 20.0 * units),
            Sku::S2 => (
                100.0 * units,
                (10.0 * units).max(100.0),
                (5.0 * units).max(50.0),
                20.0 * units,
            ),
            Sku::S3 => (5000.0 * units, 500.0 * units, 250.0 * units, 1000.0 * units),
        };
        Some(Self {
            registry: SHARE * registry / 60.0,
            twin_read: SHARE * twin_read,
            twin_write: SHARE * twin_write,
            query: SHARE * query / 60.0,
        })
    }
}

/// Hands out the right to call a hub.
pub(super) struct Pacer {
    state: Mutex<State>,
}

struct State {
    buckets: Option<[Bucket; 4]>,
    paused_until: Option<Instant>,
}

struct Bucket {
    full_rate: f64,
    share: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Pacer {
    pub(super) fn new(rates: Option<Rates>) -> Self {
        let now = Instant::now();
        let buckets = rates.map(|rates| {
            [
                rates.registry,
                rates.twin_read,
                rates.twin_write,
                rates.query,
            ]
            .map(|rate| Bucket {
                full_rate: rate,
                share: 1.0,
                tokens: burst(rate),
                filled_at: now,
            })
        });
        Self {
            state: Mutex::new(State {
                buckets,
                paused_until: None,
            }),
        }
    }

    /// Takes one operation's token, waiting for it at most `patience`. `Err` tells how long the
    /// wait would be; no token is taken then.
    pub(super) async fn acquire(&self, class: OpClass, patience: Duration) -> Result<(), Duration> {
        let wait = self.reserve(class, patience)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// The hub asked to slow down.
    pub(super) fn throttled(&self, class: OpClass, pause: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.paused_until = state.paused_until.max(Some(now + pause));
        if let Some(buckets) = &mut state.buckets {
            let bucket = &mut buckets[class as usize];
            bucket.refill(now);
            bucket.share = (bucket.share / 2.0).max(LOWEST_SHARE);
            bucket.tokens = bucket.tokens.min(0.0);
        }
    }

    fn reserve(&self, class: OpClass, patience: Duration) -> Result<Duration, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let pause = state
            .paused_until
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let queue = match &mut state.buckets {
            Some(buckets) => {
                let bucket = &mut buckets[class as usize];
                bucket.refill(now);
                bucket.wait_for_one()
            }
            None => Duration::ZERO,
        };
        let wait = pause.max(queue);
        if wait > patience {
            return Err(wait);
        }
        if let Some(buckets) = &mut state.buckets {
            buckets[class as usize].tokens -= 1.0;
        }
        Ok(wait)
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.tokens = (self.tokens + seconds * self.rate()).min(burst(self.full_rate));
        self.share = (self.share + seconds * RECOVERY_PER_SECOND).min(1.0);
    }

    /// Tokens may go below zero: those who wait have taken theirs already, and keep their place.
    fn wait_for_one(&self) -> Duration {
        let missing = 1.0 - self.tokens;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(missing / self.rate())
    }

    fn rate(&self) -> f64 {
        self.full_rate * self.share
    }
}

fn burst(rate: f64) -> f64 {
    (rate * BURST_SECONDS).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_minute_never_exceeds_four_fifths_of_the_tier_beyond_its_burst() {
        let rates = Rates::of("h.azure-devices.net", Some(Sku::S1), Some(2)).unwrap();
        let pacer = Pacer::new(Some(rates));
        let start = Instant::now();
        let mut granted = 0;
        while start.elapsed() < Duration::from_mins(1) {
            match pacer.acquire(OpClass::Registry, PATIENCE).await {
                Ok(()) => granted += 1,
                Err(wait) => tokio::time::sleep(wait).await,
            }
        }
        assert!((155..=178).contains(&granted), "{granted}");
    }

    #[tokio::test(start_paused = true)]
    async fn throttling_pauses_every_class_and_halves_the_rate() {
        let rates = Rates::of("h", Some(Sku::S3), None).unwrap();
        let pacer = Pacer::new(Some(rates));
        pacer.throttled(OpClass::Registry, PAUSE_AFTER_THROTTLING);
        assert!(pacer.acquire(OpClass::TwinRead, PATIENCE).await.is_err());
        tokio::time::sleep(PAUSE_AFTER_THROTTLING).await;
        let start = Instant::now();
        let mut granted = 0;
        while start.elapsed() < Duration::from_secs(10) {
            if pacer.acquire(OpClass::Registry, PATIENCE).await.is_ok() {
                granted += 1;
            }
        }
        // 66.7/s in full; half of it, slowly growing, plus what the pause saved up.
        assert!((330..=800).contains(&granted), "{granted}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_of_our_own_is_not_slowed_down() {
        assert_eq!(Rates::of("hub-west.example.com", None, None), None);
        let pacer = Pacer::new(None);
        for _ in 0..10_000 {
            pacer.acquire(OpClass::Query, Duration::ZERO).await.unwrap();
        }
    }

    #[test]
    fn an_azure_hub_without_a_tier_counts_as_one_unit_of_s1() {
        let host = "contoso.azure-devices.net";
        assert_eq!(
            Rates::of(host, None, None),
            Rates::of("other", Some(Sku::S1), Some(1))
        );
    }
}
