//! First assignment: create the identity disabled at the proposed hub, then enable it.
//!
//! Two hub calls; reads only on "already exists". An identity that nobody owns is adopted as Azure
//! DPS does.

use super::facts::{Enrolled, EnrollmentFacts, Facts, Next, wait_for};
use super::outcome::list_for_cleanup;
use super::step::{Call, Effect, EventKind, Look, Standing, Step, Wait};
use super::view::{Trouble, TroubleKind};
use crate::api::v1alpha1::{FirstAssignment, HubRef, Reason, RegistrationState, Substatus};
use crate::domain::allocation::Placement;
use crate::domain::identity::{Credential, Identity, IdentityChange, Mark, NewIdentity};
use crate::domain::policy::Rule;
use crate::domain::twin::{Content, Metadata};

/// Stands in place of the digest in the mark of an identity that was taken over.
const ADOPTED: &str = "adopted";

/// Error codes of the DPS device API; the numbers behind 409 and 403 are ours.
const ENROLLMENT_NOT_FOUND: i32 = 404_201;
const NO_HUB: i32 = 400_208;
const DEVICE_ID_TAKEN: i32 = 409_201;
const HUB_REFUSES: i32 = 403_201;

/// One step towards a home.
pub(super) fn assign(f: &Facts<'_>) -> Next {
    let enrolled = match &f.enrollment {
        EnrollmentFacts::Missing => {
            let message = "the Enrollment was deleted; create one that enrolls this device";
            let step = f.failed(
                ENROLLMENT_NOT_FOUND,
                Reason::EnrollmentMissing,
                message.into(),
            );
            return Ok(given_up(f, step));
        }
        EnrollmentFacts::Invalid(why) => {
            return Ok(Wait::because(Reason::EnrollmentInvalid, why.clone()));
        }
        EnrollmentFacts::Valid(enrolled) if enrolled.disabled => {
            return Ok(given_up(f, f.disabled()));
        }
        EnrollmentFacts::Valid(enrolled) => enrolled,
    };
    let Some((hub, id)) = chosen(f) else {
        return Ok(elsewhere(f, enrolled, None).unwrap_or_else(|nowhere| nowhere));
    };
    if f.look_everywhere
        && let Some(step) = follow(f, enrolled, &hub)?
    {
        return Ok(step);
    }
    let view = f.views.of(&hub.uid);
    if let Some(trouble) = &view.trouble {
        return Ok(refused(f, enrolled, &hub, trouble));
    }
    match &view.identity {
        None if view.exists => Err(Step::Look(Look::Identity(hub))),
        None if !f.hub(&hub.uid).is_some_and(|known| known.ready) => {
            Ok(elsewhere(f, enrolled, Some(&hub)).unwrap_or_else(|_| {
                Wait::because(
                    Reason::NoHubAvailable,
                    format!("IoTHub {} is not ready", hub.name),
                )
            }))
        }
        None | Some(None) => Ok(Effect::cached(
            &hub,
            Call::Create(Box::new(new_identity(f, enrolled, &id))),
        )),
        Some(Some(identity)) => Ok(found(f, enrolled, &hub, &id, identity)),
    }
}

/// Device id of the registration: the recorded one, else what the Enrollment says.
pub(super) fn device_id(f: &Facts<'_>, enrolled: &Enrolled) -> String {
    f.status
        .device_id
        .clone()
        .unwrap_or_else(|| enrolled.device_id.clone())
}

/// A fresh identity with the initial twin.
pub(super) fn new_identity(f: &Facts<'_>, enrolled: &Enrolled, id: &str) -> NewIdentity {
    NewIdentity {
        device_id: device_id(f, enrolled),
        mark: Mark::new(f.uid, id),
        credential: Credential::Attested(enrolled.credential.clone()),
        edge: enrolled.edge,
        content: Content::initial(enrolled.initial_twin.as_ref()),
        versions: None,
        metadata: Metadata::default(),
    }
}

/// Hub and mark of the assignment: what the controller recorded, else what the request proposed.
fn chosen(f: &Facts<'_>) -> Option<(HubRef, String)> {
    if let Some(first) = &f.status.first_assignment {
        return Some((first.hub.clone(), first.id.clone()));
    }
    let request = f.pending_request()?;
    let name = request.proposed_hub.as_ref()?;
    let known = f.hubs.iter().find(|known| known.hub.name == *name)?;
    (!f.is_in_cleanup(&known.hub)).then(|| (known.hub.clone(), request.operation_id.clone()))
}

