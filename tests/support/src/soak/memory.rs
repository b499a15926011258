//! Whether a process takes more and more memory. Pure.
//!
//! What a process takes rises while caches fill, and then goes up and down with its work. So the
//! first third of its samples is warm-up, and the rest must be flat: neither the medians of its first
//! and last minute nor the line through all of it may rise by more than [`MAY_GROW`] allows, and
//! [`CONNECTION`] for each connection more. What was freed is not given back to the system, so of
//! connections the most that there were at any time counts.

use std::fmt;

/// A minute, or less where there is less.
const WINDOW: f64 = 60.0;
/// Shortest time after warm-up that is judged, in seconds.
const SHORTEST: f64 = 120.0;
/// What the median may grow by after warm-up without a reason: a tenth, for the allocator's sake, and
/// what is kept for each device and bounded: eight past operations, and the newest messages.
const MAY_GROW: (f64, f64) = (0.10, 4.0 * 1024.0);
/// KiB for each connection: the budget of one that is idle.
const CONNECTION: f64 = 40.0;
/// What the highest sample may be above the first minute: a group that moves is work for all.
const MAY_PEAK: (f64, f64) = (0.25, 8.0 * 1024.0);

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// In seconds.
    pub(crate) time: f64,
    pub(crate) kib: f64,
    /// How many files it had open: connections, but for a few.
    pub(crate) files: f64,
}

/// What a process took. Its `Display` is a row of the table under [`HEAD`].
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// Medians of the first and the last minute after warm-up.
    first: f64,
    last: f64,
    highest: f64,
    /// KiB in a minute.
    slope: f64,
    /// Seconds after warm-up.
    time: f64,
    /// How many more connections than ever before there were at once, after the first minute.
    connections: f64,
}

/// The head of the table.
pub(crate) const HEAD: &str =
    "memory, MiB               first    last   ratio  highest   ratio  slope/min";

/// What is allowed, for those who read the table.
pub(crate) const LIMITS: &str = "first and last: medians of a minute, after a third for warm-up; allowed above the first: \
     last and line 10 % + 4 MiB, highest 25 % + 8 MiB, and 40 KiB for each connection more than before";

impl Memory {
    /// Of at least one sample.
    pub(crate) fn of(samples: &[Sample]) -> Option<Self> {
        let (begin, end) = (samples.first()?.time, samples.last()?.time);
        let from = begin + (end - begin) / 3.0;
        let rest: Vec<_> = samples.iter().filter(|it| it.time >= from).collect();
        let window = WINDOW.min((end - from) / 3.0);
        let median_of = |keep: &dyn Fn(f64) -> bool| {
            let kept = rest.iter().filter(|it| keep(it.time));
            median(kept.map(|it| it.kib).collect())
        };
        let most = |keep: &dyn Fn(f64) -> bool| {
            let kept = samples.iter().filter(|it| keep(it.time));
            kept.map(|it| it.files).fold(0.0, f64::max)
        };
        let before = most(&|time| time <= from + window);
        Some(Self {
            first: median_of(&|time| time <= from + window)?,
            last: median_of(&|time| time >= end - window)?,
            highest: rest.iter().map(|it| it.kib).fold(0.0, f64::max),
            slope: slope(&rest) * 60.0,
            time: end - from,
            connections: (most(&|_| true) - before).max(0.0),
        })
    }

    /// Whether there is enough to judge by.
    pub(crate) fn can_be_judged(&self) -> bool {
        self.time >= SHORTEST
    }

