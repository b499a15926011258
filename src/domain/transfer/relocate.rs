//! A move to another hub.

use jiff::SignedDuration;

use super::Mutant;
use super::facts::{Facts, Next, wait_for};
use super::modules;
use super::outcome::list_for_cleanup;
use super::step::{Call, Effect, EventKind, Look, Standing, Step, Wait};
use super::view::{Room, Trouble, TroubleKind};
use crate::api::v1alpha1::{
    Reason, RefusedMove, Substatus, Transfer, TransferData, TransferPhase, TwinMark,
};
use crate::domain::identity::{Credential, Identity, IdentityChange, Mark, NewIdentity};
use crate::domain::twin::{Content, Metadata, Twin};

/// First pause before a refused move is tried again; doubles with each refusal.
const FIRST_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// Longest pause.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(6);

/// The target is being prepared.
pub(super) fn open(f: &Facts<'_>, t: &Transfer) -> Next {
    let source = match f.reach(&t.from.hub)? {
        Ok(identity) => identity.filter(|known| known.generation_id == t.from.generation_id),
        Err(trouble) if t.proceed_without_source => return without_source(f, t, &trouble),
        Err(trouble) => return Ok(wait_for_source(&trouble)),
    };
    let Some(source) = source else {
        return source_gone(f, t);
    };
    let fenced = source.is_fenced(f.uid, &t.id) || f.breaks(Mutant::NoFence);
    if !fenced {
        return fence(f, t, source);
    }
    let content = match t.data {
        TransferData::Migrate => match f.twin(&t.from.hub)? {
            Some(twin) => Source::Twin(twin),
            None => return source_gone(f, t),
        },
        TransferData::Initial => Source::Initial(Content::initial(t.initial_twin.as_ref())),
    };
    let target = match f.reach(&t.to.hub)? {
        Ok(target) => target,
        Err(trouble) => return Ok(target_trouble(f, t, Some(source), &trouble)),
    };
    let Some(target) = target else {
        return Ok(create(f, t, Some(source), &content));
    };
    if let Some(step) = obstacle(f, t, Some(source), target) {
        return Ok(step);
    }
    let Some(copy) = f.twin(&t.to.hub)? else {
        return Ok(Effect::live(&t.to.hub, Call::Delete));
    };
    let wanted = content.content().digest();
    if copy.content.digest() != wanted {
        return Ok(differs(f, t, target, &wanted));
    }
    if let Source::Twin(twin) = &content {
        recheck(f, t, source, twin)?;
    }
    if f.breaks(Mutant::DeleteBeforeCommit) {
        return Ok(Effect::cached(&t.from.hub, Call::Delete));
    }
    Ok(commit(f, t, Some(source), content.mark()))
}

/// Where the target's twin comes from.
enum Source<'a> {
    Twin(&'a Twin),
    Initial(Content),
}

impl Source<'_> {
    fn content(&self) -> &Content {
        match self {
            Self::Twin(twin) => &twin.content,
            Self::Initial(content) => content,
        }
    }

    fn mark(&self) -> Option<TwinMark> {
        match self {
            Self::Twin(twin) => Some(TwinMark {
                etag: twin.etag.clone(),
                desired: twin.desired_version,
                reported: twin.reported_version,
            }),
            Self::Initial(_) => None,
        }
    }
}

/// Probes the target before the fence costs the device its connection, then fences the source.
fn fence(f: &Facts<'_>, t: &Transfer, source: &Identity) -> Next {
    if f.breaks(Mutant::NoReadAgain) {
        f.twin(&t.from.hub)?;
    }
    match f.reach(&t.to.hub)? {
        Ok(Some(target)) => {
            if let Some(step) = obstacle(f, t, Some(source), target) {
                return Ok(step);
            }
        }
        Ok(None) => match &f.views.of(&t.to.hub.uid).room {
            None => return Err(Step::Look(Look::Room(t.to.hub.clone()))),
            Some(Room::Full { limit }) => {
                let message = format!(
                    "{} is full ({limit} devices); free some or raise its limit",
                    t.to.hub.host_name
                );
                return Ok(abort(f, t, Reason::TargetRefused, message));
            }
            Some(Room::Free) => {}
        },
        Err(trouble) => return Ok(target_trouble(f, t, None, &trouble)),
    }
    Ok(Effect::live(
        &t.from.hub,
        Call::Update(IdentityChange {
            enabled: false,
            reason: Some(Mark::new(f.uid, &t.id).to_string()),
            credential: None,
        }),
    ))
}

