//! `rehome.dev/v1alpha1`: `IoTHub`, `Enrollment` and `DeviceRegistration`.

mod attestation;
mod conditions;
mod enrollment;
mod hub;
mod id_scope;
mod managed;
mod registration;

pub use attestation::{
    AttestationSpec, ClientCertificates, SigningCertificates, SymmetricKeySecretRef,
    SymmetricKeySpec, TpmSecretRef, TpmSpec, Verification, X509Spec,
};
pub use conditions::{ConditionType, Reason, is_true, settle};
pub use enrollment::{
    AllocationPolicy, AllocationSpec, Capabilities, CertificateStatus, DeletionPolicy, Enrollment,
    EnrollmentSpec, EnrollmentStatus, GroupSpec, HubCount, IndividualSpec, InitialTwin,
    InitialTwinProperties, ProvisioningStatus, RegistrationCounts, ReprovisionPolicy,
    SourceUnreachable,
};
pub use hub::{
    ConnectionSpec, ExistingDevices, HubAllocationSpec, IoTHub, IoTHubSpec, IoTHubStatus,
    SecretKeyRef, Sku,
};
pub use id_scope::{ID_SCOPE_ANNOTATION, claim_order, claimed_id_scope};
pub use managed::{
    HubCertificateSpec, HubPostgresSpec, HubResources, HubServiceSpec, HubStorageSpec, ManagedSpec,
    ResourceAmounts, SecretRef, ServiceType,
};
pub use registration::{
    CleanupEntry, DeviceRegistration, DeviceRegistrationSpec, DeviceRegistrationStatus,
    EnrollmentRef, FirstAssignment, HubRef, ModuleNote, OriginalStatus, PastOperation, RefusedMove,
    RegistrationDeletionPolicy, RegistrationRequest, RegistrationState, ReprovisionMode,
    ReprovisionTrigger, Substatus, Transfer, TransferData, TransferPhase, TransferSource,
    TransferTarget, TwinMark,
};

/// API group of every kind here.
pub const GROUP: &str = "rehome.dev";

/// Finalizer on `DeviceRegistration`s and on `IoTHub`s that registrations refer to.
pub const FINALIZER: &str = "rehome.dev/registry";

/// Label that an attestation Secret must carry before the gateway may read it.
pub const ATTESTATION_LABEL: &str = "rehome.dev/attestation";

/// Annotation on a Namespace: etcd was restored at this instant (RFC 3339).
pub const RESTORED_AT_ANNOTATION: &str = "rehome.dev/restored-at";

/// Leaves it to a field to say what its value does: of an optional field, the description of the type
/// would take the place of its own.
fn told_by_fields(schema: &mut schemars::Schema) {
    schema.remove("description");
}
