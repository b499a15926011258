//! A hub that the operator runs itself.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::enrollment::DeletionPolicy;

/// A `rehome hub` that the operator runs beside the `IoTHub`: a `StatefulSet` with a volume, a
/// Service, a certificate, a service key, a `NetworkPolicy` and a `PodDisruptionBudget`. `{}` is
/// complete.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("has(self.storage) == has(oldSelf.storage) && (!has(self.storage) || self.storage == oldSelf.storage)").message("storage cannot change: to grow, expand the volume claim of the hub's pod; for another storage class, create another IoTHub and move the devices there"))]
#[x_kube(validation = Rule::new("!has(self.deletionPolicy) || !has(self.storage) || !has(self.storage.postgres)").message("deletionPolicy is for the volume; devices in PostgreSQL stay there"))]
#[serde(rename_all = "camelCase")]
pub struct ManagedSpec {
    /// Where the devices are kept. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<HubStorageSpec>,

    /// What the hub's container requests and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<HubResources>,

    /// The Service by which devices reach the hub, on ports 443 and 8883.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<HubServiceSpec>,

    /// The hub's own certificate. When absent the operator makes one for `hostName`, signed by the
    /// namespace's own authority (Secret `iothub-ca`), and renews it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<HubCertificateSpec>,

    /// What becomes of the volume, and so of every device's twin, when the `IoTHub` is deleted:
    /// `Retain` (default) or `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// Where a managed hub keeps its devices: on a volume, or in PostgreSQL.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.postgres) || (!has(self.size) && !has(self.storageClassName))").message("size and storageClassName are for a volume, which a hub with postgres does not have"))]
#[serde(rename_all = "camelCase")]
pub struct HubStorageSpec {
    /// Size of the volume; `1Gi` when absent, which is room for some 100,000 devices.
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("size must be an amount of bytes, such as 10Gi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub size: Option<String>,

    /// `StorageClass` of the volume; the cluster's default when absent.
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("storageClassName must be a StorageClass's name: lower-case letters, digits, - and ."))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,

    /// A PostgreSQL database instead of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<HubPostgresSpec>,
}

/// Database of a managed hub.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HubPostgresSpec {
    /// Secret in the same namespace with the connection URL under the key `url`
    /// (`postgres://USER:PASSWORD@HOST:5432/DATABASE`). The hub's pod has it in
    /// `/etc/rehome/postgres`, so that the URL may end in
    /// `?sslmode=verify-full&sslrootcert=/etc/rehome/postgres/ca.crt`.
    pub secret_ref: SecretRef,
}

/// What the container of a managed hub requests and may use.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HubResources {
    /// What is kept free for it; 50m of cpu and 128Mi of memory when `resources` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
    /// What it may use; 512Mi of memory when `resources` is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// Amounts of processor and memory.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAmounts {
    /// Processors, such as `500m`.
    #[x_kube(validation = Rule::new("isQuantity(self)").message("cpu must be a number of processors, such as \"2\" or 500m"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub cpu: Option<String>,
    /// Memory, such as `512Mi`.
    #[x_kube(validation = Rule::new("isQuantity(self)").message("memory must be an amount of bytes, such as 512Mi"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub memory: Option<String>,
}

/// Service of a managed hub.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.loadBalancerClass) || (has(self.type) && self.type == 'LoadBalancer')").message("loadBalancerClass is for services of type LoadBalancer"))]
#[serde(rename_all = "camelCase")]
pub struct HubServiceSpec {
    /// `ClusterIP` (default), `NodePort` or `LoadBalancer`. Devices use the ports 443 and 8883 and
    /// no others.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Annotations of the Service, for load balancers and for DNS.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Which load balancer serves it; the cluster's default when absent.
    #[x_kube(validation = Rule::new(r"self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')").message("loadBalancerClass must be a label such as example.com/internal"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub load_balancer_class: Option<String>,
}

/// How a Service is reached: `ClusterIP`, `NodePort` or `LoadBalancer`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum ServiceType {
    /// From inside the cluster, or by what you put in front of it.
    #[default]
    ClusterIP,
    /// By a port of every node; something in front of it has to offer 443 and 8883.
    NodePort,
    /// By an address of its own.
    LoadBalancer,
}

impl ServiceType {
    /// As the Kubernetes API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Certificate of a managed hub that somebody else keeps, such as cert-manager.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HubCertificateSpec {
    /// Secret of type `kubernetes.io/tls` in the same namespace, for `hostName`. Where it has
    /// `ca.crt`, the operator trusts the hub by that; else by the system's roots. The hub takes up a
    /// change without a restart.
    pub secret_ref: SecretRef,
}

/// A Secret in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("name must be a Secret's name: lower-case letters, digits, - and ."))]
    #[schemars(length(max = 253))]
    pub name: String,
}

impl ManagedSpec {
    /// Name of the Secret with a certificate that somebody else keeps.
    pub fn certificate_secret(&self) -> Option<&str> {
        let certificate = self.certificate.as_ref()?;
        Some(&certificate.secret_ref.name)
    }

    /// Name of the Secret with the URL of the database, of a hub without a volume.
    pub fn database_secret(&self) -> Option<&str> {
        let postgres = self.storage.as_ref()?.postgres.as_ref()?;
        Some(&postgres.secret_ref.name)
    }

    /// What becomes of the volume.
    pub fn deletion_policy(&self) -> DeletionPolicy {
        self.deletion_policy.unwrap_or(DeletionPolicy::Retain)
    }
}
