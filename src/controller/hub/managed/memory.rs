//! What the controller remembers of its own writes and of Secrets that it has read.
//!
//! All of it may be lost: then it reads and writes once more.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::Slots;
use super::objects::Kind;
use super::secrets::Secrets;

/// Longest that a write of ours is taken for not shown yet.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

/// By the uid of the hub.
#[derive(Default)]
pub(in crate::controller) struct Memory {
    sent: Slots<HashMap<Kind, Sent>>,
    secrets: Slots<Known>,
}

/// A write that the watch may not have shown.
struct Sent {
    version: Option<String>,
    at: Duration,
}

/// What the Secrets of a hub were found to be.
#[derive(Default)]
struct Known {
    /// Counts touches, so that what was read before one is not remembered.
    touches: u64,
    found: Option<(Option<i64>, Secrets)>,
}

impl Memory {
    /// Notes a write and the version that came of it.
    pub(super) fn sent(&self, uid: &str, kind: Kind, version: Option<String>, at: Duration) {
        let mut sent = lock(&self.sent);
        sent.entry(uid.to_owned())
            .or_default()
            .insert(kind, Sent { version, at });
    }

    /// How long to wait for the watch to show the last write, given the version that it shows.
    pub(super) fn unseen(
        &self,
        uid: &str,
        kind: Kind,
        shown: Option<&str>,
        now: Duration,
    ) -> Option<Duration> {
        let mut sent = lock(&self.sent);
        let of_hub = sent.get_mut(uid)?;
        let one = of_hub.get(&kind)?;
        let left = (one.at + SHOWN_WITHIN).checked_sub(now);
        if left.is_none() || (shown.is_some() && shown == one.version.as_deref()) {
            of_hub.remove(&kind);
            return None;
        }
        left
    }

    /// What the Secrets are, if nothing has changed since they were read; and the number of the
    /// last touch, to hand back with what is read now.
    pub(super) fn secrets(
        &self,
        uid: &str,
        generation: Option<i64>,
        now: Timestamp,
    ) -> (Option<Secrets>, u64) {
        let mut secrets = lock(&self.secrets);
        let known = secrets.entry(uid.to_owned()).or_default();
        let found = known.found.as_ref();
        let found = found.filter(|(then, found)| *then == generation && now < found.until);
        (found.map(|(_, found)| found.clone()), known.touches)
    }

    /// Remembers what was read, unless a Secret was touched meanwhile.
    pub(super) fn read(&self, uid: &str, generation: Option<i64>, touches: u64, found: Secrets) {
        let mut secrets = lock(&self.secrets);
        let known = secrets.entry(uid.to_owned()).or_default();
        if known.touches == touches {
            known.found = Some((generation, found));
        }
    }

    /// Notes that a Secret of the hub has changed.
    pub(in crate::controller) fn touched(&self, uid: &str) {
        let mut secrets = lock(&self.secrets);
        let known = secrets.entry(uid.to_owned()).or_default();
        known.touches += 1;
        known.found = None;
    }

    /// Forgets a hub that is gone.
    pub(in crate::controller) fn forget(&self, uid: &str) {
        lock(&self.sent).remove(uid);
        lock(&self.secrets).remove(uid);
    }
}

fn lock<T>(slots: &Mutex<T>) -> MutexGuard<'_, T> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_awaited_until_it_is_shown_or_too_old() {
        let memory = Memory::default();
        let at = |seconds| Duration::from_secs(seconds);
        let unseen = |shown, now| memory.unseen("u", Kind::Service, shown, now);
        assert_eq!(unseen(None, at(0)), None);
        let send = || memory.sent("u", Kind::Service, Some("7".to_owned()), at(10));
        send();
        assert_eq!(unseen(None, at(11)), Some(at(4)));
        assert_eq!(unseen(Some("6"), at(12)), Some(at(3)));
        assert_eq!(unseen(Some("7"), at(12)), None);
        assert_eq!(unseen(Some("6"), at(12)), None, "it was shown");
        send();
        assert_eq!(unseen(None, at(16)), None);
    }

    #[test]
    fn what_was_read_before_a_touch_is_not_remembered() {
        let memory = Memory::default();
        let now = Timestamp::UNIX_EPOCH;
        let (none, touches) = memory.secrets("u", Some(1), now);
        assert!(none.is_none());
        memory.touched("u");
        memory.read("u", Some(1), touches, Secrets::for_tests(Timestamp::MAX));
        assert!(memory.secrets("u", Some(1), now).0.is_none());
        let (_, touches) = memory.secrets("u", Some(1), now);
        memory.read(
            "u",
            Some(1),
            touches,
            Secrets::for_tests("1970-01-02T00:00:00Z".parse().unwrap()),
        );
        assert!(memory.secrets("u", Some(1), now).0.is_some());
        assert!(
            memory.secrets("u", Some(2), now).0.is_none(),
            "another spec"
        );
        let later = "1970-01-03T00:00:00Z".parse().unwrap();
        assert!(
            memory.secrets("u", Some(1), later).0.is_none(),
            "due for renewal"
        );
        memory.touched("u");
        assert!(memory.secrets("u", Some(1), now).0.is_none());
    }
}
