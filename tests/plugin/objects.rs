//! A small namespace at one moment: two hubs, a group, and a device that lives at one of the hubs.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use rehome::api::v1alpha1::{DeviceRegistration, Enrollment, IoTHub};

pub(crate) const NAMESPACE: &str = "plant-a";
pub(crate) const DEVICE: &str = "press-7";
/// The moment at which the namespace is looked at.
pub(crate) const NOW: &str = "2026-05-04T12:00:00Z";
/// When conditions changed last: too long ago for work that just takes its time.
const CHANGED: &str = "2026-05-04T09:00:00Z";

/// The objects, as JSON so that a case can change anything.
pub(crate) struct Objects {
    pub(crate) hubs: Vec<Value>,
    pub(crate) enrollments: Vec<Value>,
    pub(crate) registrations: Vec<Value>,
}

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub(crate) fn typed<K: DeserializeOwned>(object: &Value) -> K {
    serde_json::from_value(object.clone()).unwrap()
}

pub(crate) fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": CHANGED,
    })
}

pub(crate) fn hub(name: &str) -> Value {
    json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": "2026-04-01T00:00:00Z",
        },
        "spec": {
            "hostName": format!("{name}.example.com"),
            "connection": { "connectionStringSecretRef": { "name": format!("{name}-credentials") } },
        },
        "status": {
            "observedGeneration": 1, "assignedDevices": i64::from(name == "hub-west"),
            "conditions": [condition("Ready", "True", "Settled", "devices can be placed here")],
        },
    })
}

pub(crate) fn hub_ref(name: &str) -> Value {
    json!({ "name": name, "uid": format!("uid-{name}"), "hostName": format!("{name}.example.com") })
}

pub(crate) fn group() -> Value {
    json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
        "metadata": {
            "name": "line-3", "namespace": NAMESPACE, "uid": "uid-line-3", "generation": 1,
            "creationTimestamp": "2026-04-01T00:00:00Z",
        },
        "spec": {
            "group": {}, "reprovisionPolicy": "MigrateData",
            "attestation": { "symmetricKey": { "secretRef": { "name": "line-3-keys" } } },
            "allocation": { "policy": "Static", "hubs": ["hub-west"] },
        },
        "status": {
            "observedGeneration": 1,
            "registrations": {
                "total": 1, "assigning": 0, "assigned": 1, "failed": 0, "disabled": 0, "wouldMove": 0,
            },
            "conditions": [condition("Ready", "True", "Settled", "devices can register")],
        },
    })
}

/// A device that was assigned in the morning.
pub(crate) fn registration() -> Value {
    json!({
        "apiVersion": "rehome.dev/v1alpha1", "kind": "DeviceRegistration",
        "metadata": {
            "name": DEVICE, "namespace": NAMESPACE, "uid": "uid-press-7", "generation": 1,
            "creationTimestamp": "2026-05-04T08:59:58Z",
        },
        "spec": {
            "registrationId": DEVICE,
            "request": {
                "operationId": "4.press.1", "apiVersion": "2021-06-01", "credential": "c0ffee",
                "enrollment": { "name": "line-3", "uid": "uid-line-3" },
                "proposedHub": "hub-west", "reason": "InitialAssignment",
                "requestedAt": "2026-05-04T08:59:58.000000Z",
            },
        },
        "status": {
            "observedGeneration": 1, "state": "Assigned", "substatus": "InitialAssignment",
            "assignedHub": "hub-west.example.com", "home": hub_ref("hub-west"), "deviceId": DEVICE,
            "generationId": "g1", "operationId": "4.press.1", "policy": "MigrateData",
            "createdAt": "2026-05-04T09:00:00.000000Z", "lastChanged": "2026-05-04T09:00:00.000000Z",
            "conditions": [
                condition("Ready", "True", "InitialAssignment", "assigned to hub-west.example.com"),
            ],
        },
    })
}

/// A move to hub-east that was begun half a minute ago.
pub(crate) fn transfer(phase: &str) -> Value {
    json!({
        "id": "t1", "phase": phase, "data": "Migrate", "policy": "MigrateData", "placementHash": "h",
        "from": {
            "hub": hub_ref("hub-west"), "generationId": "g1", "original": { "enabled": true },
        },
        "to": { "hub": hub_ref("hub-east") }, "startedAt": "2026-05-04T11:59:30.000000Z",
    })
}

impl Objects {
    pub(crate) fn new() -> Self {
        Self {
            hubs: vec![hub("hub-east"), hub("hub-west")],
            enrollments: vec![group()],
            registrations: vec![registration()],
        }
    }

    /// The status of the one registration.
    pub(crate) fn status(&mut self) -> &mut Value {
        &mut self.registrations[0]["status"]
    }

    pub(crate) fn hub(&mut self, name: &str) -> &mut Value {
        let named = |hub: &&mut Value| hub["metadata"]["name"] == name;
        self.hubs.iter_mut().find(named).unwrap()
    }

    pub(crate) fn typed_hubs(&self) -> Vec<IoTHub> {
        self.hubs.iter().map(typed).collect()
    }

    pub(crate) fn typed_enrollments(&self) -> Vec<Enrollment> {
        self.enrollments.iter().map(typed).collect()
    }

    pub(crate) fn typed_registrations(&self) -> Vec<DeviceRegistration> {
        self.registrations.iter().map(typed).collect()
    }
}
