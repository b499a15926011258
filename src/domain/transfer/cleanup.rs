//! Working off the hubs where something of a registration may be left.

use super::facts::{Facts, Next, wait_for};
use super::step::{Call, Effect, Standing, Step, Wait};
use super::view::TroubleKind;
use crate::api::v1alpha1::{CleanupEntry, Reason, RegistrationState};

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
                let wait = f.quiet_in(&hub);
                if !wait.is_positive() {
                    return Ok(drop_entry(f, entry));
                }
                waiting.get_or_insert_with(|| Wait::quietly(Reason::CleaningUp, wait));
            }
        }
    }
    Ok(waiting.unwrap_or(Step::Settled))
}

/// Whether the identity there is ours and not the home, under whatever name of its hub.
fn is_left(
    f: &Facts<'_>,
    entry: &CleanupEntry,
    identity: &crate::domain::identity::Identity,
) -> bool {
    let is_home = f.status.generation_id.as_ref() == Some(&identity.generation_id);
    !is_home && f.is_ours(identity, entry.generation_id.as_deref())
}

fn drop_entry(f: &Facts<'_>, done: &CleanupEntry) -> Step {
    let mut status = f.status.clone();
    status.cleanup.retain(|entry| entry.uid != done.uid);
    let (standing, settled) = match f.status.state {
        Some(RegistrationState::Assigned) => (Standing::Ready, Reason::Settled),
        Some(RegistrationState::Failed | RegistrationState::Disabled) => {
            (Standing::Blocked, Reason::CleaningUp)
        }
        Some(RegistrationState::Assigning) | None => (Standing::Working, Reason::CleaningUp),
    };
    // Why the device is where it is, or has no home, stays to be read.
    let shown = f
        .status
        .conditions
        .iter()
        .find(|known| known.type_ == "Ready");
    let reason = shown.and_then(|known| Reason::parse(&known.reason));
    let message = shown.map_or_else(
        || format!("nothing is left at {}", done.host_name),
        |known| known.message.clone(),
    );
    f.record(status, standing, reason.unwrap_or(settled), message)
        .into_step()
}
