//! Working off the hubs where something of a registration may be left.

use super::facts::{Facts, Next, wait_for};
use super::step::{Call, Effect, Standing, Step, Wait};
use super::view::TroubleKind;
use crate::api::v1alpha1::{CleanupEntry, Reason};

/// One step of the cleanup list; settled when it is empty.
pub(super) fn work_off(f: &Facts<'_>) -> Next {
    let mut waiting = None;
    for entry in &f.status.cleanup {
        let hub = entry.hub();
        match f.reach(&hub)? {
            Ok(Some(identity)) if is_left(f, entry, identity) => {
                return Ok(Effect::live(&hub, Call::Delete));
            }
            Err(trouble) if trouble.kind != TroubleKind::Missing => {
                waiting.get_or_insert_with(|| wait_for(&trouble).hushed());
            }
            Ok(_) | Err(_) => {
                let wait = f.surroundings.quiet_in(&hub.uid);
                if !wait.is_positive() {
                    return Ok(drop_entry(f, entry));
                }
                waiting.get_or_insert_with(|| Wait::quietly(Reason::CleaningUp, wait));
            }
        }
    }
    Ok(waiting.unwrap_or(Step::Settled))
}

/// Whether the identity there is ours and not the home.
fn is_left(
    f: &Facts<'_>,
    entry: &CleanupEntry,
    identity: &crate::domain::identity::Identity,
) -> bool {
    let is_home = f.status.generation_id.as_ref() == Some(&identity.generation_id)
        && f.status
            .home
            .as_ref()
            .is_some_and(|home| home.uid == entry.uid);
    !is_home && f.is_ours(identity, entry.generation_id.as_deref())
}

fn drop_entry(f: &Facts<'_>, done: &CleanupEntry) -> Step {
    let mut status = f.status.clone();
    status.cleanup.retain(|entry| entry.uid != done.uid);
    let message = format!("nothing is left at {}", done.host_name);
    f.record(status, Standing::Ready, Reason::Settled, message)
        .into_step()
}
