//! One Enrollment as the gateway keeps it.

use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::api::v1alpha1::{Enrollment, EnrollmentSpec};
use crate::domain::attestation::x509::X509;
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
    /// The spec, without what only the controller needs, and without certificates.
    pub spec: EnrollmentSpec,
    /// The certificates of the spec, read once. Absent when the devices have keys, and when a
    /// certificate cannot be used.
    pub x509: Option<Arc<X509>>,
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
        let uid = object.uid().unwrap_or_default();
        let x509 = spec.attestation.x509.as_mut().and_then(|certificates| {
            let certificates = std::mem::take(certificates);
            X509::read(&certificates, &uid).ok().map(Arc::new)
        });
        let individual = match &spec.individual {
            Some(individual) => Some(individual.registration_id.parse().ok()?),
            None => None,
        };
        Some(Self {
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid,
            created: object
                .creation_timestamp()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            individual,
            spec,
            x509,
        })
    }

    /// Older ones count; the name decides between equals.
    pub(super) fn age(&self) -> (Timestamp, &str) {
        (self.created, &self.name)
    }

    /// Whether its devices have keys, and so show tokens.
    pub fn takes_tokens(&self) -> bool {
        self.spec.attestation.x509.is_none()
    }

    /// Name of the Secret with its keys, if its attestation has any.
    pub(super) fn secret(&self) -> Option<&str> {
        self.spec.attestation.secret()
    }
}
