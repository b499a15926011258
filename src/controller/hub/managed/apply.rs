//! Applies the objects that differ from what they should be.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::drift::holds;
use super::objects::{Kind, Part};
use super::turns::Stage;
use super::{Names, is_owned, name_taken, workload};
use crate::api::v1alpha1::{IoTHub, Reason};
use crate::cluster::apply::{ApplyError, CONTROLLER, Class, bounded};
use crate::controller::context::Context;
use crate::controller::status::{Error, Verdict};

/// What a pass over the objects found.
#[derive(Default)]
pub(super) struct Applied {
    pub(super) set: Option<Arc<StatefulSet>>,
    pub(super) service: Option<Arc<Service>>,
    /// The hub that has to be ready before this one's pod is changed.
    pub(super) waits_for: Option<(String, String)>,
    pub(super) workload_problem: Option<Verdict>,
    pub(super) service_problem: Option<Verdict>,
    pub(super) again: Option<Duration>,
}

/// One object: what the watch shows, and what is to be done.
enum Outcome {
    /// It is as it should be, or will be once the watch shows our write.
    Settled { again: Option<Duration> },
    /// It was written.
    Written,
    /// It cannot be written.
    Refused(Verdict),
}

/// Brings every object to what it should be.
pub(super) async fn settle(
    hub: &IoTHub,
    parts: Vec<Part>,
    ctx: &Context,
) -> Result<Applied, Error> {
    let key = Names::of(hub).base;
    let namespace = hub.namespace().unwrap_or_default();
    let mut applied = Applied {
        set: ctx
            .stores
            .stateful_sets
            .get(&ObjectRef::new(&key).within(&namespace)),
        service: ctx
            .stores
            .services
            .get(&ObjectRef::new(&key).within(&namespace)),
        ..Applied::default()
    };
    for part in parts {
        let stores = &ctx.stores;
        let outcome = match part.kind {
            Kind::NetworkPolicy => {
                let store: &Store<NetworkPolicy> = &stores.network_policies;
                one(hub, &part, store, ctx).await?
            }
            Kind::PodDisruptionBudget => {
                let store: &Store<PodDisruptionBudget> = &stores.disruption_budgets;
                one(hub, &part, store, ctx).await?
            }
            Kind::Service => one(hub, &part, &stores.services, ctx).await?,
            Kind::StatefulSet => {
                if let Some(other) = in_turn(hub, &part, applied.set.as_deref(), ctx) {
                    applied.waits_for = Some(other);
                    continue;
                }
                one(hub, &part, &stores.stateful_sets, ctx).await?
            }
        };
        match outcome {
            Outcome::Written => {}
            Outcome::Settled { again } => applied.again = earlier(applied.again, again),
            Outcome::Refused(verdict) if part.kind == Kind::Service => {
                applied.service_problem = Some(verdict);
            }
            Outcome::Refused(verdict) => {
                applied.workload_problem.get_or_insert(verdict);
            }
        }
    }
    Ok(applied)
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// The hub for which a change of the pod has to wait. Wakes the others when this one's stage
/// changes: it may be their turn.
fn in_turn(
    hub: &IoTHub,
    part: &Part,
    set: Option<&StatefulSet>,
    ctx: &Context,
) -> Option<(String, String)> {
    let name = (hub.namespace().unwrap_or_default(), hub.name_any());
    let uid = hub.uid().unwrap_or_default();
    let shown = set.and_then(|set| set.metadata.resource_version.as_deref());
    let now = ctx.clock.monotonic();
    let stage = if ctx
        .memory
        .unseen(&uid, Kind::StatefulSet, shown, now)
        .is_some()
    {
        Stage::Rolling
    } else {
        set.map_or(Stage::Down, |set| {
            let wanted = &part.object["spec"]["template"];
            let there = serde_json::to_value(&set.spec).unwrap_or_default();
            workload::stage(set, !holds(&there["template"], wanted))
        })
    };
    if ctx.turns.note(&name, stage) {
        for (namespace, name) in ctx.turns.waiting() {
            ctx.triggers.hub(&namespace, &name);
        }
    }
    match stage {
        // A pod that serves nobody can be changed at any time.
        Stage::Well | Stage::Rolling | Stage::Down => None,
        Stage::Behind => ctx.turns.take(&name, &all_managed(ctx)).err(),
    }
}

fn all_managed(ctx: &Context) -> Vec<(String, String)> {
    let managed = ctx
        .stores
        .hubs
        .state_filter(|hub| hub.spec.managed.is_some());
    let names = managed
        .iter()
        .map(|hub| (hub.namespace().unwrap_or_default(), hub.name_any()));
    names.collect()
}

async fn one<K>(
    hub: &IoTHub,
    part: &Part,
    store: &Store<K>,
    ctx: &Context,
) -> Result<Outcome, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Serialize + Send + Sync + 'static,
{
    let (namespace, uid) = (
        hub.namespace().unwrap_or_default(),
        hub.uid().unwrap_or_default(),
    );
    let name = part.object["metadata"]["name"].as_str().unwrap_or_default();
    let there = store.get(&ObjectRef::new(name).within(&namespace));
    let version = there.as_ref().and_then(|there| there.resource_version());
    let now = ctx.clock.monotonic();
    if let Some(again) = ctx.memory.unseen(&uid, part.kind, version.as_deref(), now) {
        return Ok(Outcome::Settled { again: Some(again) });
    }
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &namespace);
    let failed = |error| Error::new("reading a part", &hub.name_any(), error);
    let there = match there {
        Some(there) => Some(there),
        // The watch shows only what carries our label; what somebody else has must not be taken.
        None => bounded(api.get_opt(name))
            .await
            .map_err(failed)?
            .map(Arc::new),
    };
    if let Some(there) = &there {
        if !is_owned(&**there, hub) {
            return Ok(Outcome::Refused(name_taken(part.kind.as_str(), name)));
        }
        let shown = serde_json::to_value(&**there).unwrap_or_default();
        if holds(&shown, &part.object) {
            return Ok(Outcome::Settled { again: None });
        }
    }
    let mut object = part.object.clone();
    if let Some(uid) = there.as_ref().and_then(|there| there.uid()) {
        object["metadata"]["uid"] = uid.into();
    }
    let params = PatchParams::apply(CONTROLLER).force();
    match bounded(api.patch(name, &params, &Patch::Apply(&object))).await {
        Ok(written) => {
            let version = written.resource_version();
            ctx.memory
                .sent(&uid, part.kind, version, ctx.clock.monotonic());
            tracing::info!(
                kind = part.kind.as_str(),
                name,
                "a part of the hub was written"
            );
            Ok(Outcome::Written)
        }
        Err(error) => refused(hub, part.kind, name, error),
    }
}

/// A refusal that stays becomes a verdict; all else is tried again.
fn refused(hub: &IoTHub, kind: Kind, name: &str, error: ApplyError) -> Result<Outcome, Error> {
    match error.refusal() {
        Some(why) if error.class() != Class::Conflict => {
            let message = format!("the API server refuses {} {name}: {why}", kind.as_str());
            Ok(Outcome::Refused(Verdict::no(Reason::PartRefused, message)))
        }
        _ => Err(Error::new("writing a part", &hub.name_any(), error)),
    }
}
