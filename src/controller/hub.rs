//! `IoTHub`: does it answer, do its credentials do, and is it the only one of its name?
//!
//! Keeps the hub's client current, probes it, and holds its finalizer while registrations refer to
//! it. Moves no device: a hub that blinks changes only its own conditions.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::instrument;

use super::context::Context;
use super::hub_clients::NoClient;
use super::status::{Error, Verdict};
use crate::api::v1alpha1::{ConditionType, HubRef, IoTHub, IoTHubStatus, Reason, is_true, settle};
use crate::cluster::apply::{apply_status, bounded};
use crate::cluster::finalizer;
use crate::registry::{Cause, HubClient, HubError, HubFacts};

/// Failed probes in a row after which a hub that was Ready no longer is.
const PATIENCE: u32 = 2;
/// Between looks at whether a hub that is being deleted is still referred to.
const IN_USE: Duration = Duration::from_secs(15);
/// Between looks at an object that only a change of it or of its Secret can help.
const STUCK: Duration = Duration::from_mins(5);

/// What a pass found out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Findings {
    reachable: Verdict,
    credentials: Verdict,
    ready: Verdict,
    /// `None` leaves what an earlier probe said.
    guarantees: Option<Vec<String>>,
}

/// Looks at one hub.
#[instrument(skip_all, fields(hub = %hub.name_any(), namespace = hub.namespace()))]
pub async fn reconcile(hub: Arc<IoTHub>, ctx: Arc<Context>) -> Result<Action, Error> {
    let namespace = hub.namespace().unwrap_or_default();
    let api: Api<IoTHub> = Api::namespaced(ctx.client.clone(), &namespace);
    let uid = hub.uid().unwrap_or_default();
    let deleting = hub.meta().deletion_timestamp.is_some();
    if deleting && ctx.index.referring(&hub).0 == 0 {
        let released = finalizer::remove(&api, &*hub).await;
        released.map_err(|error| Error::new("removing the finalizer", &hub.name_any(), error))?;
        return Ok(Action::await_change());
    }
    if let Some(findings) = host_taken(&hub, &ctx) {
        ctx.hubs.block(&hub, &findings.ready.message);
        report(&api, &hub, &ctx, Some(findings)).await?;
        return Ok(Action::requeue(STUCK));
    }
    let now = ctx.clock.monotonic();
    let generation = hub.meta().generation;
    let mut findings = if ctx.probes.is_due(&uid, generation, now) {
        let known = ctx.probes.begin(&uid, generation);
        let findings = look(&hub, &ctx, &namespace, known).await;
        // A Secret that could not be read is still to be read.
        let findings = findings.inspect_err(|_| ctx.probes.hurry(&uid))?;
        let well = findings.ready.holds == Some(true);
        let failures = ctx
            .probes
            .probed(&uid, generation, well, ctx.clock.monotonic());
        if is_ready(&hub) && is_passing(&findings) && failures < PATIENCE {
            tracing::debug!(
                message = findings.ready.message,
                "a probe failed; the hub keeps its state"
            );
            return Ok(Action::requeue(
                ctx.probes.due_in(&uid, ctx.clock.monotonic()),
            ));
        }
        Some(findings)
    } else {
        None
    };
    if deleting {
        in_use(&hub, &ctx, &mut findings);
    }
    if findings
        .as_ref()
        .is_some_and(|findings| findings.ready.holds == Some(true))
        && !deleting
        && !finalizer::is_set(&*hub)
    {
        // Before anything can be placed on it; the change brings us back.
        ctx.probes.hurry(&uid);
        let added = finalizer::add(&api, &*hub).await;
        added.map_err(|error| Error::new("adding the finalizer", &hub.name_any(), error))?;
        return Ok(Action::await_change());
    }
    report(&api, &hub, &ctx, findings).await?;
    ctx.backoff.forget(&uid);
    let next = ctx.probes.due_in(&uid, ctx.clock.monotonic());
    Ok(Action::requeue(if deleting {
        next.min(IN_USE)
    } else {
        next
    }))
}

/// Makes the hub's client from what is there, without asking the hub anything.
pub async fn connect(hub: &IoTHub, ctx: &Context) {
    if let Some(findings) = host_taken(hub, ctx) {
        return ctx.hubs.block(hub, &findings.ready.message);
    }
    let namespace = hub.namespace().unwrap_or_default();
    match secret(hub, ctx, &namespace).await {
        // The hub's own controller shows what is wrong with it.
        Ok(secret) => drop(ctx.hubs.refresh(hub, secret.as_ref())),
        Err(error) => {
            tracing::warn!(%error, "a hub is not connected to yet");
        }
    }
}

/// Whether the hub of this host is another `IoTHub`.
fn host_taken(hub: &IoTHub, ctx: &Context) -> Option<Findings> {
    let claimants = ctx.directory.claimants_of_host(&hub.spec.host_name);
    let first = claimants.first()?;
    if hub.uid().as_ref() == Some(&first.uid) {
        return None;
    }
    let whose = if hub.namespace().as_ref() == Some(&first.name.0) {
        format!("IoTHub {}", first.name.1)
    } else {
        // The other tenant's names are none of this one's business.
        "an IoTHub of another namespace".to_owned()
    };
    let message = format!(
        "{whose} is older and has the host {}; one hub must not have two names, so use that one, \
         or delete it first",
        hub.spec.host_name
    );
    let unknown = Verdict::unknown(Reason::HostTaken, "not looked at");
    Some(Findings {
        reachable: unknown.clone(),
        credentials: unknown,
        ready: Verdict::no(Reason::HostTaken, message),
        guarantees: None,
    })
}

