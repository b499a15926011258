//! One watch for each Secret that an Enrollment refers to.
//!
//! The gateway's Roles name single Secrets; a watch on a name is all that they allow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::core::DeserializeGuard;
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::sinks::Keys;
use super::{Health, Pulse, follow};
use crate::gateway::tenants::Tenants;

/// How soon to look again whether new Secrets have been looked at.
const SOON: Duration = Duration::from_millis(50);

struct Watched {
    pulse: Arc<Pulse>,
    task: AbortHandle,
}

/// Watches whatever is wanted, until dropped. `changed` says that this may be something else now.
pub(super) async fn watch(
    client: Client,
    tenants: Arc<Tenants>,
    changed: Arc<Notify>,
    health: Arc<Health>,
) {
    let mut tasks = JoinSet::new();
    let mut watched = BTreeMap::<(String, String), Watched>::new();
    changed.notified().await;
    loop {
        let wanted = tenants.wanted_secrets();
        watched.retain(|key, it| {
            let keep = wanted.contains(key);
            if !keep {
                it.task.abort();
                tenants.set_secret(&key.0, &key.1, None);
            }
            keep
        });
        for key in wanted {
            watched.entry(key).or_insert_with_key(|(namespace, name)| {
                let pulse = health.uncounted_pulse("attestation Secrets");
                let sink = Keys {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    tenants: tenants.clone(),
                    pulse: pulse.clone(),
                };
                let api = Api::<DeserializeGuard<Secret>>::namespaced(client.clone(), namespace);
                let task = tasks.spawn(follow(api, sink, Some(name.clone()), pulse.clone()));
                Watched { pulse, task }
            });
        }
        while tasks.try_join_next().is_some() {}
        let pending = watched.values().filter(|it| !it.pulse.has_beaten()).count();
        health.secrets_pending(pending);
        if pending == 0 {
            changed.notified().await;
        } else {
            tokio::select! {
                () = changed.notified() => {}
                () = sleep(SOON) => {}
            }
        }
    }
}
