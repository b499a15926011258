//! Deleting a registration: its identity is removed from every hub where it may be.
//!
//! Never looks at the Enrollment or validates the spec; what is gone already counts as removed.

use jiff::SignedDuration;

use super::facts::{Facts, Next, wait_for};
use super::step::{Call, Effect, Step, Wait};
use super::view::TroubleKind;
use crate::api::v1alpha1::{HubRef, Reason, RegistrationDeletionPolicy};

/// One step towards letting the object go.
pub(super) fn delete(f: &Facts<'_>) -> Next {
    let mut warning: Option<String> = None;
    let mut wait = SignedDuration::ZERO;
    let retain = f.spec.deletion_policy == Some(RegistrationDeletionPolicy::Retain);
    if retain {
        // Left alone, but a call that acts later would change what the next registration finds.
        for (hub, _) in homes(f) {
            wait = wait.max(f.surroundings.quiet_in(&hub.uid));
        }
    }
    for (hub, generation_id) in places(f) {
        match f.reach(&hub)? {
            Ok(Some(identity)) if f.is_ours(identity, generation_id.as_deref()) => {
                return Ok(Effect::live(&hub, Call::Delete));
            }
            Ok(_) => wait = wait.max(f.quiet_in(&hub)),
            Err(trouble)
                if matches!(
                    trouble.kind,
                    TroubleKind::Missing | TroubleKind::NoCredentials
                ) =>
            {
                warning.get_or_insert(trouble.message);
            }
            Err(trouble) => return Ok(wait_for(&trouble)),
        }
    }
    if wait.is_positive() {
        return Ok(Wait::quietly(Reason::Deleting, wait));
    }
    Ok(Step::Release { warning })
}

/// The namespace goes, and the Secrets with it: nothing can be removed any more.
pub(super) fn let_go(f: &Facts<'_>) -> Step {
    let left: Vec<_> = places(f)
        .into_iter()
        .map(|(hub, _)| hub.host_name)
        .collect();
    let warning = (!left.is_empty()).then(|| {
        format!(
            "the namespace is being deleted; the device may be left at {}",
            left.join(", ")
        )
    });
    Step::Release { warning }
}

/// The home, or where it is being made.
fn homes(f: &Facts<'_>) -> Vec<(HubRef, Option<String>)> {
    let status = f.status;
    let mut homes: Vec<(HubRef, Option<String>)> = Vec::new();
    homes.extend(
        status
            .home
            .iter()
            .map(|home| (home.clone(), status.generation_id.clone())),
    );
    homes.extend(
        status
            .first_assignment
            .iter()
            .map(|first| (first.hub.clone(), None)),
    );
    if status.home.is_none() {
        let proposed = f
            .spec
            .request
            .as_ref()
            .and_then(|request| request.proposed_hub.as_ref());
        let known = f
            .hubs
            .iter()
            .find(|known| Some(&known.hub.name) == proposed);
        homes.extend(known.map(|known| (known.hub.clone(), None)));
    }
    homes
}

/// Hubs where an identity of this registration may be, with the generation id recorded there.
fn places(f: &Facts<'_>) -> Vec<(HubRef, Option<String>)> {
    let status = f.status;
    let mut places: Vec<(HubRef, Option<String>)> = Vec::new();
    if f.spec.deletion_policy != Some(RegistrationDeletionPolicy::Retain) {
        places.extend(homes(f));
    }
    if let Some(transfer) = &status.transfer {
        let from = &transfer.from;
        places.push((from.hub.clone(), Some(from.generation_id.clone())));
        places.push((transfer.to.hub.clone(), None));
    }
    places.extend(
        status
            .cleanup
            .iter()
            .map(|entry| (entry.hub(), entry.generation_id.clone())),
    );
    let mut seen = std::collections::BTreeSet::new();
    places.retain(|(hub, _)| seen.insert(hub.uid.clone()));
    places
}
