//! `IoTHub`: does it answer, do its credentials do, and is it the only one of its name?
//!
//! Keeps the hub's client current, probes it, and holds its finalizer while registrations refer to
//! it. A managed hub is run, too. Moves no device: a hub that blinks changes only its own
//! conditions.

mod access;
mod findings;
pub(in crate::controller) mod managed;
mod report;

use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::instrument;

pub use access::Access;
pub(in crate::controller) use access::{Credentials, secrets_of};
use findings::{
    Findings, answered, explain, failed, host_taken, in_use, is_passing, is_ready, known, not_up,
    without_client,
};
use managed::Hosted;
pub use managed::Hosting;
use report::report;

use super::context::Context;
use super::hub_clients::NoClient;
use super::probes::CALM;
use super::status::Error;
use crate::api::v1alpha1::{ConditionType, HubRef, IoTHub, Reason};
use crate::cluster::finalizer;
use crate::registry::{HubClient, HubError, HubFacts};

/// Failed probes in a row after which a hub that was Ready no longer is.
const PATIENCE: u32 = 2;
/// Between looks at whether a hub that is being deleted is still referred to.
const IN_USE: Duration = Duration::from_secs(15);
/// Between looks at an object that only a change of it or of its Secret can help.
const STUCK: Duration = Duration::from_mins(5);

/// Looks at one hub.
#[instrument(level = "error", skip_all, fields(hub = %hub.name_any(), namespace = hub.namespace()))]
pub async fn reconcile(hub: Arc<IoTHub>, ctx: Arc<Context>) -> Result<Action, Error> {
    let api: Api<IoTHub> =
        Api::namespaced(ctx.client.clone(), &hub.namespace().unwrap_or_default());
    let uid = hub.uid().unwrap_or_default();
    let deleting = hub.meta().deletion_timestamp.is_some();
    if deleting && ctx.index.referring(&hub).0 == 0 {
        return release(&hub, &ctx, &api).await;
    }
    if let Some(findings) = host_taken(&hub, &ctx) {
        ctx.hubs.block(&hub, &findings.ready.message);
        report(&api, &hub, &ctx, Some(findings), None).await?;
        return Ok(Action::requeue(STUCK));
    }
    let hosted = match &hub.spec.managed {
        // Before anything is made that a deletion has to look after; the change brings us back.
        Some(_) if !deleting && !finalizer::is_set(&*hub) => return hold(&hub, &ctx, &api).await,
        Some(managed) => Some(managed::settle(&hub, managed, &ctx).await?),
        None => None,
    };
    if let Some(hosted) = &hosted
        && hosted.workload.holds != known(&hub, ConditionType::WorkloadReady).holds
    {
        ctx.probes.hurry(&uid);
    }
    let trouble = hosted.as_ref().and_then(Hosted::trouble);
    let mut findings = match trouble {
        Some(trouble) if !is_ready(&hub) => Some(not_up(trouble)),
        _ => match probe_if_due(&hub, &ctx).await? {
            Probed::NotDue | Probed::Passing => None,
            Probed::Found(findings) => Some(findings),
        },
    };
    if deleting {
        in_use(&hub, &ctx, &mut findings);
    } else if let Some(hosted) = &hosted {
        explain(&hub, hosted, &mut findings);
    }
    let is_well = |findings: &Findings| findings.ready.holds == Some(true);
    if findings.as_ref().is_some_and(is_well) && !deleting && !finalizer::is_set(&*hub) {
        // Before anything can be placed on it.
        return hold(&hub, &ctx, &api).await;
    }
    report(&api, &hub, &ctx, findings, hosted.as_ref()).await?;
    ctx.backoff.forget(&uid);
    Ok(Action::requeue(next_look(&hub, &ctx, hosted.as_ref())))
}

/// Puts the finalizer on; the change of the object brings us back.
async fn hold(hub: &IoTHub, ctx: &Context, api: &Api<IoTHub>) -> Result<Action, Error> {
    ctx.probes.hurry(&hub.uid().unwrap_or_default());
    let added = finalizer::add(api, hub).await;
    added.map_err(|error| Error::new("adding the finalizer", &hub.name_any(), error))?;
    Ok(Action::await_change())
}

