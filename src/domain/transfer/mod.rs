//! What to do next about one registration: first assignment, move, reset, home check, cleanup,
//! deletion.
//!
//! `decide` is total and pure. A crash anywhere leaves a world in which it chooses the same step
//! again. The protocol was model-checked before it was written: change no rule here without a
//! model at hand.
//!
//! ```text
//! Intent → probe target → fence source → read source → create target disabled → read back,
//! compare → recheck source → Commit → carry modules → enable target → remove source → Close
//! ```
//!
//! Intent, Commit, Abort and Close are status writes; only Commit permits enabling the target,
//! only Abort un-fencing the source.

mod choice;
mod cleanup;
mod deletion;
mod evaluate;
mod facts;
mod first;
mod home;
mod modules;
mod outcome;
mod relocate;
mod reset;
mod step;
mod view;

pub use choice::{Choice, Question};
pub use facts::{Enrolled, EnrollmentFacts, Facts, HubFacts, Surroundings};
pub use step::{Call, Effect, EventKind, Look, Record, Standing, Step, Wait};
pub use view::{Room, Trouble, TroubleKind, View, Views};

use crate::api::v1alpha1::TransferPhase;
use facts::Next;

/// A rule of the protocol that a test build can break, to prove that the tests would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutant {
    /// The source is not fenced.
    NoFence,
    /// The source is removed before Commit.
    DeleteBeforeCommit,
    /// The target is created enabled.
    CreateEnabled,
    /// The source is un-fenced without an Abort.
    UnfenceWithoutAbort,
    /// An Abort leaves a source that is not fenced yet unwritten.
    AbortLeavesSource,
    /// The source's twin is read before the fence only.
    NoReadAgain,
    /// Updates and deletes carry no If-Match.
    NoIfMatch,
    /// Dangerous effects rest on the cached status.
    NoLiveRead,
    /// The source is removed before its modules are carried.
    LeavesModules,
}

/// Chooses the next step.
#[must_use]
pub fn decide(facts: &Facts<'_>) -> Step {
    let step = next(facts).unwrap_or_else(|first| first);
    // A deletion works its hubs off itself.
    if facts.deleting || !matches!(step, Step::Wait(_)) {
        return step;
    }
    // What waits for one hub does not keep the others from being cleaned up.
    match cleanup::work_off(facts).unwrap_or_else(|first| first) {
        Step::Wait(_) | Step::Settled => step,
        meanwhile @ (Step::Look(_) | Step::Effect(_) | Step::Record(_) | Step::Release { .. }) => {
            meanwhile
        }
    }
}

fn next(facts: &Facts<'_>) -> Next {
    if facts.deleting && facts.letting_go {
        return Ok(deletion::let_go(facts));
    }
    if let Some(transfer) = &facts.status.transfer {
        let same_hub = transfer.from.hub.uid == transfer.to.hub.uid;
        return match transfer.phase {
            TransferPhase::Open if same_hub => reset::open(facts, transfer),
            TransferPhase::Open => relocate::open(facts, transfer),
            TransferPhase::Committed => relocate::committed(facts, transfer),
            TransferPhase::Aborting => relocate::aborting(facts, transfer),
        };
    }
    if facts.deleting {
        return deletion::delete(facts);
    }
    if facts.status.home.is_none() {
        if facts.status.first_assignment.is_some() || facts.pending_request().is_some() {
            return first::assign(facts);
        }
    } else {
        if let Some(step) = evaluate::request(facts)? {
            return Ok(step);
        }
        if facts.check_home || facts.status.generation_id.is_none() {
            if let Some(step) = home::check(facts)? {
                return Ok(step);
            }
            if facts.check_home {
                return Ok(home::checked(facts));
            }
        }
    }
    cleanup::work_off(facts)
}
