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
    /// Its Secret may have changed since the last probe began.
    hurried: bool,
}

impl Probes {
    /// Whether a hub is to be probed now: its time has come, or its spec or Secret is another.
    pub fn is_due(&self, uid: &str, generation: Option<i64>, now: Duration) -> bool {
        self.lock().get(uid).is_none_or(|timing| {
            now >= timing.due || timing.hurried || timing.generation != generation
        })
    }

    /// Notes that a probe begins; tells whether the last one went well with the spec and the Secret
    /// of now, so that neither needs to be looked at again.
    pub fn begin(&self, uid: &str, generation: Option<i64>) -> bool {
        let mut hubs = self.lock();
        let Some(timing) = hubs.get_mut(uid) else {
            return false;
        };
        let hurried = std::mem::take(&mut timing.hurried);
        !hurried && timing.failures == 0 && timing.generation == generation
    }

    /// How long until the next probe.
    pub fn due_in(&self, uid: &str, now: Duration) -> Duration {
        let hubs = self.lock();
        let timing = hubs.get(uid).filter(|timing| !timing.hurried);
        timing.map_or(Duration::ZERO, |timing| timing.due.saturating_sub(now))
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

    /// Has a hub probed at the next pass, also when a probe is under way now.
    pub fn hurry(&self, uid: &str) {
        self.lock().entry(uid.to_owned()).or_default().hurried = true;
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
        assert!(probes.begin("u", Some(1)));
        assert!(!probes.begin("u", Some(2)));
        probes.hurry("u");
        assert!(probes.is_due("u", Some(1), Duration::ZERO));
        assert!(!probes.begin("u", Some(1)), "the Secret is read again");
    }

    #[test]
    fn a_secret_that_changes_during_a_probe_is_read_by_the_next() {
        let probes = Probes::default();
        assert!(!probes.begin("u", Some(1)), "the first probe reads it");
        probes.hurry("u");
        probes.probed("u", Some(1), true, Duration::ZERO);
        assert_eq!(probes.due_in("u", Duration::ZERO), Duration::ZERO);
        assert!(!probes.begin("u", Some(1)));
        probes.probed("u", Some(1), true, Duration::ZERO);
        assert!(probes.begin("u", Some(1)));
        probes.probed("u", Some(1), false, Duration::ZERO);
        assert!(!probes.begin("u", Some(1)), "a failure may be the Secret's");
    }
}
