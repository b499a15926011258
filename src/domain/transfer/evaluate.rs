//! A request or a trigger for a device that has a home: stay, refresh, move or reset.

use super::facts::{Enrolled, EnrollmentFacts, Facts, Next, wait_for};
use super::home;
use super::modules;
use super::step::{Call, Effect, EventKind, Standing, Step, Wait};
use crate::api::v1alpha1::{
    HubRef, OriginalStatus, Reason, RegistrationState, ReprovisionTrigger, Transfer, TransferData,
    TransferPhase, TransferSource, TransferTarget,
};
use crate::domain::allocation::Placement;
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
    let forced = trigger.and_then(|trigger| trigger.mode.forced_policy());
    let rule = Rule::new(forced.or(enrolled.policy), enrolled.sticky_api);
    if rule.stays() {
        let reason = if rule == Rule::Never {
            Reason::PolicyNever
        } else {
            Reason::StickyApiVersion
        };
        return stay(f, enrolled, home, rule, trigger, reason, true);
    }
    let id = &f.spec.registration_id;
    let taken = |hub: &HubRef| f.is_in_cleanup(hub);
    let placement = match trigger {
        Some(ReprovisionTrigger {
            hub: Some(name), ..
        }) => named(f, home, name)?,
        Some(_) if forced.is_some() => enrolled.pool.place(id, Some(home), taken),
        _ => enrolled
            .pool
            .replace(id, home, f.status.placement_hash.as_deref(), taken),
    };
    let data = if rule == Rule::ResetData {
        TransferData::Initial
    } else {
        TransferData::Migrate
    };
    match placement {
        Placement::Go(to) if trigger.is_none() && was_refused(f, enrolled, &to) => stay(
            f,
            enrolled,
            home,
            rule,
            trigger,
            Reason::RefusedBefore,
            false,
        ),
        Placement::Go(to) => {
            let placement_hash = enrolled.pool.hash();
            let goal = Goal {
                to,
                data,
                placement_hash,
            };
            intend(f, enrolled, home, goal, rule, trigger)
        }
        Placement::Stay { settled, .. } if data == TransferData::Initial => {
            // A hub that is wanted but not available is asked for again at the next request.
            let evaluated = if settled {
                Some(enrolled.pool.hash())
            } else {
                f.status.placement_hash.clone()
            };
            let (to, placement_hash) = (home.clone(), evaluated.unwrap_or_default());
            let goal = Goal {
                to,
                data,
                placement_hash,
            };
            intend(f, enrolled, home, goal, rule, trigger)
        }
        Placement::Stay { reason, settled } => {
            stay(f, enrolled, home, rule, trigger, reason, settled)
        }
        Placement::Nowhere(reason) => stay(f, enrolled, home, rule, trigger, reason, false),
    }
}

/// The hub that a trigger names.
fn named(f: &Facts<'_>, home: &HubRef, name: &str) -> Next<Placement> {
    let Some(known) = f.hubs.iter().find(|known| known.hub.name == name) else {
        let message = format!("spec.reprovision.hub names IoTHub {name}, which does not exist");
        return Err(Wait::because(Reason::HubNotFound, message));
    };
    if known.hub.uid == home.uid {
        return Ok(Placement::Stay {
            reason: Reason::SameHub,
            settled: true,
        });
    }
    if !known.ready || f.is_in_cleanup(&known.hub) {
        let message = format!("waiting for IoTHub {name}, which cannot take the device now");
        return Err(Wait::because(Reason::WantedHubUnavailable, message));
    }
    Ok(Placement::Go(known.hub.clone()))
}

fn was_refused(f: &Facts<'_>, enrolled: &Enrolled, to: &HubRef) -> bool {
    f.status.refused.as_ref().is_some_and(|refused| {
        refused.host_name == to.host_name
            && refused.placement_hash == enrolled.pool.hash()
            && f.now < refused.until.0
    })
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
