//! What the controllers remember between passes. All of it may be lost at any time: it saves work
//! and never carries truth.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt as _;

use crate::api::v1alpha1::DeviceRegistration;
use crate::random::Random;

/// Most objects whose failures are remembered.
const REMEMBERED: u64 = 100_000;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long to wait before an object is tried again: doubles with every failure, with jitter.
pub struct Backoff {
    failures: moka::sync::Cache<String, u32>,
    random: Arc<dyn Random>,
}

impl Backoff {
    /// Nothing has failed yet.
    pub fn new(random: Arc<dyn Random>) -> Self {
        let failures = moka::sync::Cache::builder()
            .max_capacity(REMEMBERED)
            .time_to_idle(LONGEST_PAUSE * 10);
        Self {
            failures: failures.build(),
            random,
        }
    }

    /// Notes a failure; between half of and the whole pause that is due after it.
    pub fn next(&self, uid: &str) -> Duration {
        let failures = self.failures.get(uid).unwrap_or(0);
        self.failures
            .insert(uid.to_owned(), failures.saturating_add(1));
        let pause = FIRST_PAUSE
            .saturating_mul(1 << failures.min(16))
            .min(LONGEST_PAUSE);
        let part = f64::from(self.random.bytes()[0]) / 256.0;
        pause.mul_f64(f64::midpoint(1.0, part))
    }

    /// Notes a success.
    pub fn forget(&self, uid: &str) {
        self.failures.invalidate(uid);
    }
}

/// Registrations whose home should be looked at.
#[derive(Debug, Default)]
pub struct HomeChecks {
    wanted: Mutex<HashSet<String>>,
}

impl HomeChecks {
    /// Asks for a look at the home of that registration.
    pub fn want(&self, uid: &str) {
        lock(&self.wanted).insert(uid.to_owned());
    }

    /// Whether a look was asked for.
    pub fn is_wanted(&self, uid: &str) -> bool {
        lock(&self.wanted).contains(uid)
    }

    /// Notes that the home was looked at, or that there is nothing to look at any more.
    pub fn done(&self, uid: &str) {
        lock(&self.wanted).remove(uid);
    }
}

/// Registrations that were deleted while this process watched.
pub struct Departed {
    uids: moka::sync::Cache<String, ()>,
}

impl Default for Departed {
    fn default() -> Self {
        Self {
            uids: moka::sync::Cache::new(REMEMBERED),
        }
    }
}

impl Departed {
    /// Notes a registration that is gone.
    pub fn note(&self, uid: String) {
        self.uids.insert(uid, ());
    }

    /// Whether that registration was ours and is gone.
    pub fn contains(&self, uid: &str) -> bool {
        self.uids.contains_key(uid)
    }
}

/// Which versions of registrations we wrote ourselves, so that a pass does not start from an older
/// one that the watch still shows.
#[derive(Debug, Default)]
pub struct Written {
    versions: Mutex<HashMap<String, Awaited>>,
}

#[derive(Debug)]
struct Awaited {
    version: u64,
    /// A pass gave up because of it and must be woken.
    somebody_waits: bool,
}

impl Written {
    /// Notes an object as the API server returned it from our write.
    pub fn note(&self, object: &DeviceRegistration) {
        if let Some((uid, version)) = version_of(object) {
            let awaited = Awaited {
                version,
                somebody_waits: false,
            };
            lock(&self.versions).insert(uid, awaited);
        }
    }

    /// Whether the watch has not caught up with our last write yet. The pass may end then: the
    /// watch will wake the registration.
    pub fn is_stale(&self, object: &DeviceRegistration) -> bool {
        let Some((uid, version)) = version_of(object) else {
            return false;
        };
        let mut versions = lock(&self.versions);
        match versions.get_mut(&uid) {
            Some(awaited) if version < awaited.version => {
                awaited.somebody_waits = true;
                true
            }
            Some(_) => {
                versions.remove(&uid);
                false
            }
            None => false,
        }
    }

    /// Takes note of what the watch shows; tells whether a pass waits for it.
    pub fn caught_up(&self, object: &DeviceRegistration) -> bool {
        let Some((uid, version)) = version_of(object) else {
            return false;
        };
        let mut versions = lock(&self.versions);
        match versions.get(&uid) {
            Some(awaited) if version >= awaited.version => versions
                .remove(&uid)
                .is_some_and(|awaited| awaited.somebody_waits),
            _ => false,
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        lock(&self.versions).remove(uid);
    }
}

/// Versions of one kind grow: they are revisions of the API server's store.
fn version_of(object: &DeviceRegistration) -> Option<(String, u64)> {
    let version = object.resource_version()?.parse().ok()?;
    Some((object.uid()?, version))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Always(u8);

    impl Random for Always {
        fn bytes(&self) -> [u8; 16] {
            [self.0; 16]
        }
    }

    fn object(version: &str) -> DeviceRegistration {
        serde_json::from_value(json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
            "metadata": {"name": "a", "uid": "u", "resourceVersion": version},
            "spec": {"registrationId": "a"},
        }))
        .unwrap()
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_start_again_after_a_success() {
        let pauses = |byte| {
            let backoff = Backoff::new(Arc::new(Always(byte)));
            let pauses: Vec<_> = (0..9).map(|_| backoff.next("u").as_secs_f64()).collect();
            backoff.forget("u");
            assert!(backoff.next("u") <= FIRST_PAUSE);
            pauses
        };
        assert_eq!(pauses(0), [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
        assert!(pauses(255).iter().all(|pause| *pause < 60.0));
    }

    #[test]
    fn a_version_older_than_our_write_is_stale_until_the_watch_shows_it() {
        let written = Written::default();
        assert!(!written.is_stale(&object("7")));
        written.note(&object("9"));
        assert!(written.is_stale(&object("8")));
        assert!(!written.caught_up(&object("8")));
        assert!(
            written.caught_up(&object("10")),
            "the pass that gave up is woken"
        );
        assert!(!written.is_stale(&object("10")));
        assert!(lock(&written.versions).is_empty());
    }

    #[test]
    fn nobody_is_woken_who_does_not_wait() {
        let written = Written::default();
        written.note(&object("9"));
        assert!(!written.caught_up(&object("9")));
    }
}
