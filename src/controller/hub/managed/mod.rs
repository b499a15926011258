//! Hubs that the operator runs: observe what there is, compare it with what should be, apply what
//! differs, and say how each part is.
//!
//! ```text
//!  IoTHub ──▶ objects (pure) ──▶ drift (pure) ──▶ apply ──▶ NetworkPolicy, PodDisruptionBudget,
//!        └──▶ secrets: service key, certificate                Service, StatefulSet
//!                                    turns (pure): a pod is changed only when it is its turn
//! ```
//!
//! A hub at rest costs the API server nothing: objects come from watches, and Secrets are read only
//! when they changed.

mod apply;
mod certificate;
mod drift;
mod memory;
mod names;
mod objects;
mod secrets;
mod turns;
mod workload;

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, DeleteParams};
use kube::{Resource as _, ResourceExt as _};

pub(in crate::controller) use memory::Memory;
pub(in crate::controller) use names::{AUTHORITY, Names, SELECTOR, hub_of};
pub(super) use secrets::CONNECTION_STRING;
pub(in crate::controller) use turns::Turns;
pub(super) use workload::volume_full;

use crate::api::v1alpha1::{DeletionPolicy, IoTHub, ManagedSpec, Reason};
use crate::cluster::apply::{Class, bounded};
use crate::controller::context::Context;
use crate::controller::status::{Error, Verdict};

/// What the installation says about the hubs that it runs.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Hosting {
    /// Image of managed hubs, which should be the controller's own. Without it none is run.
    #[arg(long = "hub-image", value_name = "IMAGE")]
    pub image: Option<String>,
    /// When nodes pull that image: `Always`, `IfNotPresent` or `Never`.
    #[arg(
        long = "hub-image-pull-policy",
        value_name = "POLICY",
        default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"]
    )]
    pub pull_policy: String,
    /// Secret of each hub's namespace with which nodes pull the image; may be given several times.
    #[arg(long = "hub-image-pull-secret", value_name = "SECRET")]
    pub pull_secrets: Vec<String>,
    /// Reach the Service of a managed hub there, for a controller outside the cluster; may be given
    /// several times.
    #[arg(long = "hub-forward", value_name = "NAMESPACE/IOTHUB=HOST:PORT", value_parser = forward)]
    pub forwards: Vec<(String, String)>,
}

/// How the parts of a managed hub are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hosted {
    pub(super) workload: Verdict,
    pub(super) certificate: Verdict,
    pub(super) service: Verdict,
    /// When to look again though nothing changed.
    pub(super) again: Option<Duration>,
}

impl Hosting {
    /// Where that hub's Service is reached from outside the cluster.
    pub(super) fn forwarded(&self, namespace: &str, name: &str) -> Option<&str> {
        let hub = format!("{namespace}/{name}");
        let mut forwards = self.forwards.iter();
        forwards
            .find(|(known, _)| *known == hub)
            .map(|(_, to)| to.as_str())
    }
}

impl Hosted {
    /// What keeps devices from the hub, if anything does; the cause before its effects.
    pub(super) fn trouble(&self) -> Option<&Verdict> {
        let parts = [&self.certificate, &self.workload, &self.service];
        parts.into_iter().find(|part| part.holds != Some(true))
    }

    /// Whether somebody has to act before it gets better.
    pub(super) fn is_stuck(&self) -> bool {
        self.trouble()
            .is_some_and(|trouble| workload::is_stuck(trouble.reason))
    }
}

