//! Which messages a device has fetched over HTTPS and not settled yet. A fetched message is the
//! device's for a minute; then it can be fetched again. In memory: after a restart of the hub every
//! message can be fetched, as after a lost lock.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a message is the device's that fetched it, as on IoT Hub.
const HELD_FOR: Duration = Duration::from_mins(1);

/// The locks of one hub.
#[derive(Default)]
pub(super) struct Locks(Mutex<HashMap<String, Vec<Lock>>>);

struct Lock {
    sequence: u64,
    token: String,
    /// On the clock that never steps.
    until: Duration,
    deliveries: u32,
}

impl Locks {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<Lock>>> {
        // Every change below is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the first message in `queue`, which is all that waits for the device, that is not
    /// locked. Returns it, and how often it was fetched before.
    pub(super) fn take(
        &self,
        device: &str,
        queue: &[u64],
        token: &str,
        now: Duration,
    ) -> Option<(u64, u32)> {
        let mut all = self.all();
        let locks = all.entry(device.to_owned()).or_default();
        locks.retain(|lock| queue.contains(&lock.sequence));
        let is_held = |sequence: u64, locks: &[Lock]| {
            locks
                .iter()
                .any(|lock| lock.sequence == sequence && now < lock.until)
        };
        let free = queue.iter().copied().find(|it| !is_held(*it, locks));
        let taken = free.map(|sequence| {
            let before = locks.iter().position(|lock| lock.sequence == sequence);
            let deliveries = before.map_or(0, |at| locks.swap_remove(at).deliveries);
            locks.push(Lock {
                sequence,
                token: token.to_owned(),
                until: now + HELD_FOR,
                deliveries: deliveries + 1,
            });
            (sequence, deliveries)
        });
        if locks.is_empty() {
            all.remove(device);
        }
        taken
    }

    /// Gives up the lock of that token; the message, if the lock still held it.
    pub(super) fn release(&self, device: &str, token: &str, now: Duration) -> Option<u64> {
        let mut all = self.all();
        let locks = all.get_mut(device)?;
        let lock = locks.iter_mut().find(|lock| lock.token == token)?;
        let is_held = now < lock.until;
        lock.until = Duration::ZERO;
        is_held.then_some(lock.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_locked_for_a_minute_or_until_it_is_given_up() {
        let locks = Locks::default();
        let at = Duration::from_secs;
        let take = |token, now| locks.take("d", &[5, 7], token, at(now));
        assert_eq!(take("a", 100), Some((5, 0)));
        assert_eq!(take("b", 100), Some((7, 0)));
        assert_eq!(take("c", 159), None);
        assert_eq!(take("c", 160), Some((5, 1)));
        assert_eq!(locks.release("d", "a", at(161)), None, "lost");
        assert_eq!(locks.release("d", "c", at(161)), Some(5));
        assert_eq!(locks.release("d", "c", at(161)), None, "given up already");
        assert_eq!(locks.release("other", "c", at(161)), None);
        assert_eq!(take("d", 161), Some((5, 2)));
        assert_eq!(locks.take("d", &[], "e", at(161)), None);
        assert!(locks.all().is_empty());
    }
}
