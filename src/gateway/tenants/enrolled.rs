//! One Enrollment as the gateway keeps it.

use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::v1alpha1::{Enrollment, EnrollmentSpec};
use crate::domain::ids::RegistrationId;

/// An Enrollment.
#[derive(Debug, Clone)]
pub struct Enrolled {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub created: Timestamp,
    /// The device of an individual Enrollment; absent for a group.
    pub individual: Option<RegistrationId>,
    /// The spec, without the initial twin: the controller alone needs it.
    pub spec: EnrollmentSpec,
}

impl Enrolled {
    /// Takes what is needed. `None` while the Enrollment is being deleted: it enrolls nobody any
    /// more. Also when the registration id does not parse, which the API server prevents.
    pub fn new(object: &Enrollment) -> Option<Self> {
        if object.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let mut spec = object.spec.clone();
        spec.initial_twin = None;
        let individual = match &spec.individual {
            Some(individual) => Some(individual.registration_id.parse().ok()?),
            None => None,
        };
        Some(Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            created: object
                .creation_timestamp()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            individual,
            spec,
        })
    }

    /// Older ones count; the name decides between equals.
    pub(super) fn age(&self) -> (Timestamp, &str) {
        (self.created, &self.name)
    }

    pub(super) fn secret(&self) -> &str {
        &self.spec.attestation.symmetric_key.secret_ref.name
    }
}
