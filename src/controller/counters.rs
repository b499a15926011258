//! The counters that statuses show, let out at most once per ten seconds and object.
//!
//! A pass for another reason writes the same figures again, and so writes nothing.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::context::Context;
use super::index::Changed;
use crate::api::v1alpha1::{HubCount, RegistrationCounts};

/// Between two figures of one object.
const APART: Duration = Duration::from_secs(10);
/// How often changes are looked for; a first change is shown this soon.
const LOOK: Duration = Duration::from_secs(1);

/// What an Enrollment's status shows.
pub(super) type EnrollmentFigures = (RegistrationCounts, Vec<HubCount>);

/// The figures that may be shown now.
#[derive(Default)]
pub struct Counters {
    hubs: Mutex<HashMap<String, Shown<i64>>>,
    enrollments: Mutex<HashMap<String, Shown<EnrollmentFigures>>>,
}

struct Shown<T> {
    figures: T,
    since: Duration,
}

impl Counters {
    /// Devices of a hub.
    pub fn hub(&self, ctx: &Context, uid: &str) -> i64 {
        show(&self.hubs, uid, ctx.clock.monotonic(), || {
            ctx.index.homes(uid)
        })
    }

    /// Registrations of an Enrollment.
    pub fn enrollment(&self, ctx: &Context, uid: &str) -> EnrollmentFigures {
        show(&self.enrollments, uid, ctx.clock.monotonic(), || {
            ctx.index.counts(uid)
        })
    }

    /// Notes that a hub's status was written: the time until its next figures begins now.
    pub(super) fn hub_written(&self, ctx: &Context, uid: &str) {
        written(&self.hubs, uid, ctx.clock.monotonic());
    }

    /// As [`Self::hub_written`], of an Enrollment.
    pub(super) fn enrollment_written(&self, ctx: &Context, uid: &str) {
        written(&self.enrollments, uid, ctx.clock.monotonic());
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        lock(&self.hubs).remove(uid);
        lock(&self.enrollments).remove(uid);
    }
}

/// Lets changed figures out and wakes the controllers that show them, for ever.
pub(super) async fn publish(ctx: Arc<Context>) {
    let mut waiting = Changed::default();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Changed { hubs, enrollments } = ctx.index.take_changed();
        waiting.hubs.extend(hubs);
        waiting.enrollments.extend(enrollments);
        let now = ctx.clock.monotonic();
        for uid in take_due(&ctx.counters.hubs, &mut waiting.hubs, now) {
            if let Some((namespace, name)) = ctx.directory.hub_name(&uid) {
                ctx.triggers.hub(&namespace, &name);
            }
        }
        for uid in take_due(&ctx.counters.enrollments, &mut waiting.enrollments, now) {
            if let Some((namespace, name)) = ctx.directory.enrollment_name(&uid) {
                ctx.triggers.enrollment(&namespace, &name);
            }
        }
    }
}

/// The figures shown already, or those of now when there are none.
fn show<T: Clone>(
    shown: &Mutex<HashMap<String, Shown<T>>>,
    uid: &str,
    now: Duration,
    figures: impl FnOnce() -> T,
) -> T {
    if let Some(known) = lock(shown).get(uid) {
        return known.figures.clone();
    }
    // Not under the lock: the index has its own.
    let figures = figures();
    let entry = Shown {
        figures: figures.clone(),
        since: now,
    };
    lock(shown).insert(uid.to_owned(), entry);
    figures
}

fn written<T>(shown: &Mutex<HashMap<String, Shown<T>>>, uid: &str, now: Duration) {
    if let Some(known) = lock(shown).get_mut(uid) {
        known.since = now;
    }
}

/// Of the objects that changed, those whose figures were shown long enough; these are forgotten,
/// so that the next pass shows new ones.
fn take_due<T>(
    shown: &Mutex<HashMap<String, Shown<T>>>,
    waiting: &mut HashSet<String>,
    now: Duration,
) -> Vec<String> {
    let mut shown = lock(shown);
    let is_due = |uid: &String| {
        shown
            .get(uid)
            .is_none_or(|known| now.saturating_sub(known.since) >= APART)
    };
    let due: Vec<_> = waiting.iter().filter(|uid| is_due(uid)).cloned().collect();
    for uid in &due {
        waiting.remove(uid);
        shown.remove(uid);
    }
    due
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_let_out_at_most_once_in_ten_seconds() {
        let shown: Mutex<HashMap<String, Shown<i64>>> = Mutex::default();
        let mut waiting = HashSet::from(["u".to_owned()]);
        let at = Duration::from_secs;
        assert_eq!(take_due(&shown, &mut waiting, at(1)), ["u"]);
        assert_eq!(show(&shown, "u", at(1), || 1), 1);
        assert_eq!(
            show(&shown, "u", at(2), || 2),
            1,
            "another pass writes nothing new"
        );
        waiting.insert("u".into());
        assert!(take_due(&shown, &mut waiting, at(10)).is_empty());
        assert_eq!(take_due(&shown, &mut waiting, at(11)), ["u"]);
        assert_eq!(show(&shown, "u", at(11), || 3), 3);
        assert!(waiting.is_empty());
        written(&shown, "u", at(13));
        waiting.insert("u".into());
        assert!(
            take_due(&shown, &mut waiting, at(22)).is_empty(),
            "a slow write"
        );
        assert_eq!(take_due(&shown, &mut waiting, at(23)), ["u"]);
    }
}
