//! Which Secrets the gateway may read.
//!
//! RBAC cannot filter Secrets by label, so each tenant's namespace gets Roles that name exactly
//! the Secrets that Enrollments there refer to: labelled for attestation, and no hub's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::context::Context;
use super::triggers::stream;
use crate::cluster::apply::{ApplyError, CONTROLLER, Class, bounded};
use crate::cluster::token::ServiceAccountRef;
use crate::cluster::watch::Scope;

/// Names that one Role lists at most; with names of full length that is a quarter of what an
/// object may hold.
const NAMES_PER_ROLE: usize = 1000;
/// Prefix of the Roles and `RoleBinding`s; the admission policy allows the controller no other.
const PREFIX: &str = "rehome-gateway-";
const OURS: (&str, &str) = ("rehome.dev/gateway-access", "true");
/// Changes that come together are written together.
const GATHER: Duration = Duration::from_millis(100);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the grants current, for ever.
pub async fn keep(
    ctx: Arc<Context>,
    gateway: ServiceAccountRef,
    scope: Scope,
    queue: UnboundedReceiver<String>,
) {
    let mut access = Access {
        granted: HashMap::new(),
        ctx,
        gateway,
    };
    let mut waiting: HashMap<String, Instant> = HashMap::new();
    match access.namespaces_with_grants(&scope).await {
        Ok(namespaces) => {
            waiting.extend(
                namespaces
                    .into_iter()
                    .map(|namespace| (namespace, Instant::now())),
            );
        }
        Err(error) => {
            tracing::warn!(%error, "grants of an earlier run were not listed; stale ones may stay");
        }
    }
    let mut queue = std::pin::pin!(stream(queue));
    loop {
        let due = waiting.values().min().copied();
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            namespace = queue.next() => {
                let Some(namespace) = namespace else { return };
                waiting.entry(namespace).or_insert_with(|| Instant::now() + GATHER);
                continue;
            }
            () = due => {}
        }
        let now = Instant::now();
        let ready: Vec<_> = waiting.iter().filter(|(_, due)| **due <= now).collect();
        let ready: Vec<_> = ready
            .into_iter()
            .map(|(namespace, _)| namespace.clone())
            .collect();
        for namespace in ready {
            waiting.remove(&namespace);
            if let Err(error) = access.settle(&namespace).await {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(namespace, %error, source, "the gateway's grants were not written");
                access
                    .ctx
                    .metrics
                    .failed("gateway-access", error.class().as_str());
                waiting.insert(namespace, Instant::now() + RETRY);
            }
        }
    }
}

struct Access {
    ctx: Arc<Context>,
    gateway: ServiceAccountRef,
    /// What each namespace's Roles grant, as far as this process wrote or read it.
    granted: HashMap<String, BTreeSet<String>>,
}

impl Access {
    async fn namespaces_with_grants(&self, scope: &Scope) -> Result<HashSet<String>, ApplyError> {
        let mut namespaces = HashSet::new();
        for (_, api) in scope.apis::<Role>(&self.ctx.client) {
            let roles = bounded(api.list(&ours())).await?;
            namespaces.extend(roles.iter().filter_map(ResourceExt::namespace));
        }
        Ok(namespaces)
    }

    /// Brings one namespace's grants to what they should be; writes nothing when they are.
    async fn settle(&mut self, namespace: &str) -> Result<(), ApplyError> {
        if self.ctx.is_namespace_going(namespace) {
            self.granted.remove(namespace);
            return Ok(());
        }
        let mut wanted = self.ctx.directory.attestation_secrets(namespace);
        wanted.retain(|name| self.ctx.secret(namespace, name).is_some());
        let granted = self.granted.get(namespace);
        if granted == Some(&wanted) {
            return Ok(());
        }
        self.granted.remove(namespace);
        let roles: Vec<_> = wanted.iter().cloned().collect();
        let roles: Vec<_> = roles
            .chunks(NAMES_PER_ROLE)
            .map(<[String]>::to_vec)
            .collect();
        let roles = roles.into_iter().enumerate();
        let roles: Vec<_> = roles
            .map(|(number, names)| self.role(namespace, number, names))
            .collect();
        let bindings: Vec<_> = roles
            .iter()
            .map(|role| self.binding(namespace, &role.name_any()))
            .collect();
        let client = &self.ctx.client;
        bring_to(
            &Api::<Role>::namespaced(client.clone(), namespace),
            &roles,
            |one, other| one.rules == other.rules,
        )
        .await?;
        let api = Api::<RoleBinding>::namespaced(client.clone(), namespace);
        bring_to(&api, &bindings, |one, other| {
            one.subjects == other.subjects && one.role_ref == other.role_ref
        })
        .await?;
        if !wanted.is_empty() {
            self.granted.insert(namespace.to_owned(), wanted);
        }
        Ok(())
    }

    fn role(&self, namespace: &str, number: usize, names: Vec<String>) -> Role {
        let rule = PolicyRule {
            api_groups: Some(vec![String::new()]),
            resources: Some(vec!["secrets".to_owned()]),
            resource_names: Some(names),
            verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
            ..PolicyRule::default()
        };
        let mut role = Role {
            rules: Some(vec![rule]),
            ..Role::default()
        };
        name(&mut role, namespace, &format!("{PREFIX}{number}"));
        role
    }

    fn binding(&self, namespace: &str, role: &str) -> RoleBinding {
        let mut binding = RoleBinding {
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: role.to_owned(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: self.gateway.name.clone(),
                namespace: Some(self.gateway.namespace.clone()),
                ..Subject::default()
            }]),
            ..RoleBinding::default()
        };
        name(&mut binding, namespace, role);
        binding
    }
}

fn name<K: Resource>(object: &mut K, namespace: &str, name: &str) {
    let labels = [OURS, ("app.kubernetes.io/managed-by", "rehome")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let meta = object.meta_mut();
    meta.name = Some(name.to_owned());
    meta.namespace = Some(namespace.to_owned());
    meta.labels = Some(BTreeMap::from(labels));
}

/// Applies those that differ from what is there, and deletes ours that are not wanted.
async fn bring_to<K>(
    api: &Api<K>,
    wanted: &[K],
    is_same: impl Fn(&K, &K) -> bool,
) -> Result<(), ApplyError>
where
    K: Resource + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let existing = bounded(api.list(&ours())).await?;
    for object in wanted {
        let name = object.name_any();
        let found = existing.iter().find(|found| found.name_any() == name);
        if found.is_none_or(|found| !is_same(found, object)) {
            let params = PatchParams::apply(CONTROLLER).force();
            bounded(api.patch(&name, &params, &Patch::Apply(object))).await?;
        }
    }
    for object in existing {
        let name = object.name_any();
        let is_wanted = wanted.iter().any(|wanted| wanted.name_any() == name);
        if !is_wanted && name.starts_with(PREFIX) {
            match bounded(api.delete(&name, &DeleteParams::default())).await {
                Err(error) if error.class() != Class::Gone => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

fn ours() -> ListParams {
    ListParams::default().labels(&format!("{}={}", OURS.0, OURS.1))
}