/// What stands at the target in the way of our copy; `None` when it is our copy.
fn obstacle(
    f: &Facts<'_>,
    t: &Transfer,
    source: Option<&Identity>,
    target: &Identity,
) -> Option<Step> {
    if source.is_some_and(|source| source.generation_id == target.generation_id) {
        let message = format!(
            "IoTHubs {} and {} lead to one hub; delete one of them",
            t.from.hub.name, t.to.hub.name
        );
        return Some(abort(f, t, Reason::SameHubTwoNames, message));
    }
    if target.is_fenced(f.uid, &t.id)
        || (f.breaks(Mutant::CreateEnabled) && target.is_marked(f.uid, &t.id))
    {
        return None;
    }
    if f.is_leftover(target, &t.id) {
        return Some(Effect::live(&t.to.hub, Call::Delete));
    }
    let message = format!(
        "{} already has a device {} that is not ours; delete it there or keep the device where it is",
        t.to.hub.host_name, target.device_id
    );
    Some(abort(f, t, Reason::TargetOccupied, message))
}

fn create(f: &Facts<'_>, t: &Transfer, source: Option<&Identity>, from: &Source<'_>) -> Step {
    let content = from.content().clone();
    let credential = match (f.enrolled(), source) {
        (Some(enrolled), _) => Credential::Attested(enrolled.credential.clone()),
        // The Enrollment went while the move was open: the device keeps what it has.
        (None, Some(source)) => match source.body().get("authentication") {
            Some(authentication) => Credential::Copied(authentication.clone()),
            None => return missing_enrollment(),
        },
        (None, None) => return missing_enrollment(),
    };
    let (versions, metadata) = match from {
        Source::Twin(twin) => (
            Some((twin.desired_version, twin.reported_version)),
            twin.metadata.clone(),
        ),
        Source::Initial(_) => (None, Metadata::default()),
    };
    let edge = match (source, t.data) {
        (Some(source), TransferData::Migrate) => source.is_edge(),
        _ => f.enrolled().is_some_and(|enrolled| enrolled.edge),
    };
    let device_id = source
        .map(|source| source.device_id.clone())
        .or_else(|| f.status.device_id.clone());
    let mark = Mark::new(f.uid, &t.id).with_digest(content.digest());
    let device_id = device_id.unwrap_or_else(|| f.spec.registration_id.clone());
    let new = NewIdentity {
        device_id,
        mark,
        credential,
        edge,
        content,
        versions,
        metadata,
    };
    Effect::cached(&t.to.hub, Call::Create(Box::new(new)))
}

/// The copy is not what the source holds: made anew when the source changed since, given up when
/// the hub does not keep what it was given.
fn differs(f: &Facts<'_>, t: &Transfer, target: &Identity, wanted: &str) -> Step {
    if target.mark().and_then(|mark| mark.digest).as_deref() == Some(wanted) {
        let message = format!(
            "{} does not keep the twin it is given; compare the limits and tiers of both hubs",
            t.to.hub.host_name
        );
        return abort(f, t, Reason::TargetRefused, message);
    }
    Effect::live(&t.to.hub, Call::Delete)
}

/// The source must still be fenced, and its twin what was copied, after the copy was read back.
fn recheck(f: &Facts<'_>, t: &Transfer, source: &Identity, twin: &Twin) -> Next<()> {
    if f.breaks(Mutant::NoReadAgain) {
        return Ok(());
    }
    if !f.views.is_read_after(&t.from.hub.uid, &t.to.hub.uid) {
        return Err(Step::Look(Look::Twin(t.from.hub.clone())));
    }
    // The twin names the etag of its identity: any other write to it moves that.
    if twin.device_etag != source.etag {
        return Err(Step::Look(Look::Identity(t.from.hub.clone())));
    }
    Ok(())
}

