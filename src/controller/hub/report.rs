//! How a hub's status is written, and who is told.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};

use super::findings::{Findings, known};
use super::managed::Hosted;
use crate::api::v1alpha1::{ConditionType, IoTHub, IoTHubStatus, Reason, settle};
use crate::cluster::apply::apply_status;
use crate::controller::context::Context;
use crate::controller::status::{Error, Verdict};

/// Writes the status if it says something new.
pub(super) async fn report(
    api: &Api<IoTHub>,
    hub: &IoTHub,
    ctx: &Context,
    findings: Option<Findings>,
    hosted: Option<&Hosted>,
) -> Result<(), Error> {
    let old = hub.status.clone().unwrap_or_default();
    let mut status = IoTHubStatus {
        assigned_devices: Some(ctx.counters.hub(ctx, &hub.uid().unwrap_or_default())),
        ..old.clone()
    };
    let (generation, now) = (hub.meta().generation, ctx.clock.now());
    if let Some(hosted) = hosted {
        note_parts(&mut status.conditions, hosted, generation, now);
    }
    if let Some(findings) = &findings {
        status.observed_generation = generation;
        for (type_, verdict) in [
            (ConditionType::Ready, &findings.ready),
            (ConditionType::Reachable, &findings.reachable),
            (ConditionType::CredentialsValid, &findings.credentials),
        ] {
            settle(
                &mut status.conditions,
                verdict.condition(type_, generation, now),
            );
        }
        if let Some(guarantees) = &findings.guarantees {
            status.guarantees.clone_from(guarantees);
        }
    }
    if status == old {
        return Ok(());
    }
    let seen = hub.resource_version().unwrap_or_default();
    apply_status(api, &hub.name_any(), &seen, &status)
        .await
        .map_err(|error| Error::new("writing the status", &hub.name_any(), error))?;
    ctx.counters
        .hub_written(ctx, &hub.uid().unwrap_or_default());
    if let Some(findings) = findings {
        tell(hub, ctx, &findings.ready);
    }
    Ok(())
}

/// The parts of a managed hub, and whether it gets ready by itself.
fn note_parts(
    conditions: &mut Vec<Condition>,
    hosted: &Hosted,
    generation: Option<i64>,
    now: jiff::Timestamp,
) {
    let trouble = hosted.trouble();
    let claim = |holds: bool, otherwise: &str| match trouble {
        Some(trouble) if holds => Verdict::yes(trouble.reason, trouble.message.clone()),
        _ => Verdict::no(Reason::Settled, otherwise),
    };
    let stuck = hosted.is_stuck();
    for (type_, verdict) in [
        (ConditionType::WorkloadReady, &hosted.workload),
        (ConditionType::CertificateReady, &hosted.certificate),
        (ConditionType::ServiceReady, &hosted.service),
        (
            ConditionType::Reconciling,
            &claim(!stuck, "nothing is under way"),
        ),
        (ConditionType::Stalled, &claim(stuck, "nobody has to act")),
    ] {
        settle(conditions, verdict.condition(type_, generation, now));
    }
}

/// An event when the hub becomes Ready or stops being so, or its reason changes.
fn tell(hub: &IoTHub, ctx: &Context, ready: &Verdict) {
    let before = known(hub, ConditionType::Ready);
    if (before.holds, before.reason) == (ready.holds, ready.reason) {
        return;
    }
    ctx.metrics.decided(ready.reason);
    tracing::info!(reason = %ready.reason, "{}", ready.message);
    let type_ = match ready.holds {
        Some(true) => EventType::Normal,
        Some(false) | None => EventType::Warning,
    };
    ctx.events.publish(hub, type_, ready.reason, &ready.message);
}
