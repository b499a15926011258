//! A request or a trigger for a device that has a home: stay, refresh, move or reset.

use super::choice::{Choice, Question};
use super::facts::{Enrolled, EnrollmentFacts, Facts, Next, wait_for};
use super::home;
use super::modules;
use super::step::{Call, Effect, EventKind, Standing, Step, Wait};
use crate::api::v1alpha1::{
    HubRef, OriginalStatus, Reason, RegistrationState, ReprovisionTrigger, Transfer, TransferData,
    TransferPhase, TransferSource, TransferTarget,
};
use crate::domain::identity::{Credential, IdentityChange};
use crate::domain::policy::Rule;

/// DPS error code of a registration whose Enrollment is gone.
const ENROLLMENT_NOT_FOUND: i32 = 404_201;

/// One step towards answering what is asked; `None` when nothing is.
pub(super) fn request(f: &Facts<'_>) -> Next<Option<Step>> {
    let request = f.pending_request();
    let trigger = f.spec.reprovision.as_ref().filter(|trigger| {
        request.is_none() && f.status.reprovision_id.as_ref() != Some(&trigger.id)
    });
    if request.is_none() && trigger.is_none() {
        return Ok(None);
    }
    let Some(home) = &f.status.home else {
        return Ok(None);
    };
    let enrolled = match &f.enrollment {
        EnrollmentFacts::Valid(enrolled) if enrolled.disabled && request.is_some() => {
            return Ok(Some(f.disabled()));
        }
        EnrollmentFacts::Valid(enrolled) => enrolled,
        EnrollmentFacts::Invalid(why) => {
            return Ok(Some(Wait::because(Reason::EnrollmentInvalid, why.clone())));
        }
        EnrollmentFacts::Missing if request.is_some() => {
            let message =
                "the Enrollment was deleted; create one that enrolls this device".to_owned();
            return Ok(Some(f.failed(
                ENROLLMENT_NOT_FOUND,
                Reason::EnrollmentMissing,
                message,
            )));
        }
        EnrollmentFacts::Missing => {
            let message =
                "the Enrollment was deleted; a device without one cannot be reprovisioned";
            return Ok(Some(Wait::because(Reason::EnrollmentMissing, message)));
        }
    };
    if (request.is_some_and(|request| request.verify_home) || f.check_home)
        && let Some(step) = home::check(f)?
    {
        return Ok(Some(step));
    }
    choose(f, enrolled, home, trigger).map(Some)
}

fn choose(
    f: &Facts<'_>,
    enrolled: &Enrolled,
    home: &HubRef,
    trigger: Option<&ReprovisionTrigger>,
) -> Next {
    let question = Question {
        registration_id: &f.spec.registration_id,
        home,
        status: f.status,
        policy: enrolled.policy,
        sticky_api: enrolled.sticky_api,
        pool: &enrolled.pool,
        trigger,
        hubs: &f.hubs,
        now: f.now,
    };
    let rule = question.rule();
    match question.choose() {
        Choice::Stay { reason, settled } => stay(f, enrolled, home, rule, trigger, reason, settled),
        Choice::Go {
            to,
            data,
            placement_hash,
        } => {
            let goal = Goal {
                to,
                data,
                placement_hash,
            };
            intend(f, enrolled, home, goal, rule, trigger)
        }
        Choice::Wait { reason, message } => Ok(Wait::because(reason, message)),
    }
}

/// The device stays; its credential at the hub becomes what it attested.
fn stay(
    f: &Facts<'_>,
    enrolled: &Enrolled,
    home: &HubRef,
    rule: Rule,
    trigger: Option<&ReprovisionTrigger>,
    reason: Reason,
    settled: bool,
) -> Next {
    let mut reason = reason;
    if f.status.credential.as_ref() != Some(&enrolled.fingerprint) {
        let Some(identity) = f.identity(home)? else {
            return lost(f);
        };
        if f.status.generation_id.as_ref() != Some(&identity.generation_id) {
            return lost(f);
        }
        if !identity.has_credential(&enrolled.credential) {
            return Ok(Effect::live(
                home,
                Call::Update(IdentityChange {
                    enabled: identity.enabled,
                    reason: identity.reason.clone(),
                    credential: Some(Credential::Attested(enrolled.credential.clone())),
                }),
            ));
        }
        reason = Reason::CredentialRefreshed;
    }
    let mut status = f.taken_up();
    f.assigned(&mut status, home, f.status.generation_id.as_deref());
    status.policy = Some(rule.as_str().to_owned());
    status.credential = Some(enrolled.fingerprint.clone());
    if settled {
        status.placement_hash = Some(enrolled.pool.hash());
        status.refused = None;
    }
    if f.pending_request()
        .is_some_and(|request| request.verify_home)
    {
        status.home_checked_at = Some(f.time());
    }
    if let Some(trigger) = trigger {
        status.reprovision_id = Some(trigger.id.clone());
    }
    let message = format!("stays at {}", home.host_name);
    Ok(f.record(status, Standing::Ready, reason, message)
        .into_step())
}

