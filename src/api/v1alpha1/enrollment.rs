//! `Enrollment`: who may provision, and where to.
//!
//! Names and meaning follow the enrollment records of the Azure DPS service API.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::AttestationSpec;

/// Who may provision, and to which hubs.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rehome.dev",
    version = "v1alpha1",
    kind = "Enrollment",
    plural = "enrollments",
    singular = "enrollment",
    shortname = "enr",
    category = "rehome",
    namespaced,
    status = "EnrollmentStatus",
    derive = "PartialEq",
    doc = "Who may provision, and to which hubs.",
    selectable = ".spec.individual.registrationId",
    printcolumn(
        name = "Policy",
        type_ = "string",
        json_path = ".spec.reprovisionPolicy"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".spec.provisioningStatus"
    ),
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
        json_path = ".status.registrations.total"
    ),
    printcolumn(
        name = "Would-Move",
        type_ = "integer",
        json_path = ".status.registrations.wouldMove"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("has(self.individual) != has(self.group)").message("set exactly one of individual (one device) and group (many devices)"),
    validation = Rule::new("has(self.group) == has(oldSelf.group)").message("an individual Enrollment cannot become a group or the other way round; create another Enrollment"),
    validation = Rule::new("!has(self.maxRegistrations) || has(self.group)").message("maxRegistrations is for groups; an individual Enrollment has one registration"),
    validation = Rule::new("!has(self.attestation.x509) || has(self.attestation.x509.clientCertificates) == has(self.individual)").message("an individual Enrollment takes x509.clientCertificates, a group x509.signingCertificates"),
    validation = Rule::new("!has(self.attestation.tpm) || has(self.individual)").message("tpm is for individual Enrollments: an endorsement key is one device's"),
)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentSpec {
    /// Enrolls one device. Exactly one of `individual` and `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub individual: Option<IndividualSpec>,

    /// Enrolls every device that passes the attestation. Exactly one of `individual` and `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupSpec>,

    /// How a device proves who it is.
    pub attestation: AttestationSpec,

    /// `Enabled` (default) or `Disabled`. A disabled Enrollment refuses further registrations;
    /// devices that are provisioned already keep working at their hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioning_status: Option<ProvisioningStatus>,

    /// What a further registration does: `MigrateData` moves the device with its twin when
    /// allocation chooses another hub, `ResetData` gives it the initial twin afresh (on the same
    /// hub too: a factory reset), `Never` keeps it where it is. Absent: devices that speak an
    /// api-version up to 2018-04-01 stay, newer ones move with their data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reprovision_policy: Option<ReprovisionPolicy>,

    /// Which hub a device gets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation: Option<AllocationSpec>,

    /// Twin that a device starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_twin: Option<InitialTwin>,

    /// Capabilities written to the device's identity at the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,

    /// Most registrations that this group may have, so that a leaked key cannot fill the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_registrations: Option<u32>,

    /// What a move does when the source hub cannot be reached: `Wait` (default) or `Proceed`
    /// from the initial twin, for disasters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_unreachable: Option<SourceUnreachable>,

    /// Fate of the registrations when this Enrollment is deleted: `Retain` (default) or `Delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// One device.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IndividualSpec {
    /// Registration id, compared without regard to case. Cannot change.
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("registrationId is immutable; create another Enrollment"),
        validation = Rule::new(r"self.matches('^[A-Za-z0-9]([-A-Za-z0-9._:]*[-A-Za-z0-9])?$')").message("registrationId may hold letters, digits and - . _ : and must start with a letter or digit and end with a letter, digit or -"),
    )]
    #[schemars(length(max = 128))]
    pub registration_id: String,

    /// Device id at the hub; the registration id when absent. A change takes effect once the
    /// device's registration has been deleted.
    #[x_kube(validation = Rule::new(r"self.matches('^[-A-Za-z0-9:.+%_#*?!(),=@;$\']+$')").message("deviceId may hold ASCII letters, digits and - : . + % _ # * ? ! ( ) , = @ ; $ '"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub device_id: Option<String>,
}

/// Many devices, told apart by registration id.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct GroupSpec {}

/// Whether an Enrollment accepts registrations: `Enabled` or `Disabled`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum ProvisioningStatus {
    /// Registrations are accepted.
    #[default]
    Enabled,
    /// Registrations are refused.
    Disabled,
}

