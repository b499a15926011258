//! A tenant of an installation: a namespace with its hubs, the groups that may enroll there, and the
//! devices of a group.

mod plant;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace};
use crate::device::{Applicant, Key, Protocol, Registrar, Told};
use crate::installation::{Hub, Installation};
use crate::wait::until;

pub use plant::Plant;

/// Longest time for the product to take up what a person wrote.
const TAKEN_UP: Duration = Duration::from_mins(1);
/// api-version that devices speak.
pub const API_VERSION: &str = "2021-06-01";

/// A namespace in which devices of this installation may live.
pub struct Tenant {
    pub namespace: Namespace,
    cluster: Cluster,
}

/// Devices with keys that are derived from one group key, and the hubs for them.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: String,
    pub hubs: Vec<String>,
    /// Such as `MigrateData`; `None` leaves it to the compatibility rule.
    pub policy: Option<&'static str>,
    pub key: Key,
}

impl Tenant {
    /// Makes a namespace, tells it of every hub of the installation, and waits until these are
    /// ready.
    pub async fn start(
        cluster: &Cluster,
        installation: &Installation,
        prefix: &str,
    ) -> Result<Self> {
        let tenant = Self {
            namespace: cluster.namespace(prefix).await?,
            cluster: cluster.clone(),
        };
        for hub in &installation.hubs {
            tenant.add_hub(hub).await?;
        }
        Ok(tenant)
    }

    /// Makes a hub known and waits until it is ready.
    pub async fn add_hub(&self, hub: &Hub) -> Result<()> {
        for manifest in hub.manifests() {
            self.namespace.apply(&manifest.to_string()).await?;
        }
        let hubs = self.objects("IoTHub");
        until(TAKEN_UP, async || {
            let seen = hubs.get(&hub.name).await?;
            let conditions = seen.data["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let ready = conditions.any(|one| one["type"] == "Ready" && one["status"] == "True");
            ensure!(ready, "its status is {}", seen.data["status"]);
            Ok(())
        })
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))
        .with_context(|| format!("{} is not ready", hub.name))
    }

    /// The objects of one of Rehome's kinds, with all rights.
    pub fn objects(&self, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk("rehome.dev", "v1alpha1", kind);
        let resource = ApiResource::from_gvk(&kind);
        Api::namespaced_with(
            self.cluster.client().clone(),
            self.namespace.name(),
            &resource,
        )
    }

    /// Applies the group's Secret and Enrollment, and waits until a first device of it, the
    /// pioneer, is told one of its hubs: gateway and controller know the group then.
    pub async fn enroll(&self, group: &Group, installation: &Installation) -> Result<()> {
        self.namespace.apply(&group.manifests()).await?;
        let hosts = hosts(&group.hubs, installation);
        let pioneer = self.device(group, "pioneer");
        until(TAKEN_UP, async || {
            let told = self.register(&installation.registrar, &pioneer).await?;
            ensure!(hosts.contains(&told.hub), "the pioneer was told {told:?}");
            Ok(())
        })
        .await
        .map_err(|last| last.unwrap_or_else(|| anyhow::anyhow!("no answer")))
        .with_context(|| format!("group {} is not taken up", group.name))
    }

    /// A device of the group.
    pub fn device(&self, group: &Group, name: impl std::fmt::Display) -> Applicant {
        let registration_id = format!("{}-{name}", group.name);
        Applicant {
            scope: self.namespace.name().to_owned(),
            key: group.key.of_device(&registration_id),
            registration_id,
            api_version: API_VERSION.to_owned(),
        }
    }

    /// Registers over HTTPS, to the end.
    pub async fn register(&self, at: &Registrar, device: &Applicant) -> Result<Told> {
        at.register(device, Protocol::Https, None).await
    }
}

impl Group {
    /// A group with a key of its own.
    pub fn new(name: &str, policy: Option<&'static str>, hubs: &[&str]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            hubs: hubs.iter().map(|&hub| hub.to_owned()).collect(),
            policy,
            key: Key::random()?,
        })
    }

    /// The Secret and the Enrollment.
    pub fn manifests(&self) -> String {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": self.name, "labels": { "rehome.dev/attestation": "true" } },
            "stringData": {
                "primaryKey": self.key.to_base64(),
                // Another one: an Enrollment with twice the same key is not Ready.
                "secondaryKey": self.key.of_device("secondary").to_base64(),
            },
        });
        let mut spec = json!({
            "group": {},
            "attestation": { "symmetricKey": { "secretRef": { "name": self.name } } },
            "allocation": allocation(&self.hubs),
            "initialTwin": initial_twin(),
        });
        if let Some(policy) = self.policy {
            spec["reprovisionPolicy"] = policy.into();
        }
        let enrollment: Value = json!({
            "apiVersion": "rehome.dev/v1alpha1", "kind": "Enrollment",
            "metadata": { "name": self.name }, "spec": spec,
        });
        format!("{secret}\n---\n{enrollment}\n")
    }
}

/// What devices are told that live on hubs of these names.
fn hosts(names: &[String], installation: &Installation) -> Vec<String> {
    let hubs = installation.hubs.iter();
    let hubs = hubs.filter(|hub| names.contains(&hub.name));
    hubs.map(Hub::host).collect()
}

/// Of devices that may live on these hubs.
fn allocation(hubs: &[String]) -> Value {
    let policy = if hubs.len() == 1 { "Static" } else { "Hashed" };
    json!({ "policy": policy, "hubs": hubs })
}

fn initial_twin() -> Value {
    json!({ "tags": { "line": 3 }, "properties": { "desired": { "interval": 60 } } })
}