/// The identity is not where the record says: the home check finds out.
fn lost(f: &Facts<'_>) -> Next {
    Ok(home::check(f)?.unwrap_or(Step::Settled))
}

/// What a move is to reach.
struct Goal {
    to: HubRef,
    data: TransferData,
    /// Placement inputs that count as evaluated after the move.
    placement_hash: String,
}

/// Records the intention to move, before any effect.
fn intend(
    f: &Facts<'_>,
    enrolled: &Enrolled,
    home: &HubRef,
    goal: Goal,
    rule: Rule,
    trigger: Option<&ReprovisionTrigger>,
) -> Next {
    let Goal {
        to,
        data,
        placement_hash,
    } = goal;
    let (generation_id, original) = origin(f, enrolled, home, &to)?;
    let (modules, module_notes) = if home.uid == to.uid {
        (Vec::new(), Vec::new())
    } else {
        modules::listed(f, home, data, original.enabled)?
    };
    wait_for_late_calls(f, &[home, &to])?;
    let mut status = f.taken_up();
    status.state = Some(RegistrationState::Assigning);
    status.policy = Some(rule.as_str().to_owned());
    status.last_changed = Some(f.time());
    if let Some(trigger) = trigger {
        status.reprovision_id = Some(trigger.id.clone());
    }
    let initial = data == TransferData::Initial || enrolled.proceed_without_source;
    let message = if home.uid == to.uid {
        format!("resetting the device at {}", home.host_name)
    } else {
        format!(
            "moving the device from {} to {}",
            home.host_name, to.host_name
        )
    };
    let moves = home.uid != to.uid;
    status.transfer = Some(Transfer {
        id: f.fresh_id.to_owned(),
        phase: TransferPhase::Open,
        data,
        from: TransferSource {
            hub: home.clone(),
            generation_id,
            original,
        },
        to: TransferTarget { hub: to },
        policy: rule.as_str().to_owned(),
        trigger: trigger.map(|trigger| trigger.id.clone()),
        placement_hash,
        initial_twin: enrolled.initial_twin.clone().filter(|_| initial),
        proceed_without_source: enrolled.proceed_without_source,
        started_at: f.time(),
        abort_reason: None,
        abort_message: None,
        source_twin: None,
        modules,
        module_notes,
    });
    let reason = if data == TransferData::Initial {
        Reason::ResetData
    } else {
        Reason::MigrateData
    };
    let record = f.record(status, Standing::Working, reason, message);
    Ok(if moves {
        record.with_event(EventKind::Normal)
    } else {
        record.into_step()
    })
}

/// Generation id and status of the identity that moves.
fn origin(
    f: &Facts<'_>,
    enrolled: &Enrolled,
    home: &HubRef,
    to: &HubRef,
) -> Next<(String, OriginalStatus)> {
    match f.reach(home)? {
        Ok(Some(identity)) => {
            let foreign = f.status.generation_id.as_ref() != Some(&identity.generation_id);
            // A fence of ours that outlived its move is lifted first.
            if foreign || (!identity.enabled && identity.is_marked_by(f.uid)) {
                return Err(lost(f)?);
            }
            let reason = identity
                .reason
                .clone()
                .filter(|_| identity.mark().is_none());
            let enabled = identity.enabled;
            let original = OriginalStatus { enabled, reason };
            Ok((identity.generation_id.clone(), original))
        }
        Ok(None) => Err(lost(f)?),
        Err(_) if enrolled.proceed_without_source && home.uid != to.uid => {
            let recorded = f.status.generation_id.clone().unwrap_or_default();
            let original = OriginalStatus {
                enabled: true,
                reason: None,
            };
            Ok((recorded, original))
        }
        Err(trouble) => Err(wait_for(&trouble)),
    }
}

/// On hubs whose etags may repeat, a late call of an earlier operation could match an identity of
/// the next one: nothing starts before such a call can act no more.
fn wait_for_late_calls(f: &Facts<'_>, hubs: &[&HubRef]) -> Next<()> {
    for hub in hubs {
        let repeats = f.hub(&hub.uid).is_some_and(|known| !known.unique_etags);
        let closed = f
            .status
            .last_changed
            .as_ref()
            .map_or(f.now, |changed| changed.0);
        let wait = f
            .surroundings
            .quiet_in(&hub.uid)
            .max(f.call_life - f.now.duration_since(closed));
        if repeats && wait.is_positive() {
            return Err(Wait::quietly(Reason::CleaningUp, wait));
        }
    }
    Ok(())
}