/// Probes the hub; reads its Secret first unless the client is `known` to be made from it. A hub at
/// rest costs the API server nothing.
async fn look(
    hub: &IoTHub,
    ctx: &Context,
    namespace: &str,
    known: bool,
) -> Result<Findings, Error> {
    let client = ctx.hubs.get(&HubRef::of(hub)).ok().filter(|_| known);
    let (client, is_new) = if let Some(client) = client {
        (client, false)
    } else {
        let secret = secret(hub, ctx, namespace).await?;
        match ctx.hubs.refresh(hub, secret.as_ref()) {
            Ok(made) => made,
            Err(error) => return Ok(without_client(error)),
        }
    };
    let probed = probe(&client, is_new || !is_ready(hub)).await;
    Ok(probed.map_or_else(|error| failed(&error), |facts| well(&facts)))
}

async fn secret(hub: &IoTHub, ctx: &Context, namespace: &str) -> Result<Option<Secret>, Error> {
    let name = &hub.spec.connection.connection_string_secret_ref.name;
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    bounded(secrets.get_opt(name))
        .await
        .map_err(|error| Error::new("reading the Secret", &hub.name_any(), error))
}

/// Asks whether the hub answers and, where that is not known, whether we may do all we need.
async fn probe(client: &HubClient, rights_too: bool) -> Result<HubFacts, HubError> {
    let facts = client.probe().await?;
    if rights_too {
        client.check_rights().await?;
    }
    Ok(facts)
}

fn without_client(NoClient { reason, message }: NoClient) -> Findings {
    Findings {
        reachable: Verdict::unknown(reason, "not tried without credentials"),
        credentials: Verdict::no(reason, message.clone()),
        ready: Verdict::no(reason, message),
        guarantees: None,
    }
}

fn well(facts: &HubFacts) -> Findings {
    Findings {
        reachable: Verdict::yes(Reason::Settled, "the hub answers"),
        credentials: Verdict::yes(Reason::Settled, "the hub accepts the credentials"),
        ready: Verdict::yes(Reason::Settled, "devices can be placed here"),
        guarantees: Some(facts.guarantees.clone()),
    }
}

fn failed(error: &HubError) -> Findings {
    let message = error.to_string();
    let unknown = |reason| Verdict::unknown(reason, "the hub did not get as far");
    let (reason, reachable, credentials) = match &error.cause {
        Cause::Unreachable(_) | Cause::FateUnknown(_) => {
            let reason = Reason::HubUnreachable;
            (
                reason,
                Verdict::no(reason, message.clone()),
                unknown(reason),
            )
        }
        Cause::Unauthorized(_) => {
            let reason = Reason::HubUnauthorized;
            let reachable = Verdict::yes(Reason::Settled, "the hub answers");
            (reason, reachable, Verdict::no(reason, message.clone()))
        }
        Cause::Throttled { .. } => {
            let reason = Reason::HubThrottled;
            let reachable = Verdict::yes(Reason::Settled, "the hub answers");
            (reason, reachable, unknown(reason))
        }
        Cause::PreconditionFailed | Cause::NotFound | Cause::Fenced | Cause::Refused { .. } => {
            let reason = Reason::HubRefused;
            let reachable = Verdict::yes(Reason::Settled, "the hub answers");
            (reason, reachable, unknown(reason))
        }
    };
    Findings {
        reachable,
        credentials,
        ready: Verdict::no(reason, message),
        guarantees: None,
    }
}

/// Whether a failure may pass by itself, so that one of it tells nothing.
fn is_passing(findings: &Findings) -> bool {
    findings.ready.holds != Some(true)
        && matches!(
            findings.ready.reason,
            Reason::HubUnreachable | Reason::HubThrottled
        )
}

fn is_ready(hub: &IoTHub) -> bool {
    let status = hub.status.as_ref();
    status.is_some_and(|status| is_true(&status.conditions, ConditionType::Ready))
}

/// What keeps a hub that is being deleted. The hub goes on serving until nothing refers to it.
fn in_use(hub: &IoTHub, ctx: &Context, findings: &mut Option<Findings>) {
    let (count, example) = ctx.index.referring(hub);
    let example = example
        .map(|name| format!(", for example {name}"))
        .unwrap_or_default();
    let message = format!(
        "{count} registrations refer to this hub{example}; it goes when they have moved to another \
         hub or are deleted"
    );
    let verdict = Verdict::no(Reason::InUse, message);
    let findings = findings.get_or_insert_with(|| Findings {
        reachable: known(hub, ConditionType::Reachable),
        credentials: known(hub, ConditionType::CredentialsValid),
        ready: verdict.clone(),
        guarantees: None,
    });
    findings.ready = verdict;
}

/// A condition as it stands.
fn known(hub: &IoTHub, type_: ConditionType) -> Verdict {
    let conditions = hub.status.iter().flat_map(|status| &status.conditions);
    let condition = conditions
        .into_iter()
        .find(|known| known.type_ == type_.as_str());
    let reason = condition.and_then(|condition| {
        Reason::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == condition.reason)
    });
    match condition.zip(reason) {
        Some((condition, reason)) => Verdict {
            holds: match condition.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            reason,
            message: condition.message.clone(),
        },
        None => Verdict::unknown(Reason::HubUnreachable, "not looked at yet"),
    }
}

/// Writes the status if it says something new.
async fn report(
    api: &Api<IoTHub>,
    hub: &IoTHub,
    ctx: &Context,
    findings: Option<Findings>,
) -> Result<(), Error> {
    let old = hub.status.clone().unwrap_or_default();
    let mut status = IoTHubStatus {
        assigned_devices: Some(ctx.counters.hub(ctx, &hub.uid().unwrap_or_default())),
        ..old.clone()
    };
    if let Some(findings) = &findings {
        let (generation, now) = (hub.meta().generation, ctx.clock.now());
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
