//! When each hub is probed next, and how often in a row that failed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Between probes of a hub that is well.
pub(super) const CALM: Duration = Duration::from_secs(60);
/// After the first failed probe; doubles up to [`CALM`].
const FIRST_RETRY: Duration = Duration::from_secs(3);

/// The timetable.
#[derive(Default)]
pub struct Probes {
    hubs: Mutex<HashMap<String, Timing>>,
}

#[derive(Clone, Copy, Default)]
struct Timing {
    due: Duration,
    failures: u32,
    generation: Option<i64>,
}

impl Probes {
    /// Whether a hub is to be probed now: its time has come, or its spec is another.
    pub fn is_due(&self, uid: &str, generation: Option<i64>, now: Duration) -> bool {
        self.lock()
            .get(uid)
            .is_none_or(|timing| now >= timing.due || timing.generation != generation)
    }

    /// How long until the next probe.
    pub fn due_in(&self, uid: &str, now: Duration) -> Duration {
        let due = self
            .lock()
            .get(uid)
            .map_or(Duration::ZERO, |timing| timing.due);
        due.saturating_sub(now)
    }

    /// Notes how a probe ended; tells how many in a row have failed.
    pub fn probed(&self, uid: &str, generation: Option<i64>, well: bool, now: Duration) -> u32 {
        let mut hubs = self.lock();
        let timing = hubs.entry(uid.to_owned()).or_default();
        timing.generation = generation;
        timing.failures = if well {
            0
        } else {
            timing.failures.saturating_add(1)
        };
        let pause = if well {
            CALM
        } else {
            let doublings = timing.failures.saturating_sub(1).min(8);
            FIRST_RETRY.saturating_mul(1 << doublings).min(CALM)
        };
        timing.due = now + pause;
        timing.failures
    }

    /// Has a hub probed at the next pass.
    pub fn hurry(&self, uid: &str) {
        if let Some(timing) = self.lock().get_mut(uid) {
            timing.due = Duration::ZERO;
        }
    }

    /// Forgets a hub that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Timing>> {
        self.hubs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_that_fails_is_probed_soon_and_then_less_and_less() {
        let probes = Probes::default();
        let mut now = Duration::from_secs(1000);
        assert!(probes.is_due("u", Some(1), now));
        let mut pauses = Vec::new();
        for failures in 1..=7 {
            assert_eq!(probes.probed("u", Some(1), false, now), failures);
            let pause = probes.due_in("u", now);
            assert!(!probes.is_due("u", Some(1), now + pause / 2));
            pauses.push(pause.as_secs());
            now += pause;
            assert!(probes.is_due("u", Some(1), now));
        }
        assert_eq!(pauses, [3, 6, 12, 24, 48, 60, 60]);
        assert_eq!(probes.probed("u", Some(1), true, now), 0);
        assert_eq!(probes.due_in("u", now), CALM);
    }

    #[test]
    fn a_new_spec_and_a_new_secret_are_tried_at_once() {
        let probes = Probes::default();
        probes.probed("u", Some(1), true, Duration::ZERO);
        assert!(probes.is_due("u", Some(2), Duration::ZERO));
        assert!(!probes.is_due("u", Some(1), Duration::ZERO));
        probes.hurry("u");
        assert!(probes.is_due("u", Some(1), Duration::ZERO));
    }
}
