//! What all plans share: the API server, the operator's rights, hubs, Enrollments and Secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use rehome::api::v1alpha1::{ATTESTATION_LABEL, Enrollment, IoTHub};
use rehome::domain::attestation::{DeviceKeys, SharedKeys};
use rehome::domain::ids::RegistrationId;
use rehome_testing::{Cluster, Namespace};
use serde_json::{Value, json};

use crate::incarnation::Caches;

/// The hubs, by their number in a plan.
pub(crate) const HUBS: [&str; 3] = ["west", "east", "north"];
pub(crate) const WEST: usize = 0;
pub(crate) const EAST: usize = 1;

/// Key of the service policy of every hub.
pub(crate) const SERVICE_KEY: &str = "c2VydmljZS1rZXktb2YtdGhlLWh1Yg==";

pub(crate) struct Ground {
    pub(crate) namespace: Namespace,
    /// People.
    pub(crate) admin: Client,
    /// The operator's ServiceAccount, with the rights of the chart.
    pub(crate) controller: Client,
    /// The gateway's ServiceAccount, with the rights of the chart.
    pub(crate) gateway: Client,
    pub(crate) enrollments: Vec<Enrollment>,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) caches: Caches,
}

pub(crate) fn host_name(hub: &str) -> String {
    format!("{hub}.crash.example")
}

/// Enrollments by name: policy, hubs, Secret, more.
fn enrollments() -> Vec<Value> {
    let one = |name: &str, hubs: &[&str], secret: &str, more: Value| {
        let mut spec = json!({
            "group": {},
            "attestation": { "symmetricKey": { "secretRef": { "name": secret } } },
            "allocation": { "hubs": hubs },
            "initialTwin": {
                "tags": { "site": "b" },
                "properties": { "desired": { "rate": 5 } },
            },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": name }, "spec": spec,
        })
    };
    let migrate = json!({ "reprovisionPolicy": "MigrateData" });
    let reset = json!({ "reprovisionPolicy": "ResetData" });
    let proceed = json!({ "reprovisionPolicy": "MigrateData", "sourceUnreachable": "Proceed" });
    vec![
        one("stay-west", &["west"], "keys", migrate.clone()),
        one("to-east", &["east"], "keys", migrate.clone()),
        one("reset-west", &["west"], "keys", reset.clone()),
        one("reset-east", &["east"], "keys", reset),
        one("rotated", &["west"], "new-keys", migrate.clone()),
        one("anywhere", &["west", "east"], "keys", migrate),
        one("disaster", &["east"], "keys", proceed),
    ]
}

fn secrets() -> Vec<Value> {
    let keys = |name: &str, one: &str, other: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": name, "labels": { ATTESTATION_LABEL: "true" } },
            "stringData": { "primaryKey": one, "secondaryKey": other },
        })
    };
    let mut all = vec![
        keys(
            "keys",
            "Z3JvdXAta2V5LXByaW1hcnktMQ==",
            "Z3JvdXAta2V5LXNlY29uZGFyeQ==",
        ),
        keys(
            "new-keys",
            "bmV3ZXItZ3JvdXAta2V5LTAwMQ==",
            "bmV3ZXItZ3JvdXAta2V5LTAwMg==",
        ),
    ];
    all.extend(HUBS.map(|hub| {
        let host = host_name(hub);
        let text =
            format!("HostName={host};SharedAccessKeyName=rehome;SharedAccessKey={SERVICE_KEY}");
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("hub-{hub}") },
            "stringData": { "connectionString": text },
        })
    }));
    all
}

fn iot_hubs() -> Vec<Value> {
    let one = |hub: &str| {
        json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "IoTHub", "metadata": { "name": hub },
            "spec": {
                "hostName": host_name(hub),
                "connection": { "connectionStringSecretRef": { "name": format!("hub-{hub}") } },
            },
        })
    };
    HUBS.map(one).to_vec()
}

impl Ground {
    pub(crate) async fn lay() -> Result<Arc<Self>> {
        let cluster = Cluster::shared().await?;
        let operator = cluster.install_operator().await?;
        let namespace = cluster.namespace("crash").await?;
        for object in secrets().into_iter().chain(enrollments()).chain(iot_hubs()) {
            namespace.apply(&object.to_string()).await?;
        }
        let controller = operator.controller.client;
        let hubs: Api<IoTHub> = Api::namespaced(controller.clone(), namespace.name());
        for hub in HUBS {
            // What the hub controller finds out; it has tests of its own.
            let status = json!({ "status": {
                "guarantees": ["etags-unique", "fence", "versions", "modules"],
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Ready", "message": "",
                    "lastTransitionTime": "2026-03-01T07:00:00Z",
                }],
            } });
            let patch = Patch::Merge(&status);
            hubs.patch_status(hub, &PatchParams::default(), &patch)
                .await?;
        }
        let enrollments: Api<Enrollment> = namespace.api();
        let enrollments = enrollments.list(&ListParams::default()).await?.items;
        let secrets: Api<Secret> = namespace.api();
        let secrets = secrets.list(&ListParams::default()).await?.items;
        let caches = Caches::fill(&controller, namespace.name()).await?;
        Ok(Arc::new(Self {
            admin: cluster.client().clone(),
            gateway: operator.gateway.client,
            controller,
            namespace,
            enrollments,
            secrets,
            caches,
        }))
    }

    pub(crate) fn enrollment(&self, name: &str) -> Result<&Enrollment> {
        let mut all = self.enrollments.iter();
        all.find(|known| known.name_any() == name)
            .with_context(|| format!("no Enrollment {name}"))
    }

    /// Keys of a device that comes through an Enrollment.
    pub(crate) fn keys(&self, enrollment: &str, id: &RegistrationId) -> Result<DeviceKeys> {
        let spec = &self.enrollment(enrollment)?.spec;
        let keys = spec.attestation.symmetric_key.as_ref();
        let wanted = &keys.context("no symmetric keys")?.secret_ref;
        let mut all = self.secrets.iter();
        let secret = all
            .find(|known| known.name_any() == wanted.name)
            .context("no Secret")?;
        let nothing = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&nothing);
        let individual = spec.individual.is_some();
        Ok(SharedKeys::from_secret(wanted, individual, data)?.keys_for(id))
    }
}
