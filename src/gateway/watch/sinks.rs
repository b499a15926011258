//! What each kind becomes in memory.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::ResourceExt as _;
use tokio::sync::Notify;

use super::{Pulse, Sink};
use crate::api::v1alpha1::{DeviceRegistration, Enrollment, IoTHub};
use crate::gateway::mirror::Mirror;
use crate::gateway::record::Record;
use crate::gateway::tenants::{Enrolled, Tenants};

pub(super) struct Namespaces {
    pub(super) tenants: Arc<Tenants>,
}

impl Sink<Namespace> for Namespaces {
    type Item = Namespace;

    fn keep(&self, object: Namespace) -> Option<Namespace> {
        Some(object)
    }

    fn replace(&self, all: Vec<Namespace>) {
        self.tenants.update_scopes(|scopes| scopes.replace(&all));
    }

    fn apply(&self, object: Namespace) {
        self.tenants.update_scopes(|scopes| scopes.apply(&object));
    }

    fn remove(&self, object: Namespace) {
        self.tenants.update_scopes(|scopes| scopes.remove(&object));
    }
}

pub(super) struct Enrollments {
    pub(super) of: Option<String>,
    pub(super) tenants: Arc<Tenants>,
    /// Tells the watch on Secrets that others may be wanted.
    pub(super) changed: Arc<Notify>,
}

impl Sink<Enrollment> for Enrollments {
    type Item = Enrolled;

    fn keep(&self, object: Enrollment) -> Option<Enrolled> {
        Enrolled::new(&object)
    }

    fn replace(&self, all: Vec<Enrolled>) {
        self.tenants.replace_enrollments(self.of.as_deref(), all);
        self.changed.notify_one();
    }

    fn apply(&self, object: Enrollment) {
        if let Some(enrolled) = Enrolled::new(&object) {
            self.tenants.apply_enrollment(enrolled);
        } else {
            let namespace = object.namespace().unwrap_or_default();
            self.tenants
                .remove_enrollment(&namespace, &object.name_any());
        }
        self.changed.notify_one();
    }

    fn remove(&self, object: Enrollment) {
        let namespace = object.namespace().unwrap_or_default();
        self.tenants
            .remove_enrollment(&namespace, &object.name_any());
        self.changed.notify_one();
    }
}

pub(super) struct Hubs {
    pub(super) of: Option<String>,
    pub(super) tenants: Arc<Tenants>,
}

impl Sink<IoTHub> for Hubs {
    type Item = IoTHub;

    fn keep(&self, object: IoTHub) -> Option<IoTHub> {
        Some(without_ballast(object))
    }

    fn replace(&self, all: Vec<IoTHub>) {
        self.tenants.replace_hubs(self.of.as_deref(), all);
    }

    fn apply(&self, object: IoTHub) {
        self.tenants.apply_hub(without_ballast(object));
    }

    fn remove(&self, object: IoTHub) {
        self.tenants.remove_hub(&object);
    }
}

/// A hub without what allocation does not look at.
fn without_ballast(mut hub: IoTHub) -> IoTHub {
    hub.metadata.managed_fields = None;
    hub.metadata.annotations = None;
    hub.spec.connection = None;
    hub.spec.managed = None;
    hub
}

pub(super) struct Records {
    pub(super) of: Option<String>,
    pub(super) mirror: Arc<Mirror>,
}

impl Sink<DeviceRegistration> for Records {
    type Item = (String, Record);

    fn keep(&self, object: DeviceRegistration) -> Option<Self::Item> {
        Some((object.namespace().unwrap_or_default(), object.into()))
    }

    fn replace(&self, all: Vec<Self::Item>) {
        self.mirror.replace(self.of.as_deref(), all);
    }

    fn apply(&self, object: DeviceRegistration) {
        let namespace = object.namespace().unwrap_or_default();
        self.mirror.apply(&namespace, Arc::new(object.into()));
    }

    fn remove(&self, object: DeviceRegistration) {
        let namespace = object.namespace().unwrap_or_default();
        self.mirror.remove(&namespace, &object.into());
    }
}

/// One Secret.
pub(super) struct Keys {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) tenants: Arc<Tenants>,
    pub(super) pulse: Arc<Pulse>,
}

impl Sink<Secret> for Keys {
    type Item = Secret;

    fn keep(&self, object: Secret) -> Option<Secret> {
        Some(object)
    }

    fn replace(&self, mut all: Vec<Secret>) {
        self.tenants
            .set_secret(&self.namespace, &self.name, all.pop());
    }

    fn apply(&self, object: Secret) {
        self.tenants
            .set_secret(&self.namespace, &self.name, Some(object));
    }

    fn remove(&self, _: Secret) {
        self.tenants.set_secret(&self.namespace, &self.name, None);
    }

    fn forbidden(&self) {
        self.tenants.set_secret(&self.namespace, &self.name, None);
        // Looked at, with a clear result.
        self.pulse.beat();
    }
}
