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
    open: Mutex<HashMap<(String, String), Calls>>,
}

/// When the calls to one hub were sent; one at a time is under way.
#[derive(Clone, Copy, Debug)]
struct Calls {
    current: Option<Duration>,
    /// The last one before it whose fate never became known. Its successor's answer says nothing
    /// about it.
    unknown: Option<Duration>,
}

impl Calls {
    fn last(&self) -> Option<Duration> {
        self.current.max(self.unknown)
    }
}

impl Ledger {
    /// Notes that a call is about to be sent. `now` is monotonic time.
    pub fn sending(&self, registration: &str, hub: &str, now: Duration) {
        let key = (registration.to_owned(), hub.to_owned());
        let mut open = self.lock();
        let unknown = open.get(&key).and_then(Calls::last);
        let current = Some(now);
        open.insert(key, Calls { current, unknown });
    }

    /// Notes that the call was answered, or never reached the hub.
    pub fn answered(&self, registration: &str, hub: &str) {
        let key = (registration.to_owned(), hub.to_owned());
        let mut open = self.lock();
        let Some(unknown) = open.get(&key).and_then(|calls| calls.unknown) else {
            open.remove(&key);
            return;
        };
        let (current, unknown) = (None, Some(unknown));
        open.insert(key, Calls { current, unknown });
    }

    /// Since when a call of that registration to that hub is unanswered.
    pub fn unanswered_since(&self, registration: &str, hub: &str) -> Option<Duration> {
        self.lock()
            .get(&(registration.to_owned(), hub.to_owned()))
            .and_then(Calls::last)
    }

    /// Forgets calls that are older than any call can live.
    pub fn forget_before(&self, oldest: Duration) {
        self.lock().retain(|_, calls| calls.last() >= Some(oldest));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Calls>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_vouch_for_the_call_before_it() {
        let ledger = Ledger::default();
        let at = Duration::from_secs;
        ledger.sending("r", "h", at(10));
        ledger.sending("r", "h", at(20));
        assert_eq!(ledger.unanswered_since("r", "h"), Some(at(20)));
        ledger.answered("r", "h");
        assert_eq!(ledger.unanswered_since("r", "h"), Some(at(10)));
        ledger.forget_before(at(11));
        assert_eq!(ledger.unanswered_since("r", "h"), None);
    }

    #[test]
    fn an_answered_call_is_forgotten() {
        let ledger = Ledger::default();
        ledger.sending("r", "h", Duration::from_secs(1));
        ledger.answered("r", "h");
        assert!(ledger.lock().is_empty());
    }
}
