//! Calls to hubs whose fate is not known, so that cleanup and deletion wait until they cannot act
//! any more.
//!
//! An acknowledged call cannot act later and is forgotten at once: a settled registration takes no
//! memory here.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The calls of this process, by registration and hub.
#[derive(Debug, Default)]
pub struct Ledger {
    open: Mutex<HashMap<(String, String), Duration>>,
}

impl Ledger {
    /// Notes that a call is about to be sent. `now` is monotonic time.
    pub fn sending(&self, registration: &str, hub: &str, now: Duration) {
        let key = (registration.to_owned(), hub.to_owned());
        self.lock().insert(key, now);
    }

    /// Notes that the call was answered, or never reached the hub.
    pub fn answered(&self, registration: &str, hub: &str) {
        self.lock()
            .remove(&(registration.to_owned(), hub.to_owned()));
    }

    /// Since when a call of that registration to that hub is unanswered.
    pub fn unanswered_since(&self, registration: &str, hub: &str) -> Option<Duration> {
        self.lock()
            .get(&(registration.to_owned(), hub.to_owned()))
            .copied()
    }

    /// Forgets calls that are older than any call can live.
    pub fn forget_before(&self, oldest: Duration) {
        self.lock().retain(|_, since| *since >= oldest);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Duration>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
