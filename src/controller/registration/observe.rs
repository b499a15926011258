//! From what the API server holds to the facts of a decision.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{Resource as _, ResourceExt as _};

use super::Pass;
use crate::api::v1alpha1::{
    ATTESTATION_LABEL, Enrollment, RESTORED_AT_ANNOTATION, SourceUnreachable,
};
use crate::domain::allocation::Pool;
use crate::domain::attestation::Attestation;
use crate::domain::ids::{ApiVersion, RegistrationId};
use crate::domain::transfer::{Enrolled, EnrollmentFacts, HubFacts};

impl Pass {
    /// The Enrollment that the last request named, if it is still that one.
    pub(super) fn enrollment_facts(&self) -> EnrollmentFacts {
        let Some(request) = &self.object.spec.request else {
            return EnrollmentFacts::Missing;
        };
        let enrollment = self
            .ctx
            .enrollment(&self.namespace, &request.enrollment.name);
        let Some(enrollment) = enrollment
            .filter(|found| found.meta().uid.as_ref() == Some(&request.enrollment.uid))
            .filter(|found| found.meta().deletion_timestamp.is_none())
        else {
            return EnrollmentFacts::Missing;
        };
        match self.enrolled(&enrollment) {
            Ok(enrolled) => EnrollmentFacts::Valid(Box::new(enrolled)),
            Err(why) => EnrollmentFacts::Invalid(why),
        }
    }

    fn enrolled(&self, enrollment: &Enrollment) -> Result<Enrolled, String> {
        let spec = &enrollment.spec;
        let name = enrollment.name_any();
        let id: RegistrationId = self
            .object
            .spec
            .registration_id
            .parse()
            .map_err(|error| format!("{error}"))?;
        let attestation = self.attestation(enrollment)?;
        let request = self.object.spec.request.as_ref();
        let attested = request.map(|request| request.credential.as_str());
        let credential = attestation.credential_of(&id, attested).ok_or_else(|| {
            format!(
                "the last request did not present a certificate, which Enrollment {name} wants; \
                 the device has to register again"
            )
        })?;
        let sticky_api = request
            .and_then(|request| request.api_version.parse::<ApiVersion>().ok())
            .is_some_and(|version| version.is_sticky());
        let device_id = spec
            .individual
            .as_ref()
            .and_then(|one| one.device_id.clone());
        let hubs = self.ctx.hubs(&self.namespace);
        Ok(Enrolled {
            disabled: spec.is_disabled(),
            policy: spec.reprovision_policy,
            sticky_api,
            pool: Pool::of(spec.allocation.as_ref(), hubs.iter().map(AsRef::as_ref)),
            device_id: device_id.unwrap_or_else(|| self.object.spec.registration_id.clone()),
            initial_twin: spec.initial_twin.clone(),
            edge: spec
                .capabilities
                .is_some_and(|capabilities| capabilities.iot_edge),
            proceed_without_source: spec.source_unreachable == Some(SourceUnreachable::Proceed),
            fingerprint: credential.fingerprint(&id),
            credential,
        })
    }

    fn attestation(&self, enrollment: &Enrollment) -> Result<Attestation, String> {
        let (spec, name) = (&enrollment.spec, enrollment.name_any());
        let uid = enrollment.uid().unwrap_or_default();
        let nothing = BTreeMap::new();
        let Some(secret) = spec.attestation.secret() else {
            return Attestation::read(spec, &uid, &nothing)
                .map_err(|error| format!("Enrollment {name}: {error}"));
        };
        let data = self.ctx.secret(&self.namespace, secret);
        let data = data.as_deref().ok_or_else(|| {
            format!("Secret {secret} of Enrollment {name} does not exist; create it")
        })?;
        if !is_for_attestation(data) {
            return Err(format!(
                "Secret {secret} of Enrollment {name} is not labelled {ATTESTATION_LABEL}=true; \
                 label it to allow its use"
            ));
        }
        Attestation::read(spec, &uid, data.data.as_ref().unwrap_or(&nothing))
            .map_err(|error| format!("Secret {secret} of Enrollment {name}: {error}"))
    }

    /// Every hub of the namespace.
    pub(super) fn hub_facts(&self) -> Vec<HubFacts> {
        self.ctx
            .hubs(&self.namespace)
            .iter()
            .map(|hub| HubFacts::of(hub))
            .collect()
    }

    /// When etcd was restored, according to the namespace.
    pub(super) fn restored_at(&self) -> Option<Timestamp> {
        let namespace = self.ctx.namespace(&self.namespace)?;
        namespace
            .annotations()
            .get(RESTORED_AT_ANNOTATION)?
            .parse()
            .ok()
    }

    /// Whether the namespace is being deleted.
    pub(super) fn is_namespace_going(&self) -> bool {
        self.ctx
            .namespace(&self.namespace)
            .is_some_and(|namespace| namespace.meta().deletion_timestamp.is_some())
    }

    /// How long until no call to that hub for this registration can act any more: calls of this
    /// process that were not answered, and those of a process that ended before it.
    pub(super) fn quiet_in(&self, hub_uid: &str) -> SignedDuration {
        let life = self.ctx.call_life();
        let now = self.ctx.clock.monotonic();
        let unanswered = self.ctx.ledger.unanswered_since(&self.uid, hub_uid);
        let since = unanswered.unwrap_or(self.ctx.started);
        SignedDuration::try_from(life.saturating_sub(now.saturating_sub(since)))
            .unwrap_or(SignedDuration::MAX)
    }
}

fn is_for_attestation(secret: &Secret) -> bool {
    secret
        .labels()
        .get(ATTESTATION_LABEL)
        .is_some_and(|value| value == "true")
}
