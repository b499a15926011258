//! Home check: is the device where the record says? Only while no transfer is open.

use super::facts::{Facts, Next};
use super::step::{Call, Effect, EventKind, Standing, Step};
use crate::api::v1alpha1::{FirstAssignment, HubRef, Reason, RegistrationState};
use crate::domain::allocation::Placement;
use crate::domain::identity::{Identity, IdentityChange, Mark};

/// One step towards a home that is true; `None` when it is.
pub(super) fn check(f: &Facts<'_>) -> Next<Option<Step>> {
    let Some(home) = &f.status.home else {
        return Ok(None);
    };
    let Some(identity) = f.identity(home)? else {
        return search(f, home).map(Some);
    };
    if !identity.enabled && identity.is_marked_by(f.uid) {
        return Ok(Some(restore(f, home, identity)));
    }
    if f.status.generation_id.as_ref() == Some(&identity.generation_id) {
        return Ok(None);
    }
    Ok(Some(if identity.is_marked_by(f.uid) {
        found(f, home, identity, Reason::HomeFound)
    } else {
        // Somebody deleted and re-created the device: it is adopted like any other.
        start_over(
            f,
            home.clone(),
            &format!("{} holds a device that is not ours", home.host_name),
        )
    }))
}

/// The check is over and nothing had to be mended.
pub(super) fn checked(f: &Facts<'_>) -> Step {
    let mut status = f.status.clone();
    status.home_checked_at = Some(f.time());
    let message = match &status.home {
        Some(home) => format!("verified at {}", home.host_name),
        None => String::new(),
    };
    f.record(status, Standing::Ready, Reason::Settled, message)
        .into_step()
}

/// A fence of ours whose transfer is over is lifted.
fn restore(f: &Facts<'_>, home: &HubRef, identity: &Identity) -> Step {
    let transfer = identity
        .mark()
        .map_or_else(|| f.fresh_id.to_owned(), |mark| mark.transfer);
    let reason = Some(Mark::new(f.uid, &transfer).to_string());
    Effect::live(
        home,
        Call::Update(IdentityChange {
            enabled: true,
            reason,
            credential: None,
        }),
    )
}

/// The device is gone from its home: look at every other hub of the namespace.
fn search(f: &Facts<'_>, home: &HubRef) -> Next {
    for known in f.hubs.iter().filter(|known| known.hub.uid != home.uid) {
        if f.is_in_cleanup(&known.hub) {
            continue;
        }
        let Some(identity) = f.identity(&known.hub)? else {
            continue;
        };
        let leftover = !identity.enabled && identity.mark().is_some();
        if !leftover && f.is_ours(identity, f.status.generation_id.as_deref()) {
            return Ok(found(f, &known.hub, identity, Reason::HomeFound));
        }
    }
    let hub = match f.enrolled().map(|enrolled| {
        let id = &f.spec.registration_id;
        enrolled
            .pool
            .place(id, Some(home), |hub| f.is_in_cleanup(hub))
    }) {
        Some(Placement::Go(hub)) => hub,
        Some(Placement::Stay { .. } | Placement::Nowhere(_)) | None => home.clone(),
    };
    Ok(start_over(
        f,
        hub,
        &format!(
            "the device vanished from {} and from every other hub",
            home.host_name
        ),
    ))
}

fn found(f: &Facts<'_>, hub: &HubRef, identity: &Identity, reason: Reason) -> Step {
    let mut status = f.status.clone();
    f.assigned(&mut status, hub, Some(&identity.generation_id));
    status.credential = f.credential_at(Some(identity));
    status.home_checked_at = Some(f.time());
    let message = format!("the device lives at {}", hub.host_name);
    f.record(status, Standing::Ready, reason, message)
        .with_event(EventKind::Normal)
}

/// Records a new first assignment; the device is created by the steps of one.
fn start_over(f: &Facts<'_>, hub: HubRef, why: &str) -> Step {
    let mut status = f.status.clone();
    status.state = Some(RegistrationState::Assigning);
    status.home = None;
    status.assigned_hub = None;
    status.generation_id = None;
    status.credential = None;
    status.last_changed = Some(f.time());
    status.home_checked_at = Some(f.time());
    let message = format!("{why}; assigning it to {} afresh", hub.host_name);
    status.first_assignment = Some(FirstAssignment {
        id: f.fresh_id.to_owned(),
        hub,
    });
    f.record(status, Standing::Working, Reason::HomeLost, message)
        .with_event(EventKind::Warning)
}