/// The source vanished while the move was open.
fn source_gone(f: &Facts<'_>, t: &Transfer) -> Next {
    let gone = || {
        let message = format!(
            "the device vanished from {} while it was being moved",
            t.from.hub.host_name
        );
        abort(f, t, Reason::HomeLost, message)
    };
    let target = match f.reach(&t.to.hub)? {
        Ok(target) => target,
        Err(trouble) => return Ok(target_trouble(f, t, None, &trouble)),
    };
    let Some(target) = target.filter(|target| target.is_fenced(f.uid, &t.id)) else {
        return Ok(gone());
    };
    let whole = f.twin(&t.to.hub)?.is_some_and(|twin| {
        target.mark().and_then(|mark| mark.digest).as_ref() == Some(&twin.content.digest())
    });
    Ok(if whole {
        commit(f, t, None, None)
    } else {
        gone()
    })
}

/// A disaster move: the source cannot be reached and the operator said to proceed.
fn without_source(f: &Facts<'_>, t: &Transfer, trouble: &Trouble) -> Next {
    if trouble.kind == TroubleKind::Throttled {
        return Ok(wait_for_source(trouble));
    }
    let content = Source::Initial(Content::initial(t.initial_twin.as_ref()));
    let target = match f.reach(&t.to.hub)? {
        Ok(target) => target,
        Err(trouble) => return Ok(target_trouble(f, t, None, &trouble)),
    };
    let Some(target) = target else {
        return Ok(create(f, t, None, &content));
    };
    if let Some(step) = obstacle(f, t, None, target) {
        return Ok(step);
    }
    let whole = f.twin(&t.to.hub)?.is_some_and(|twin| {
        target.mark().and_then(|mark| mark.digest).as_ref() == Some(&twin.content.digest())
    });
    Ok(if whole {
        commit(f, t, None, None)
    } else {
        Effect::live(&t.to.hub, Call::Delete)
    })
}

fn commit(
    f: &Facts<'_>,
    t: &Transfer,
    source: Option<&Identity>,
    source_twin: Option<TwinMark>,
) -> Step {
    let mut status = f.status.clone();
    status.transfer = Some(Transfer {
        phase: TransferPhase::Committed,
        source_twin,
        modules: modules::at_commit(f, t, source),
        ..t.clone()
    });
    let message = format!(
        "the copy at {} is complete; switching over",
        t.to.hub.host_name
    );
    f.record(status, Standing::Working, reason_of(t), message)
        .into_step()
}

fn abort(f: &Facts<'_>, t: &Transfer, reason: Reason, message: String) -> Step {
    let mut status = f.status.clone();
    status.transfer = Some(Transfer {
        phase: TransferPhase::Aborting,
        abort_reason: Some(reason.as_str().to_owned()),
        abort_message: Some(message.clone()),
        ..t.clone()
    });
    f.record(status, Standing::Working, reason, message)
        .into_step()
}

/// The target cannot be prepared now: wait while it may pass, else give the move up.
fn target_trouble(
    f: &Facts<'_>,
    t: &Transfer,
    source: Option<&Identity>,
    trouble: &Trouble,
) -> Step {
    let patient = f.now.duration_since(t.started_at.0) <= f.patience;
    if trouble.kind.may_pass() && patient {
        return wait_for(trouble);
    }
    if f.breaks(Mutant::UnfenceWithoutAbort) {
        if source.is_some_and(|source| !source.enabled) {
            return Effect::cached(&t.from.hub, Call::Update(original(f, t)));
        }
        return wait_for(trouble);
    }
    let reason = match trouble.kind {
        TroubleKind::Missing => Reason::HubMissing,
        TroubleKind::NoCredentials => Reason::SecretMissing,
        TroubleKind::Unauthorized => Reason::HubUnauthorized,
        TroubleKind::Unreachable | TroubleKind::Throttled => Reason::TargetUnreachable,
        TroubleKind::Refused => Reason::TargetRefused,
    };
    abort(f, t, reason, trouble.message.clone())
}

