//! A process that uses the CPU as attackers did, and does nothing with it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Result;
use rehome_testing::vitals::cpu_time;
use tokio::time::{MissedTickBehavior, interval};

/// How closely a burner follows what attackers did: many of them work in a burst, and then wait.
const SLOT: Duration = Duration::from_millis(100);
/// In each period a part is spent, the rest slept.
const PERIOD: Duration = Duration::from_millis(10);

/// CPU time that a process used, slot by slot, in thousandths of a core. Its text is a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile(Vec<u32>);

impl Profile {
    /// Of this process, while it does that.
    pub(crate) async fn of(work: impl Future<Output = ()>) -> Result<Self> {
        let mut profile = Self::default();
        let mut slots = interval(SLOT);
        slots.set_missed_tick_behavior(MissedTickBehavior::Delay);
        slots.tick().await;
        let (mut begin, mut before) = (Instant::now(), cpu_time());
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                () = &mut work => return Ok(profile),
                _ = slots.tick() => {}
            }
            let (now, used) = (Instant::now(), cpu_time());
            let share = used.saturating_sub(before).as_secs_f64() / (now - begin).as_secs_f64();
            // A tick may come late: what was used since the last one is spread over as many slots.
            let late = (now - begin).div_duration_f64(SLOT).round().max(1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "small"
            )]
            let (share, late) = ((share * 1000.0) as u32, late as usize);
            profile.0.extend(std::iter::repeat_n(share, late));
            (begin, before) = (now, used);
        }
    }

    /// Thousandths of a core, on average.
    pub(crate) fn share(&self) -> u32 {
        let count = u32::try_from(self.0.len().max(1)).unwrap_or(u32::MAX);
        self.0.iter().sum::<u32>() / count
    }

    /// Uses as much, in as many threads as the busiest slot takes.
    pub(crate) fn burn(&self) {
        let most = self.0.iter().max().copied().unwrap_or_default();
        let threads = most.div_ceil(1000).max(1);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| self.burn_one(threads));
            }
        });
    }

    fn burn_one(&self, threads: u32) {
        let mut end = Instant::now();
        for share in &self.0 {
            end += SLOT;
            let busy = PERIOD.mul_f64(f64::from(*share) / 1000.0 / f64::from(threads));
            while Instant::now() < end {
                let period = Instant::now();
                while period.elapsed() < busy {
                    std::hint::spin_loop();
                }
                std::thread::sleep(PERIOD.saturating_sub(busy));
            }
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots: Vec<_> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&slots.join(" "))
    }
}

impl FromStr for Profile {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let slots = text.split_whitespace().map(str::parse);
        slots.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_is_told_from_silence() {
        let work = async {
            tokio::time::sleep(SLOT * 3).await;
            let busy = Instant::now();
            while busy.elapsed() < SLOT * 3 {
                std::hint::spin_loop();
            }
            // One more look.
            tokio::time::sleep(SLOT * 2).await;
        };
        let profile = Profile::of(work).await.unwrap();
        assert_eq!(profile.to_string().parse(), Ok(profile.clone()));
        // Other tests may have the processors meanwhile: only the order is sure.
        let most = profile.0.iter().max().unwrap();
        assert!(profile.0[0] < most / 2, "{profile}");
        assert!(profile.share() < *most, "{profile}");
    }
}