/// What a further registration does: `MigrateData`, `ResetData` or `Never`.
///
/// Behaviour of the Azure page "IoT Hub Device reprovisioning concepts".
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[schemars(transform = super::told_by_fields)]
pub enum ReprovisionPolicy {
    /// Evaluate allocation; if the hub changes, move with all data.
    MigrateData,
    /// Evaluate allocation; start from the initial twin, on the same hub too.
    ResetData,
    /// Stay.
    Never,
}

/// Which hub a device gets.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("!(has(self.hubs) && has(self.hubSelector))").message("set at most one of hubs and hubSelector"),
    validation = Rule::new("!has(self.policy) || self.policy != 'Static' || (has(self.hubs) && size(self.hubs) == 1)").message("policy Static needs exactly one entry in hubs"),
)]
#[serde(rename_all = "camelCase")]
pub struct AllocationSpec {
    /// `Hashed` (default) spreads devices by weight and keeps each where it is as long as it can;
    /// `Static` gives every device the one hub named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<AllocationPolicy>,

    /// Names of `IoTHub`s in this namespace. With neither this nor `hubSelector`: every hub of
    /// the namespace.
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("self.all(name, name.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'))").message("hubs must be names of IoTHub objects: lower-case letters, digits, - and ."),
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 253)))]
    pub hubs: Option<Vec<String>>,

    /// Labels of the `IoTHub`s in this namespace to choose from.
    #[x_kube(validation = Rule::new("!has(self.matchExpressions) || self.matchExpressions.all(e, e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))").message("hubSelector.matchExpressions: operator must be In or NotIn with values, or Exists or DoesNotExist without"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_selector: Option<LabelSelector>,
}

/// How allocation chooses: `Hashed` or `Static`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[schemars(transform = super::told_by_fields)]
pub enum AllocationPolicy {
    /// Weighted rendezvous hashing over the registration id.
    #[default]
    Hashed,
    /// The one hub named.
    Static,
}

/// Twin that a device starts with; never changed by what the hub's twin becomes.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InitialTwin {
    /// Tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub tags: Option<Map<String, Value>>,
    /// Properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<InitialTwinProperties>,
}

/// Properties of an initial twin.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct InitialTwinProperties {
    /// Desired properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "free_form")]
    pub desired: Option<Map<String, Value>>,
}

/// Capabilities of a device's identity.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Capabilities {
    /// Whether the device is an IoT Edge device.
    #[serde(default)]
    pub iot_edge: bool,
}

/// What a move does when its source hub cannot be reached: `Wait` or `Proceed`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum SourceUnreachable {
    /// Wait with a visible reason.
    #[default]
    Wait,
    /// Go on from the initial twin; the source is cleaned up when it comes back.
    Proceed,
}

/// Fate of dependants on deletion: `Retain` or `Delete`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum DeletionPolicy {
    /// They stay.
    #[default]
    Retain,
    /// They are deleted too.
    Delete,
}

/// What the operator found out about the Enrollment.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentStatus {
    /// Generation of the spec that this status describes; -1 until the operator has looked at the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Registrations that came through this Enrollment, by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registrations: Option<RegistrationCounts>,
    /// Registrations by hub.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["hub".into()]))]
    pub hubs: Vec<HubCount>,
    /// The certificates of the spec as they were read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub certificates: Vec<CertificateStatus>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A certificate of an Enrollment.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CertificateStatus {
    /// `primary` or `secondary`.
    pub name: String,
    /// Its subject.
    pub subject: String,
    /// Its thumbprint: SHA-256 in hex.
    pub sha256_thumbprint: String,
    /// When its validity begins.
    pub not_before: String,
    /// When its validity ends.
    pub not_after: String,
    /// Of an authority: whether possession of its key is proven. Until then it vouches for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<bool>,
    /// Of an authority: common name of the certificate that proves possession of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_code: Option<String>,
}

/// Registrations of an Enrollment, by state.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationCounts {
    /// All of them.
    pub total: i64,
    /// With an assignment under way.
    pub assigning: i64,
    /// With a home.
    pub assigned: i64,
    /// That could not be assigned.
    pub failed: i64,
    /// Refused because the Enrollment is disabled.
    pub disabled: i64,
    /// That would get another hub at their next registration.
    pub would_move: i64,
}

/// Registrations at one hub.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct HubCount {
    /// Host name of the hub.
    pub hub: String,
    /// Registrations whose home it is.
    pub registrations: i64,
}

impl EnrollmentSpec {
    /// Whether registrations are refused.
    pub fn is_disabled(&self) -> bool {
        self.provisioning_status == Some(ProvisioningStatus::Disabled)
    }
}

/// Schema of an object whose content belongs to the user.
fn free_form(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
