//! `DeviceRegistration`: one device's registration record.
//!
//! One writer per field: the gateway owns `spec.request`, people own `spec.reprovision`, the
//! controller owns the status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ReprovisionPolicy;

/// One device's registration record.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "rehome.dev",
    version = "v1alpha1",
    kind = "DeviceRegistration",
    plural = "deviceregistrations",
    singular = "deviceregistration",
    shortname = "devreg",
    category = "rehome",
    namespaced,
    status = "DeviceRegistrationStatus",
    derive = "PartialEq",
    doc = "One device's registration record.",
    selectable = ".spec.registrationId",
    selectable = ".status.assignedHub",
    selectable = ".status.state",
    printcolumn(name = "Hub", type_ = "string", json_path = ".status.assignedHub"),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".status.transfer.to.hub.hostName"
    ),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Substatus", type_ = "string", json_path = ".status.substatus"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".status.policy"),
    printcolumn(
        name = "Last-Change",
        type_ = "date",
        json_path = ".status.lastChanged"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Device",
        type_ = "string",
        priority = 1,
        json_path = ".status.deviceId"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRegistrationSpec {
    /// Registration id in the spelling of the device's first request. Cannot change.
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("registrationId is immutable; delete the registration instead"),
        validation = Rule::new(r"self.matches('^[A-Za-z0-9]([-A-Za-z0-9._:]*[-A-Za-z0-9])?$')").message("registrationId may hold letters, digits and - . _ : and must start with a letter or digit and end with a letter, digit or -"),
    )]
    #[schemars(length(max = 128))]
    pub registration_id: String,

    /// The last accepted request; written by the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RegistrationRequest>,

    /// The operator's wish to reprovision this device now; consumed once per `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reprovision: Option<ReprovisionTrigger>,

    /// Fate of the identity at its hub when this object is deleted: `Delete` (default) or `Retain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<RegistrationDeletionPolicy>,
}

/// An accepted registration request.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationRequest {
    /// Operation that the device polls. Letters, digits, `.` and `-`.
    #[x_kube(validation = Rule::new(r"self.matches('^[A-Za-z0-9][-A-Za-z0-9.]*$')").message("operationId may hold letters, digits, . and -"))]
    #[schemars(length(max = 80))]
    pub operation_id: String,
    /// api-version that the device spoke, such as `2019-03-31`.
    #[x_kube(validation = Rule::new(r"self.matches('^20[0-9]{2}-[01][0-9]-[0-3][0-9](-preview)?$')").message("apiVersion must be YYYY-MM-DD or YYYY-MM-DD-preview"))]
    pub api_version: String,
    /// Enrollment that the device was attested against.
    pub enrollment: EnrollmentRef,
    /// Fingerprint of the attested credential; equal fingerprints mean equal credentials.
    #[schemars(length(min = 1, max = 128))]
    pub credential: String,
    /// Public part of the storage root key of the device's TPM, to which its hub key is encrypted:
    /// base64 of the `TPM2B_PUBLIC`. Absent without a TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub storage_root_key: Option<String>,
    /// Name of the `IoTHub` that allocation proposes for a first assignment; absent when no
    /// member can take devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub proposed_hub: Option<String>,
    /// Why that hub.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Digest of the request's payload; absent when it carried none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub payload_digest: Option<String>,
    /// The device came back unchanged soon after its last answer: its hub probably refuses it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify_home: bool,
    /// Place of the request in a trace that is recorded: `traceparent` of W3C Trace Context.
    #[x_kube(validation = Rule::new(r"self.matches('^00-[0-9a-f]{32}-[0-9a-f]{16}-01$')").message("traceparent must be that of a sampled trace, as in W3C Trace Context"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 55))]
    pub traceparent: Option<String>,
    /// When the gateway accepted the request.
    pub requested_at: MicroTime,
}

/// The Enrollment behind a request.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct EnrollmentRef {
    /// Name of the Enrollment in the registration's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its uid.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
}