/// The target is the home: enable it, remove the source, close.
pub(super) fn committed(f: &Facts<'_>, t: &Transfer) -> Next {
    let Some(target) = f.identity(&t.to.hub)? else {
        return Ok(close(f, t, None, false));
    };
    let original = &t.from.original;
    let is_held = target.is_fenced(f.uid, &t.id);
    // Each hub takes modules at one of the two times.
    if is_held == f.carries_modules(&t.to.hub)
        && let Some(step) = modules::carry(f, t, target)?
    {
        return Ok(step);
    }
    if is_held {
        let reason = if original.enabled {
            Some(Mark::new(f.uid, &t.id).to_string())
        } else {
            original.reason.clone()
        };
        // Never on a cached status: after a move away from here, a late create of this transfer
        // looks just like its target.
        return Ok(Effect::live(
            &t.to.hub,
            Call::Update(IdentityChange {
                enabled: original.enabled,
                reason,
                credential: None,
            }),
        ));
    }
    match f.reach(&t.from.hub)? {
        Err(_) => Ok(close(f, t, Some(target), true)),
        // Two names may lead to one hub: the target is never the source to remove.
        Ok(Some(source))
            if source.generation_id == t.from.generation_id
                && source.generation_id != target.generation_id =>
        {
            Ok(match catch_up(f, t)? {
                Some(copy) => copy,
                None => Effect::cached(&t.from.hub, Call::Delete),
            })
        }
        Ok(_) => Ok(close(f, t, Some(target), false)),
    }
}

/// Hubs that accept twin writes while an identity is fenced may hold tags and desired properties
/// that were written after the copy was made: they are copied before the source goes.
fn catch_up(f: &Facts<'_>, t: &Transfer) -> Next<Option<Step>> {
    let fences = f.hub(&t.from.hub.uid).is_none_or(|known| known.fences);
    if fences || t.data == TransferData::Initial {
        return Ok(None);
    }
    let (Some(source), Some(target)) = (f.twin(&t.from.hub)?, f.twin(&t.to.hub)?) else {
        return Ok(None);
    };
    let unchanged = t
        .source_twin
        .as_ref()
        .is_none_or(|copied| copied.etag == source.etag);
    let (new, old) = (&source.content, &target.content);
    if unchanged || (new.tags == old.tags && new.desired == old.desired) {
        return Ok(None);
    }
    let call = Call::WriteTwin {
        tags: new.tags.clone(),
        desired: new.desired.clone(),
    };
    Ok(Some(Effect::cached(&t.to.hub, call)))
}

/// The move is over: the device lives at the target.
fn close(f: &Facts<'_>, t: &Transfer, target: Option<&Identity>, source_left: bool) -> Step {
    let mut status = f.status.clone();
    f.assigned(
        &mut status,
        &t.to.hub,
        target.map(|target| target.generation_id.as_str()),
    );
    if source_left || target.is_none() {
        let generation_id = Some(t.from.generation_id.as_str()).filter(|id| !id.is_empty());
        list_for_cleanup(&mut status, &t.from.hub, generation_id, f.now);
    }
    status.placement_hash = Some(t.placement_hash.clone());
    status.credential = f.credential_at(target);
    status.refused = None;
    status.substatus = Some(match t.data {
        TransferData::Migrate if source_left && t.proceed_without_source => {
            Substatus::DeviceDataReset
        }
        TransferData::Migrate => Substatus::DeviceDataMigrated,
        TransferData::Initial => Substatus::DeviceDataReset,
    });
    let message = if source_left {
        format!(
            "moved to {}; {} cannot be reached and is cleaned up later",
            t.to.hub.host_name, t.from.hub.host_name
        )
    } else {
        format!(
            "moved from {} to {}",
            t.from.hub.host_name, t.to.hub.host_name
        )
    };
    let kind = if t.module_notes.is_empty() {
        EventKind::Normal
    } else {
        EventKind::Warning
    };
    let message = format!("{message}{}", modules::told(t));
    f.record(status, Standing::Ready, Reason::Moved, message)
        .with_event(kind)
}

/// The source stays the home: remove the copy, lift the fence, close.
pub(super) fn aborting(f: &Facts<'_>, t: &Transfer) -> Next {
    // A copy that cannot be removed now is inert, and the hub is in cleanup after Close.
    if let Ok(Some(target)) = f.reach(&t.to.hub)?
        && target.is_marked(f.uid, &t.id)
        && target.generation_id != t.from.generation_id
    {
        return Ok(Effect::cached(&t.to.hub, Call::Delete));
    }
    let source = match f.reach(&t.from.hub)? {
        Ok(source) => source.filter(|known| known.generation_id == t.from.generation_id),
        Err(trouble) if trouble.kind == TroubleKind::Missing => None,
        Err(trouble) => return Ok(wait_for_source(&trouble)),
    };
    if let Some(source) = source {
        if source.is_fenced(f.uid, &t.id) {
            return Ok(put_back(f, t, source, original(f, t)));
        }
        // Written even when it is not fenced: this ages a fence that is still under way.
        if !f.views.of(&t.from.hub.uid).acknowledged && !f.breaks(Mutant::AbortLeavesSource) {
            let as_it_is = IdentityChange {
                enabled: source.enabled,
                reason: source.reason.clone(),
                credential: None,
            };
            return Ok(put_back(f, t, source, as_it_is));
        }
    }
    Ok(close_aborted(f, t, source))
}

