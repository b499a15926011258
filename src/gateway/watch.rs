//! Keeps what the gateway knows of the cluster current: one watch for each kind, and one for each
//! Secret with attestation keys, because the gateway may read those by name only.
//!
//! Own loops instead of a library's watcher for one reason: they see bookmarks, and so know whether
//! silence means that nothing happens or that nothing arrives.

mod follow;
mod health;
mod secrets;
mod sinks;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::{Api, Client, Resource};
use tokio::task::JoinSet;

pub use self::follow::{Sink, follow};
pub use self::health::{Health, Pulse};
use self::sinks::{Enrollments, Hubs, Namespaces, Records};
use super::mirror::Mirror;
use super::tenants::Tenants;
use crate::api::v1alpha1::{DeviceRegistration, Enrollment, IoTHub};

/// Silence after which a watch counts as dead. The server is asked to end, and before that to
/// bookmark, each watch well within it.
pub const SILENCE: Duration = Duration::from_mins(1);

/// What is watched.
pub struct Watches {
    pub client: Client,
    /// The namespaces to serve; none means all, and ID scopes come from the Namespaces.
    pub namespaces: Vec<String>,
    pub tenants: Arc<Tenants>,
    pub mirror: Arc<Mirror>,
}

impl Watches {
    /// Watches until the returned set is dropped. `health` says when everything is there.
    pub fn start(self, health: &Arc<Health>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let changed = Arc::new(tokio::sync::Notify::new());
        let scopes: Vec<Option<String>> = if self.namespaces.is_empty() {
            let sink = Namespaces {
                tenants: self.tenants.clone(),
            };
            let api = Api::<DeserializeGuard<Namespace>>::all(self.client.clone());
            tasks.spawn(follow(api, sink, None, health.pulse("Namespaces")));
            vec![None]
        } else {
            self.namespaces.iter().cloned().map(Some).collect()
        };
        for of in scopes {
            let enrollments = Enrollments {
                of: of.clone(),
                tenants: self.tenants.clone(),
                changed: changed.clone(),
            };
            let hubs = Hubs {
                of: of.clone(),
                tenants: self.tenants.clone(),
            };
            let records = Records {
                of: of.clone(),
                mirror: self.mirror.clone(),
            };
            let (enrollment, hub, record) = (
                self.api::<Enrollment>(of.as_deref()),
                self.api::<IoTHub>(of.as_deref()),
                self.api::<DeviceRegistration>(of.as_deref()),
            );
            tasks.spawn(follow(
                enrollment,
                enrollments,
                None,
                health.pulse("Enrollments"),
            ));
            tasks.spawn(follow(hub, hubs, None, health.pulse("IoTHubs")));
            tasks.spawn(follow(
                record,
                records,
                None,
                health.pulse("DeviceRegistrations"),
            ));
        }
        tasks.spawn(secrets::watch(
            self.client,
            self.tenants,
            changed,
            health.clone(),
        ));
        tasks
    }

    fn api<K>(&self, of: Option<&str>) -> Api<DeserializeGuard<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match of {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}