/// The operator's wish to reprovision a device now.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[x_kube(
    validation = Rule::new("!has(self.hub) || self.mode != 'Policy'").message("hub needs mode MigrateData or ResetData: with mode Policy the Enrollment's allocation chooses"),
    validation = Rule::new("self.id != oldSelf.id || self == oldSelf").message("a changed trigger needs a new id: each id is consumed once"),
)]
#[serde(rename_all = "camelCase")]
pub struct ReprovisionTrigger {
    /// Any text; a new one is a new wish.
    #[schemars(length(min = 1, max = 64))]
    pub id: String,
    /// `Policy` does what the Enrollment's policy would do at the device's next request;
    /// `MigrateData` and `ResetData` override it.
    pub mode: ReprovisionMode,
    /// Name of the `IoTHub` to move to, instead of what allocation chooses.
    #[x_kube(validation = Rule::new(r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')").message("hub must be the name of an IoTHub: lower-case letters, digits, - and ."))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hub: Option<String>,
}

/// What a trigger does: `Policy`, `MigrateData` or `ResetData`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReprovisionMode {
    /// As the policy says.
    Policy,
    /// Move with all data.
    MigrateData,
    /// Start from the initial twin.
    ResetData,
}

/// Fate of the identity when the registration is deleted: `Delete` or `Retain`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum RegistrationDeletionPolicy {
    /// Removed from every hub where it may be.
    #[default]
    Delete,
    /// Left at its home.
    Retain,
}

/// The state machine's memory.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRegistrationStatus {
    /// Generation of the spec that this status describes; -1 until the operator has looked at the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How the last operation ended: `Assigned` to a hub, `Failed`, or `Disabled` by the Enrollment; and
    /// `Assigning` until it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RegistrationState>,
    /// How the device came to its hub: `InitialAssignment`, for the first time; `DeviceDataMigrated`, with
    /// its data; `DeviceDataReset`, with the initial twin; `ReprovisionedToInitialAssignment`, it was
    /// there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substatus: Option<Substatus>,
    /// Host name of the hub where the device lives, as devices are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_hub: Option<String>,
    /// The `IoTHub` behind `assignedHub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<HubRef>,
    /// Device id at the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The hub's generation id of the identity: changes whenever it is created anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_id: Option<String>,
    /// Last operation that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// Policy that decided last: `MigrateData`, `ResetData`, `Never`, `Sticky` or `Default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Hash of the placement inputs that the home was evaluated with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement_hash: Option<String>,
    /// Fingerprint of the credential that the home hub holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// A first assignment that differs from what the request proposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_assignment: Option<FirstAssignment>,
    /// The open move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// Hubs where something of this registration may be left; never chosen while listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["uid".into()]))]
    pub cleanup: Vec<CleanupEntry>,
    /// A move that was refused, so that the device's reconnect does not retry it for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedMove>,
    /// DPS error code of a failed registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<i32>,
    /// What failed and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Past operations, newest first, answerable for 24 hours; at most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastOperation>,
    /// Id of the last trigger consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reprovision_id: Option<String>,
    /// When the registration was first assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<MicroTime>,
    /// When an operation last completed or the state last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_changed: Option<MicroTime>,
    /// When the home was last verified at the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_checked_at: Option<MicroTime>,
    /// `Ready`, `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Registration status of the DPS device API: `Assigning`, `Assigned`, `Failed` or `Disabled`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[schemars(transform = super::told_by_fields)]
pub enum RegistrationState {
    /// An operation is under way.
    Assigning,
    /// The device has a home.
    Assigned,
    /// The operation failed.
    Failed,
    /// The Enrollment is disabled.
    Disabled,
}

/// How the device came to its hub, as in the DPS device API.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[schemars(transform = super::told_by_fields)]
pub enum Substatus {
    /// Assigned for the first time.
    InitialAssignment,
    /// Moved with its data.
    DeviceDataMigrated,
    /// Started from the initial twin.
    DeviceDataReset,
    /// The device existed at the hub when it was first assigned.
    ReprovisionedToInitialAssignment,
}

/// A hub as it was when it was recorded.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "camelCase")]
pub struct HubRef {
    /// Name of the `IoTHub`.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its host name.
    pub host_name: String,
}

/// A first assignment that binds instead of the request's proposal.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FirstAssignment {
    /// Id in the mark of the identity that is created.
    pub id: String,
    /// Hub where it is created.
    pub hub: HubRef,
}

