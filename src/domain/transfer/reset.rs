//! A factory reset: the device gets its initial twin afresh at the hub where it lives.
//!
//! ```text
//! Intent → fence → delete → create disabled from the initial twin → enable → Close
//! ```
//! A generation id other than the recorded one, with our mark, means created already.

use super::facts::{Facts, Next};
use super::first;
use super::step::{Call, Effect, Standing, Step, Wait};
use crate::api::v1alpha1::{Reason, Substatus, Transfer};
use crate::domain::identity::{Identity, IdentityChange, Mark};
use crate::domain::twin::Content;

/// One step of a reset.
pub(super) fn open(f: &Facts<'_>, t: &Transfer) -> Next {
    let hub = &t.from.hub;
    let Some(identity) = f.identity(hub)? else {
        return Ok(create(f, t));
    };
    let change = |enabled, reason| {
        Call::Update(IdentityChange {
            enabled,
            reason,
            credential: None,
        })
    };
    let mark = Mark::new(f.uid, &t.id).to_string();
    if identity.generation_id == t.from.generation_id {
        return Ok(if identity.is_fenced(f.uid, &t.id) {
            Effect::live(hub, Call::Delete)
        } else if f.enrolled().is_none() {
            // Nothing is lost yet, and without keys the device could not be created again.
            Wait::because(
                Reason::EnrollmentMissing,
                "the reset waits for its Enrollment and Secret",
            )
        } else {
            Effect::live(hub, change(false, Some(mark)))
        });
    }
    if identity.is_fenced(f.uid, &t.id) {
        let original = &t.from.original;
        let reason = if original.enabled {
            Some(mark)
        } else {
            original.reason.clone()
        };
        return Ok(Effect::live(hub, change(original.enabled, reason)));
    }
    if f.is_leftover(identity, &t.id) {
        return Ok(Effect::live(hub, Call::Delete));
    }
    Ok(close(f, t, identity))
}

fn create(f: &Facts<'_>, t: &Transfer) -> Step {
    let hub = &t.from.hub;
    let Some(enrolled) = f.enrolled() else {
        let message = "the Enrollment or its Secret was deleted during a reset; create it again";
        return Wait::because(Reason::EnrollmentMissing, message);
    };
    let repeats = f.hub(&hub.uid).is_some_and(|known| !known.unique_etags);
    let wait = f.surroundings.quiet_in(&hub.uid);
    if repeats && wait.is_positive() {
        return Wait::quietly(Reason::ResetData, wait);
    }
    let mut new = first::new_identity(f, enrolled, &t.id);
    new.content = Content::initial(t.initial_twin.as_ref());
    Effect::cached(hub, Call::Create(Box::new(new)))
}

fn close(f: &Facts<'_>, t: &Transfer, identity: &Identity) -> Step {
    let mut status = f.status.clone();
    f.assigned(&mut status, &t.to.hub, Some(&identity.generation_id));
    status.placement_hash = Some(t.placement_hash.clone());
    status.credential = f.credential_at(Some(identity));
    status.substatus = Some(Substatus::DeviceDataReset);
    status.refused = None;
    let message = format!("reset to the initial twin at {}", t.to.hub.host_name);
    f.record(status, Standing::Ready, Reason::Reset, message)
        .into_step()
}