    /// Why it is not flat.
    pub(crate) fn growth(&self) -> Option<String> {
        let with_reason = self.connections * CONNECTION;
        let allowed = |(share, kib): (f64, f64)| self.first * share + kib + with_reason;
        let by_line = self.slope * self.time / 60.0;
        let seen = [
            (
                "the last minute is above the first",
                self.last - self.first,
                MAY_GROW,
            ),
            ("the line rises", by_line, MAY_GROW),
            (
                "the highest is above the first minute",
                self.highest - self.first,
                MAY_PEAK,
            ),
        ];
        let broken = seen.iter().find(|(_, kib, limit)| *kib > allowed(*limit))?;
        let (what, kib, limit) = broken;
        Some(format!(
            "{what} by {:.1} MiB, and {:.1} MiB are allowed",
            kib / 1024.0,
            allowed(*limit) / 1024.0
        ))
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |kib: f64| kib / 1024.0;
        write!(
            f,
            "{:>7.1}{:>8.1}{:>8.2}{:>9.1}{:>8.2}{:>11.2}",
            mib(self.first),
            mib(self.last),
            self.last / self.first,
            mib(self.highest),
            self.highest / self.first,
            mib(self.slope)
        )
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        values[middle - 1].midpoint(upper)
    })
}

/// Of the line of least squares.
#[expect(clippy::cast_precision_loss, reason = "samples of a run are few")]
fn slope(samples: &[&Sample]) -> f64 {
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(|it| of(it)).sum::<f64>() / count;
    let (time, kib) = (mean(&|it| it.time), mean(&|it| it.kib));
    let covariance = mean(&|it| (it.time - time) * (it.kib - kib));
    let variance = mean(&|it| (it.time - time).powi(2));
    if variance > 0.0 {
        covariance / variance
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten minutes, a sample every two seconds.
    fn of(kib: impl Fn(f64) -> f64) -> Memory {
        with_files(kib, |_| 50.0)
    }

    fn with_files(kib: impl Fn(f64) -> f64, files: impl Fn(f64) -> f64) -> Memory {
        let times = (0..=300).map(|number| f64::from(number) * 2.0);
        let samples = times.map(|time| Sample {
            time,
            kib: kib(time),
            files: files(time),
        });
        Memory::of(&samples.collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_goes_up_and_down_is_flat_and_warm_up_does_not_count() {
        let memory = of(|time| {
            let warm_up = 30_000.0 * (time / 150.0).min(1.0);
            20_000.0 + warm_up + 3000.0 * (time / 20.0).sin()
        });
        assert!(memory.can_be_judged());
        assert_eq!(memory.growth(), None, "{memory}");
    }

    #[test]
    fn a_leak_is_seen() {
        // 30 KiB in a second are 12 MiB after warm-up.
        let leak = of(|time| 30_000.0 + 30.0 * time);
        assert!((leak.slope - 1800.0).abs() < 1.0, "{}", leak.slope);
        let growth = leak.growth().unwrap();
        assert!(growth.starts_with("the last minute"), "{growth}");
        // As steps, whose medians come late.
        let steps = of(|time| 30_000.0 + if time > 545.0 { 9000.0 } else { 0.0 });
        assert!(steps.growth().is_some(), "{steps}");
    }

    #[test]
    fn what_there_is_a_reason_for_is_no_leak() {
        let grows = |time: f64| 30_000.0 + if time > 400.0 { 12_000.0 } else { 0.0 };
        assert!(of(grows).growth().is_some());
        let crowd = |most: f64| move |time: f64| if time > 400.0 { most } else { 100.0 };
        assert_eq!(with_files(grows, crowd(400.0)).growth(), None);
        // There were as many before: it has the memory of those.
        let before = |time: f64| if time < 100.0 { 400.0 } else { 100.0 };
        assert!(with_files(grows, before).growth().is_some());
    }

    #[test]
    fn a_peak_is_seen() {
        let peak = of(|time| {
            if (time - 400.0).abs() < 0.5 {
                60_000.0
            } else {
                30_000.0
            }
        });
        assert!(peak.growth().unwrap().contains("highest"));
    }

    #[test]
    fn short_runs_are_not_judged() {
        let look = |time| Sample {
            time,
            kib: 5.0,
            files: 1.0,
        };
        let samples: Vec<_> = (0..60).map(|time| look(f64::from(time))).collect();
        assert!(!Memory::of(&samples).unwrap().can_be_judged());
        assert!(Memory::of(&[]).is_none());
        let one = Memory::of(&[look(0.0)]).unwrap();
        assert!(one.slope.abs() < f64::EPSILON, "{one:?}");
    }
}