/// An open move: a recorded intention, fixed until it is committed or aborted.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Id in the marks of both identities.
    pub id: String,
    /// `Open`, `Committed` or `Aborting`.
    pub phase: TransferPhase,
    /// Which twin the device gets.
    pub data: TransferData,
    /// Where the device comes from.
    pub from: TransferSource,
    /// Where it goes; the same hub for a reset in place.
    pub to: TransferTarget,
    /// Policy or trigger that wanted the move.
    pub policy: String,
    /// Trigger that wanted the move, when it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Placement inputs that chose the target.
    pub placement_hash: String,
    /// Twin that the target starts with when the data is not migrated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_twin: Option<super::InitialTwin>,
    /// Go on without the source when it cannot be reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proceed_without_source: bool,
    /// When the move was recorded.
    pub started_at: MicroTime,
    /// Why the move is given up; only with phase `Aborting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_reason: Option<String>,
    /// What people should know of the abort.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_message: Option<String>,
    /// What the source's twin was at Commit, on hubs that accept twin writes while fenced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_twin: Option<TwinMark>,
    /// Modules of the device, from Commit on; on hubs that show none of a disabled device from the
    /// beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<String>,
    /// Modules that do not move whole, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub module_notes: Vec<ModuleNote>,
}

/// A module that does not move whole.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ModuleNote {
    /// Its id.
    pub module: String,
    /// Whether it stays behind, and goes with the source.
    pub left: bool,
    /// Why.
    pub why: String,
}

impl Transfer {
    /// Whether that module stays behind.
    pub fn has_left(&self, module: &str) -> bool {
        let is_it = |note: &ModuleNote| note.left && note.module == module;
        self.module_notes.iter().any(is_it)
    }
}

/// Versions of a twin as they were read.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TwinMark {
    /// Twin etag (covers tags and desired).
    pub etag: String,
    /// `$version` of desired.
    pub desired: i64,
    /// `$version` of reported.
    pub reported: i64,
}

/// How far a move got: `Open`, `Committed` or `Aborting`.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferPhase {
    /// The target is being prepared; nothing is decided.
    Open,
    /// The target is the home; the source goes.
    Committed,
    /// The source stays the home; the target goes.
    Aborting,
}

/// Which twin the device gets: `Migrate` its own or `Initial`, the Enrollment's.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferData {
    /// Everything moves.
    Migrate,
    /// The Enrollment's initial twin.
    Initial,
}

/// Source of a move.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TransferSource {
    /// The hub.
    pub hub: HubRef,
    /// Generation id of the identity that moves.
    pub generation_id: String,
    /// Its status before the fence.
    pub original: OriginalStatus,
}

/// Target of a move.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct TransferTarget {
    /// The hub.
    pub hub: HubRef,
}

/// Status of an identity before a fence; the reason is never a mark of ours.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct OriginalStatus {
    /// Whether the identity was enabled.
    pub enabled: bool,
    /// Its statusReason, unless that was our mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A hub where something of this registration may be left.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CleanupEntry {
    /// Name of the `IoTHub`.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its host name.
    pub host_name: String,
    /// Generation id to remove when the identity carries no mark of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation_id: Option<String>,
    /// Since when.
    pub since: MicroTime,
}

/// A move that was refused.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RefusedMove {
    /// Placement inputs of the refused move.
    pub placement_hash: String,
    /// Host name of the hub that refused.
    pub host_name: String,
    /// Why.
    pub reason: String,
    /// How often in a row.
    pub attempts: u32,
    /// Not tried again before, unless the placement inputs change.
    pub until: MicroTime,
}

/// An operation that is over.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PastOperation {
    /// The operation.
    pub operation_id: String,
    /// How it ended.
    pub state: RegistrationState,
    /// How the device came to its hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substatus: Option<Substatus>,
    /// Host name it named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_hub: Option<String>,
    /// Reason of the decision.
    pub reason: String,
    /// When it ended.
    pub completed_at: MicroTime,
}

impl CleanupEntry {
    /// The hub of the entry.
    pub fn hub(&self) -> HubRef {
        HubRef {
            name: self.name.clone(),
            uid: self.uid.clone(),
            host_name: self.host_name.clone(),
        }
    }
}

impl ReprovisionMode {
    /// The policy that this mode forces, if it forces one.
    pub fn forced_policy(self) -> Option<ReprovisionPolicy> {
        match self {
            Self::Policy => None,
            Self::MigrateData => Some(ReprovisionPolicy::MigrateData),
            Self::ResetData => Some(ReprovisionPolicy::ResetData),
        }
    }
}