/// The source is the home again, of a device that may have attested another credential since it came
/// there: it is about to be told that it lives there.
fn put_back(f: &Facts<'_>, t: &Transfer, source: &Identity, change: IdentityChange) -> Step {
    let renewed = f.enrolled().filter(|enrolled| {
        f.status.credential.as_ref() != Some(&enrolled.fingerprint)
            && !source.has_credential(&enrolled.credential)
    });
    let Some(enrolled) = renewed else {
        return Effect::cached(&t.from.hub, Call::Update(change));
    };
    let credential = Some(Credential::Attested(enrolled.credential.clone()));
    // Never on a cached status: after Close the device may have attested a newer one.
    Effect::live(
        &t.from.hub,
        Call::Update(IdentityChange {
            credential,
            ..change
        }),
    )
}

/// The source's status before the fence; an identity that is enabled carries our mark.
fn original(f: &Facts<'_>, t: &Transfer) -> IdentityChange {
    let original = &t.from.original;
    let mark = || Mark::new(f.uid, &t.id).to_string();
    let reason = original
        .reason
        .clone()
        .or_else(|| original.enabled.then(mark));
    IdentityChange {
        enabled: original.enabled,
        reason,
        credential: None,
    }
}

fn close_aborted(f: &Facts<'_>, t: &Transfer, source: Option<&Identity>) -> Step {
    let mut status = f.status.clone();
    f.assigned(
        &mut status,
        &t.from.hub,
        source.map(|source| source.generation_id.as_str()),
    );
    if let Some(held) = f.credential_at(source) {
        status.credential = Some(held);
    }
    list_for_cleanup(&mut status, &t.to.hub, None, f.now);
    let reason = t.abort_reason.as_deref().and_then(Reason::parse);
    let reason = reason.unwrap_or(Reason::MoveAborted);
    status.refused = Some(refusal(f, t, reason));
    let why = t
        .abort_message
        .as_deref()
        .unwrap_or("the move was given up");
    let message = format!("stays at {}: {why}", t.from.hub.host_name);
    f.record(status, Standing::Ready, reason, message)
        .with_event(EventKind::Warning)
}

/// Remembers the refusal, so that the device's reconnect does not retry the same move for ever.
fn refusal(f: &Facts<'_>, t: &Transfer, reason: Reason) -> RefusedMove {
    let before = f.status.refused.as_ref().filter(|refused| {
        refused.host_name == t.to.hub.host_name && refused.placement_hash == t.placement_hash
    });
    let attempts = before.map_or(1, |refused| refused.attempts.saturating_add(1));
    let doubled = i32::try_from(1u32 << (attempts - 1).min(16)).unwrap_or(i32::MAX);
    let pause = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
    RefusedMove {
        placement_hash: t.placement_hash.clone(),
        host_name: t.to.hub.host_name.clone(),
        reason: reason.as_str().to_owned(),
        attempts,
        until: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(
            f.now.saturating_add(pause).unwrap_or(f.now),
        ),
    }
}

fn reason_of(t: &Transfer) -> Reason {
    match t.data {
        TransferData::Migrate => Reason::MigrateData,
        TransferData::Initial => Reason::ResetData,
    }
}

pub(super) fn wait_for_source(trouble: &Trouble) -> Step {
    Wait::because(Reason::SourceUnreachable, trouble.message.clone())
}

fn missing_enrollment() -> Step {
    let message = "the Enrollment or its Secret was deleted while the device was without an \
                   identity; create it again";
    Wait::because(Reason::EnrollmentMissing, message)
}

impl Facts<'_> {
    /// Fingerprint of the credential that an identity holds, when it is the attested one.
    pub(super) fn credential_at(&self, identity: Option<&Identity>) -> Option<String> {
        let (enrolled, identity) = (self.enrolled()?, identity?);
        identity
            .has_credential(&enrolled.credential)
            .then(|| enrolled.fingerprint.clone())
    }
}