/// Lets a hub go to which nothing refers any more.
async fn release(hub: &IoTHub, ctx: &Context, api: &Api<IoTHub>) -> Result<Action, Error> {
    if let Some(managed) = &hub.spec.managed
        && finalizer::is_set(hub)
    {
        managed::release(hub, managed, ctx).await?;
    }
    let released = finalizer::remove(api, hub).await;
    released.map_err(|error| Error::new("removing the finalizer", &hub.name_any(), error))?;
    Ok(Action::await_change())
}

/// When to come back though nothing changes.
fn next_look(hub: &IoTHub, ctx: &Context, hosted: Option<&Hosted>) -> Duration {
    let uid = hub.uid().unwrap_or_default();
    let is_up = is_ready(hub) || hosted.and_then(Hosted::trouble).is_none();
    let probe = if is_up {
        ctx.probes.due_in(&uid, ctx.clock.monotonic())
    } else {
        // It is not probed; what changes at its parts brings us back.
        CALM
    };
    let again = hosted.and_then(|hosted| hosted.again);
    let deleting = hub.meta().deletion_timestamp.is_some();
    let all = [Some(probe), again, deleting.then_some(IN_USE)];
    all.into_iter().flatten().min().unwrap_or(CALM)
}

/// What came of the timetable of probes.
enum Probed {
    NotDue,
    /// It failed, which may pass by itself.
    Passing,
    Found(Findings),
}

/// Probes the hub if its time has come.
async fn probe_if_due(hub: &IoTHub, ctx: &Context) -> Result<Probed, Error> {
    let (uid, generation) = (hub.uid().unwrap_or_default(), hub.meta().generation);
    if !ctx.probes.is_due(&uid, generation, ctx.clock.monotonic()) {
        return Ok(Probed::NotDue);
    }
    let known = ctx.probes.begin(&uid, generation);
    // A Secret that could not be read is still to be read.
    let findings = look(hub, ctx, known).await;
    let findings = findings.inspect_err(|_| ctx.probes.hurry(&uid))?;
    let well = findings.ready.holds == Some(true);
    let now = ctx.clock.monotonic();
    let failures = ctx.probes.probed(&uid, generation, well, now);
    if is_ready(hub) && is_passing(&findings) && failures < PATIENCE {
        let message = findings.ready.message;
        tracing::debug!(message, "a probe failed; the hub keeps its state");
        return Ok(Probed::Passing);
    }
    Ok(Probed::Found(findings))
}

/// Makes the hub's client from what is there, without asking the hub anything.
pub async fn connect(hub: &IoTHub, ctx: &Context) {
    if let Some(findings) = host_taken(hub, ctx) {
        return ctx.hubs.block(hub, &findings.ready.message);
    }
    match Access::read(hub, ctx).await {
        // The hub's own controller shows what is wrong with it.
        Ok(Some(access)) => drop(ctx.hubs.refresh(hub, &access)),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "a hub is not connected to yet");
        }
    }
}

/// Probes the hub; reads its Secrets first unless the client is `known` to be made from them. A hub
/// at rest costs the API server nothing.
async fn look(hub: &IoTHub, ctx: &Context, known: bool) -> Result<Findings, Error> {
    let client = ctx.hubs.get(&HubRef::of(hub)).ok().filter(|_| known);
    let (client, is_new) = if let Some(client) = client {
        (client, false)
    } else {
        let made = match Access::read(hub, ctx).await? {
            Some(access) => ctx.hubs.refresh(hub, &access),
            None => Err(NoClient {
                reason: Reason::ConnectionInvalid,
                message: "the spec has neither connection nor managed; set one".to_owned(),
            }),
        };
        match made {
            Ok(made) => made,
            Err(error) => return Ok(without_client(error)),
        }
    };
    let probed = probe(&client, is_new || !is_ready(hub)).await;
    Ok(probed.map_or_else(|error| failed(&error), |facts| answered(hub, &facts)))
}

/// Asks whether the hub answers and, where that is not known, whether we may do all we need.
async fn probe(client: &HubClient, rights_too: bool) -> Result<HubFacts, HubError> {
    let facts = client.probe().await?;
    if rights_too {
        client.check_rights().await?;
    }
    Ok(facts)
}