/// Brings the hub's objects to what they should be; writes nothing when they are.
pub(super) async fn settle(
    hub: &IoTHub,
    managed: &ManagedSpec,
    ctx: &Context,
) -> Result<Hosted, Error> {
    let secrets = secrets::settle(hub, managed, ctx).await?;
    let Some(image) = &ctx.hosting.image else {
        let message = "the operator does not know the image of hubs; start it with --hub-image";
        let none = Verdict::no(Reason::ImageUnavailable, message);
        return Ok(Hosted {
            workload: none.clone(),
            certificate: secrets.certificate,
            service: none,
            again: None,
        });
    };
    let database = secrets.database.as_deref();
    let parts = objects::parts(hub, managed, image, database, &ctx.hosting);
    let mut applied = apply::settle(hub, parts, ctx).await?;
    let now = ctx.clock.now();
    let pods = pods(hub, ctx);
    let pods: Vec<_> = pods.iter().map(AsRef::as_ref).collect();
    let workload = applied
        .workload_problem
        .take()
        .or(secrets.problem)
        .unwrap_or_else(|| {
            let seen = workload::judge(applied.set.as_deref(), &pods, now);
            match (&applied.waits_for, seen.holds) {
                (Some((namespace, name)), Some(true)) => {
                    // Of another tenant's hub not even the name is told.
                    let whom = if hub.namespace().as_ref() == Some(namespace) {
                        format!("hub {name}")
                    } else {
                        "another hub".to_owned()
                    };
                    let message = format!(
                        "the pod is ready; it restarts with its new template after {whom} is ready"
                    );
                    Verdict::yes(Reason::WaitingForTurn, message)
                }
                _ => seen,
            }
        });
    let service = applied.service_problem.take();
    Ok(Hosted {
        workload,
        certificate: secrets.certificate,
        service: service.unwrap_or_else(|| workload::address(applied.service.as_deref())),
        again: applied.again,
    })
}

/// Lets the hub's volume go where its policy says so. All else goes with the `IoTHub`.
pub(super) async fn release(
    hub: &IoTHub,
    managed: &ManagedSpec,
    ctx: &Context,
) -> Result<(), Error> {
    if managed.deletion_policy() == DeletionPolicy::Retain {
        return Ok(());
    }
    let failed = |error| Error::new("deleting the volume claim", &hub.name_any(), error);
    let claim = Names::of(hub).claim();
    let namespace = hub.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &namespace);
    let found = bounded(claims.get_opt(&claim)).await.map_err(failed)?;
    // One that somebody else made under this name is none of ours.
    let ours = Names::of(hub).selector();
    let is_ours = |claim: &PersistentVolumeClaim| {
        ours.iter()
            .all(|(key, value)| claim.labels().get(key) == Some(value))
    };
    let Some(found) = found.filter(is_ours) else {
        return Ok(());
    };
    if found.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    match bounded(claims.delete(&claim, &DeleteParams::default())).await {
        Err(error) if error.class() != Class::Gone => Err(failed(error)),
        _ => Ok(()),
    }
}

/// The hub's pods, as the watch shows them.
fn pods(hub: &IoTHub, ctx: &Context) -> Vec<std::sync::Arc<Pod>> {
    let (namespace, name) = (hub.namespace(), hub.name_any());
    ctx.stores
        .pods
        .state_filter(|pod| pod.namespace() == namespace && hub_of(pod) == Some(name.as_str()))
}

fn forward(text: &str) -> Result<(String, String), String> {
    let form = || "expected NAMESPACE/IOTHUB=HOST:PORT".to_owned();
    let (hub, to) = text.split_once('=').ok_or_else(form)?;
    if hub.split('/').count() != 2 || !to.contains(':') {
        return Err(form());
    }
    Ok((hub.to_owned(), to.to_owned()))
}

/// Whether an object belongs to this very `IoTHub`, not to an earlier one of its name.
fn is_owned<K: kube::Resource>(object: &K, hub: &IoTHub) -> bool {
    let uid = hub.uid().unwrap_or_default();
    object
        .owner_references()
        .iter()
        .any(|owner| owner.uid == uid)
}

/// An object of a name that is needed belongs to somebody else.
fn name_taken(kind: &str, name: &str) -> Verdict {
    let message = format!(
        "{kind} {name} is there and not this IoTHub's; delete it if it is a left-over, or name the \
         IoTHub otherwise"
    );
    Verdict::no(Reason::NameTaken, message)
}

type Slots<T> = std::sync::Mutex<HashMap<String, T>>;