/// After a restore of etcd: a device that lives somewhere already stays there.
fn follow(f: &Facts<'_>, enrolled: &Enrolled, chosen: &HubRef) -> Next<Option<Step>> {
    for known in &f.hubs {
        let lives_there = f.identity(&known.hub)?.is_some_and(|identity| {
            identity.enabled && owner(f, enrolled, &known.hub, identity).is_none()
        });
        if lives_there && known.hub.uid != chosen.uid && !f.is_in_cleanup(&known.hub) {
            return Ok(Some(override_with(
                f,
                enrolled,
                known.hub.clone(),
                Some(chosen),
            )));
        }
        if lives_there {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The hub holds a device of this id already.
fn found(f: &Facts<'_>, enrolled: &Enrolled, hub: &HubRef, id: &str, identity: &Identity) -> Step {
    if identity.is_fenced(f.uid, id) {
        let reason = Some(Mark::new(f.uid, id).to_string());
        return Effect::live(
            hub,
            Call::Update(IdentityChange {
                enabled: true,
                reason,
                credential: None,
            }),
        );
    }
    if f.is_leftover(identity, id) {
        return Effect::live(hub, Call::Delete);
    }
    let has_credential = identity.has_credential(&enrolled.credential);
    if identity.is_marked_by(f.uid) && has_credential {
        return done(f, enrolled, hub, identity);
    }
    if let Some(owner) = owner(f, enrolled, hub, identity) {
        let message = format!(
            "device id {} at {} belongs to another registration ({owner}); give this Enrollment \
             another deviceId or delete that registration",
            identity.device_id, hub.host_name
        );
        return f.failed(DEVICE_ID_TAKEN, Reason::DeviceIdTaken, message);
    }
    if f.hub(&hub.uid).is_some_and(|known| known.refuses_existing) && !identity.is_marked_by(f.uid)
    {
        let message = format!(
            "{} already has a device {} and IoTHub {} refuses existing devices; delete the device \
             there or set existingDevices to Adopt",
            hub.host_name, identity.device_id, hub.name
        );
        return f.failed(DEVICE_ID_TAKEN, Reason::ExistingDeviceRefused, message);
    }
    if !identity.enabled && has_credential {
        return done(f, enrolled, hub, identity);
    }
    // A device that its operator disabled stays disabled, with the operator's reason.
    let keeps_reason = !identity.enabled || identity.is_marked_by(f.uid);
    let adopted = || {
        Mark::new(f.uid, id)
            .with_digest(ADOPTED.to_owned())
            .to_string()
    };
    let reason = if keeps_reason {
        identity.reason.clone()
    } else {
        Some(adopted())
    };
    let credential = Some(Credential::Attested(enrolled.credential.clone()));
    Effect::live(
        hub,
        Call::Update(IdentityChange {
            enabled: identity.enabled,
            reason,
            credential,
        }),
    )
}

/// Uid of another registration that the identity belongs to.
fn owner(f: &Facts<'_>, enrolled: &Enrolled, hub: &HubRef, identity: &Identity) -> Option<String> {
    identity
        .mark()
        .map(|mark| mark.registration)
        .filter(|uid| uid != f.uid && f.surroundings.is_registered(uid))
        .or_else(|| {
            f.surroundings
                .owner_of(&hub.host_name, &device_id(f, enrolled))
        })
        .filter(|uid| uid != f.uid)
}

fn done(f: &Facts<'_>, enrolled: &Enrolled, hub: &HubRef, identity: &Identity) -> Step {
    let adopted = match identity.mark() {
        Some(mark) => mark.digest.as_deref() == Some(ADOPTED),
        None => true,
    };
    let mut status = f.taken_up();
    f.assigned(&mut status, hub, Some(&identity.generation_id));
    status.substatus = Some(if adopted {
        Substatus::ReprovisionedToInitialAssignment
    } else {
        Substatus::InitialAssignment
    });
    status.device_id = Some(identity.device_id.clone());
    // Another hub may be wanted by now, or was left out because it is being cleaned up or refused:
    // then the next request evaluates anew.
    let wanted = enrolled
        .pool
        .place(&f.spec.registration_id, None, |_| false);
    status.placement_hash = (wanted == Placement::Go(hub.clone())).then(|| enrolled.pool.hash());
    status.credential = Some(enrolled.fingerprint.clone());
    status.policy = Some(
        Rule::new(enrolled.policy, enrolled.sticky_api)
            .as_str()
            .to_owned(),
    );
    status.refused = None;
    let (reason, message) = if adopted {
        (
            Reason::Adopted,
            format!("took over the device that {} already had", hub.host_name),
        )
    } else {
        (
            Reason::InitialAssignment,
            format!("assigned to {}", hub.host_name),
        )
    };
    f.record(status, Standing::Ready, reason, message)
        .into_step()
}

/// The chosen hub does not take the device: another one does, or the device waits.
fn refused(f: &Facts<'_>, enrolled: &Enrolled, hub: &HubRef, trouble: &Trouble) -> Step {
    let since = f
        .pending_request()
        .map_or(f.now, |request| request.requested_at.0);
    let since = f
        .status
        .last_changed
        .as_ref()
        .map_or(since, |changed| changed.0.max(since));
    if (!trouble.kind.may_pass() || f.now.duration_since(since) > f.patience)
        && let Ok(step) = elsewhere(f, enrolled, Some(hub))
    {
        return step;
    }
    match trouble.kind {
        TroubleKind::Refused => {
            let step = f.failed(HUB_REFUSES, Reason::HubRefused, trouble.message.clone());
            given_up(f, step)
        }
        TroubleKind::Missing
        | TroubleKind::NoCredentials
        | TroubleKind::Unreachable
        | TroubleKind::Unauthorized
        | TroubleKind::Throttled => wait_for(trouble),
    }
}

/// The assignment ends without a home; the chosen hub may hold what was sent there.
fn given_up(f: &Facts<'_>, step: Step) -> Step {
    let Step::Record(mut record) = step else {
        return step;
    };
    if let Some((hub, _)) = chosen(f) {
        list_for_cleanup(&mut record.status, &hub, None, f.now);
    }
    Step::Record(record)
}

/// Assigns to another hub than `instead_of`; `Err` when there is none.
fn elsewhere(f: &Facts<'_>, enrolled: &Enrolled, instead_of: Option<&HubRef>) -> Next {
    let taken = |hub: &HubRef| f.is_in_cleanup(hub) || Some(hub) == instead_of;
    match enrolled.pool.place(&f.spec.registration_id, None, taken) {
        Placement::Go(hub) => Ok(override_with(f, enrolled, hub, instead_of)),
        Placement::Nowhere(Reason::NoHubs) => {
            let message =
                "the Enrollment matches no IoTHub; create one or name one in allocation.hubs";
            Err(f.failed(NO_HUB, Reason::NoHubs, message.to_owned()))
        }
        Placement::Nowhere(_) | Placement::Stay { .. } => Err(Wait::because(
            Reason::NoHubAvailable,
            "none of the Enrollment's hubs is ready and uncordoned; see kubectl get iothub",
        )),
    }
}

/// Records another hub before anything is sent to it; the one before may hold a late create.
fn override_with(f: &Facts<'_>, _: &Enrolled, hub: HubRef, instead_of: Option<&HubRef>) -> Step {
    let mut status = f.status.clone();
    if let Some(former) = instead_of {
        list_for_cleanup(&mut status, former, None, f.now);
    }
    let message = match instead_of {
        Some(former) => format!(
            "assigning to {} because {} does not take it",
            hub.host_name, former.host_name
        ),
        None => format!("assigning to {}", hub.host_name),
    };
    status.state = Some(RegistrationState::Assigning);
    status.first_assignment = Some(FirstAssignment {
        id: f.fresh_id.to_owned(),
        hub,
    });
    status.last_changed = Some(f.time());
    let record = f.record(
        status,
        Standing::Working,
        Reason::InitialAssignment,
        message,
    );
    if instead_of.is_some() {
        record.with_event(EventKind::Normal)
    } else {
        record.into_step()
    }
}
