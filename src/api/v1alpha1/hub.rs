//! `IoTHub`: where devices can live.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::managed::ManagedSpec;

/// A hub on which devices can live: any hub that speaks the IoT Hub service API.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rehome.dev",
    version = "v1alpha1",
    kind = "IoTHub",
    plural = "iothubs",
    singular = "iothub",
    shortname = "iothub",
    category = "rehome",
    namespaced,
    status = "IoTHubStatus",
    derive = "PartialEq",
    doc = "A hub on which devices can live.",
    selectable = ".spec.hostName",
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.hostName"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Devices",
        type_ = "integer",
        json_path = ".status.assignedDevices"
    ),
    printcolumn(
        name = "Weight",
        type_ = "integer",
        json_path = ".spec.allocation.weight"
    ),
    printcolumn(
        name = "Cordoned",
        type_ = "boolean",
        json_path = ".spec.allocation.cordoned"
    ),
    printcolumn(
        name = "Workload",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="WorkloadReady")].reason"#
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("has(self.connection) != has(self.managed)").message("set exactly one of connection (a hub that runs elsewhere) and managed (one that the operator runs)"),
    validation = Rule::new("has(self.managed) == has(oldSelf.managed)").message("a hub cannot change between connection and managed; create another IoTHub and move the devices there"),
    validation = Rule::new("!has(self.managed) || !isIP(self.hostName)").message("a managed hub needs a DNS name as hostName: the address of its Service is not known beforehand")
)]
#[serde(rename_all = "camelCase")]
pub struct IoTHubSpec {
    /// Host name that devices are told. A bare DNS name without a port: device SDKs connect to
    /// fixed ports and compare it with the hub's certificate. Cannot change.
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("hostName is immutable: devices were told this name; create another IoTHub and move them there"),
        validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')").message("hostName must be a bare lower-case DNS name without scheme or port, such as hub-west.example.com")
    )]
    #[schemars(length(max = 253))]
    pub host_name: String,

    /// Where the hub is, for people and for latency-based allocation later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub location: Option<String>,

    /// How much allocation gives to this hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<HubAllocationSpec>,

    /// How the operator reaches a hub that runs elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionSpec>,

    /// A hub that the operator runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedSpec>,

    /// What to do when a first assignment finds a device of that id at the hub that no
    /// registration owns: `Adopt` (default) keeps its twin and sets the attested credential, as
    /// Azure DPS does; `Refuse` fails the registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_devices: Option<ExistingDevices>,
}

/// Share of a hub in allocation.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HubAllocationSpec {
    /// Relative share of devices, 1 to 1000; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<u32>,

    /// A cordoned hub takes no further devices; those that live there stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<bool>,
}

/// How to reach and authenticate at a hub.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[x_kube(validation = Rule::new("!has(self.units) || has(self.sku)").message("units needs sku: together they say how fast an Azure hub may be called"))]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSpec {
    /// Secret in the same namespace whose value is a service connection string
    /// (`HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`) of a policy that may read and write
    /// the registry and connect to the service.
    pub connection_string_secret_ref: SecretKeyRef,

    /// HTTPS endpoint of the service API when it is not `https://<hostName>`.
    #[x_kube(validation = Rule::new(r"self.matches('^https://[A-Za-z0-9.-]+(:[0-9]{1,5})?$')").message("endpoint must be https://HOST or https://HOST:PORT without a path"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub endpoint: Option<String>,

    /// PEM certificates that the hub's certificate must chain to, instead of the system's roots.
    #[x_kube(validation = Rule::new(r"self.contains('-----BEGIN CERTIFICATE-----')").message("caBundle must hold at least one PEM certificate (-----BEGIN CERTIFICATE-----)"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,

    /// Tier of an Azure hub; with `units` it gives the rate the operator keeps below. Basic tiers have
    /// no twins and cannot serve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<Sku>,

    /// Units of an Azure hub; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    pub units: Option<u32>,
}

/// One value of a Secret in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("name must be a Secret's name: lower-case letters, digits, - and ."))]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Key in the Secret's data; `connectionString` when absent.
    #[x_kube(validation = Rule::new(r"self.matches('^[-._a-zA-Z0-9]+$')").message("key must be a data key of the Secret: letters, digits and - . _"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
}

/// Tier of an Azure IoT hub: `F1`, `S1`, `S2` or `S3` (basic tiers have no twins and cannot serve).
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum Sku {
    /// Free tier.
    F1,
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

/// What a first assignment does with a device that it finds: `Adopt` or `Refuse`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum ExistingDevices {
    /// Take the device over: twin kept, credential set from the attestation.
    #[default]
    Adopt,
    /// Fail the registration.
    Refuse,
}

/// What the operator found out about the hub.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IoTHubStatus {
    /// Generation of the spec that this status describes; -1 until the operator has looked at the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Registrations whose home is this hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_devices: Option<i64>,
    /// What the hub says it guarantees beyond the Azure API, such as `etags-unique` and `fence`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub guarantees: Vec<String>,
    /// `Ready`, `Reachable` and `CredentialsValid`; of a managed hub also `WorkloadReady`,
    /// `CertificateReady`, `ServiceReady`, `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

impl IoTHubSpec {
    /// Weight in allocation.
    pub fn weight(&self) -> u32 {
        self.allocation
            .as_ref()
            .and_then(|allocation| allocation.weight)
            .unwrap_or(1)
    }

    /// Whether the hub takes no further devices.
    pub fn is_cordoned(&self) -> bool {
        self.allocation
            .as_ref()
            .and_then(|allocation| allocation.cordoned)
            .unwrap_or(false)
    }
}

impl SecretKeyRef {
    /// Key in the Secret's data.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or("connectionString")
    }
}
