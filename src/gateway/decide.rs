//! What to do with a register request of a device that has proved who it is. Pure.
//!
//! The rules of `docs/architecture.md`, "Registration": an operation that is open, or just over, is
//! answered again; an unchanged device is answered from the record; everything else is one write.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::record::Record;
use crate::api::v1alpha1::{EnrollmentRef, HubRef, Reason, RegistrationRequest, RegistrationState};
use crate::domain::allocation::{Placement, Pool};
use crate::domain::ids::{ApiVersion, OperationId, RegistrationId};
use crate::domain::policy::Rule;
use crate::domain::terms::Terms;

/// A register request after attestation, with the Enrollment that decides it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub id: RegistrationId,
    pub api_version: ApiVersion,
    pub enrollment: EnrollmentRef,
    /// The Enrollment refuses registrations.
    pub disabled: bool,
    /// The rule that applies to this device.
    pub rule: Rule,
    /// Where the Enrollment may place devices.
    pub pool: Pool,
    /// Fingerprint of the attested credential.
    pub credential: String,
    pub payload_digest: Option<String>,
    /// Of the device's TPM, if it has one.
    pub storage_root_key: Option<String>,
    /// Where in a trace the request is, if that is recorded.
    pub traceparent: Option<String>,
}

/// When things happened that no record tells.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub now: Timestamp,
    /// When this replica last told the device its hub.
    pub last_answer: Option<Timestamp>,
}

/// How long answers stay good.
#[derive(Debug, Clone, Copy)]
pub struct Windows {
    /// Device SDKs repeat a request whose answer got lost: for so long after its completion the
    /// same request is the same operation.
    pub resend: Duration,
    /// A device that comes back unchanged so soon is probably refused by its hub.
    pub refused: Duration,
    /// Its home is verified at most once in so long.
    pub verify: Duration,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            resend: Duration::from_mins(1),
            refused: Duration::from_mins(5),
            verify: Duration::from_mins(10),
        }
    }
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Answer from the record; write nothing.
    Answer,
    /// Create the record with this request.
    Create(RegistrationRequest),
    /// Write this request to the record, if it is still the one that was looked at.
    Update(RegistrationRequest),
    /// The record is going away; only then can there be a new one.
    AwaitDeletion,
}

/// Decides. `operation` names the operation, should one begin.
#[must_use]
pub fn decide(
    asked: &Asked,
    record: Option<&Record>,
    moment: Moment,
    windows: &Windows,
    operation: &OperationId,
) -> Decision {
    let Some(record) = record else {
        return Decision::Create(asked.request(None, moment.now, operation, false));
    };
    if record.deleting {
        return Decision::AwaitDeletion;
    }
    if record.open_operation().is_some() {
        return Decision::Answer;
    }
    let same = asked.is_same_question(record);
    if same && record.is_settled() && within(record.last_changed, moment.now, windows.resend) {
        return Decision::Answer;
    }
    let mut verify = false;
    if same && asked.is_answered_by(record) {
        verify = record.state == Some(RegistrationState::Assigned)
            && is_refused_by_its_hub(record, moment, windows);
        if !verify {
            return Decision::Answer;
        }
    }
    Decision::Update(asked.request(Some(record), moment.now, operation, verify))
}

/// Whether the device probably comes because its hub sent it away, and its home has not been
/// verified lately.
fn is_refused_by_its_hub(record: &Record, moment: Moment, windows: &Windows) -> bool {
    let answered = record.last_changed.max(moment.last_answer);
    within(answered, moment.now, windows.refused)
        && !within(record.home_checked, moment.now, windows.verify)
}

fn within(then: Option<Timestamp>, now: Timestamp, window: Duration) -> bool {
    // A time in the future is another replica's clock, a little ahead.
    then.is_some_and(|then| now.duration_since(then).unsigned_abs() < window || then > now)
}

impl Asked {
    /// Whether the device asks what it asked last, and what decides it is as it was.
    fn is_same_question(&self, record: &Record) -> bool {
        let Some(request) = &record.request else {
            return false;
        };
        // A version that does not parse was not written by a gateway.
        let same_class = request
            .api_version
            .parse::<ApiVersion>()
            .is_ok_and(|version| version.is_sticky() == self.api_version.is_sticky());
        let same_terms = self.terms().decided(
            record.state,
            record.policy.as_deref(),
            record.placement_hash.as_deref(),
        );
        same_class
            && same_terms
            && request.enrollment == self.enrollment
            && request.credential == self.credential
            && request.payload_digest == self.payload_digest
            && request.storage_root_key == self.storage_root_key
    }

    /// Whether the record answers the same question once more.
    fn is_answered_by(&self, record: &Record) -> bool {
        record.is_settled() && self.terms().repeat(record.state)
    }

    fn terms(&self) -> Terms<'_> {
        Terms {
            disabled: self.disabled,
            rule: self.rule,
            pool: &self.pool,
        }
    }

    fn request(
        &self,
        record: Option<&Record>,
        now: Timestamp,
        operation: &OperationId,
        verify_home: bool,
    ) -> RegistrationRequest {
        let (proposed_hub, reason) = self.proposal(record);
        RegistrationRequest {
            operation_id: operation.as_str().to_owned(),
            api_version: self.api_version.as_str().to_owned(),
            enrollment: self.enrollment.clone(),
            credential: self.credential.clone(),
            proposed_hub,
            reason: reason.as_str().to_owned(),
            payload_digest: self.payload_digest.clone(),
            storage_root_key: self.storage_root_key.clone(),
            verify_home,
            traceparent: self.traceparent.clone(),
            requested_at: MicroTime(now),
        }
    }

    /// The hub that binds for a device without a home, and why. The controller decides about
    /// devices that have one.
    fn proposal(&self, record: Option<&Record>) -> (Option<String>, Reason) {
        if self.disabled {
            return (None, Reason::EnrollmentDisabled);
        }
        if record.is_some_and(|record| record.home.is_some()) {
            return (None, self.reason_to_ask());
        }
        let taken = |hub: &HubRef| record.is_some_and(|record| record.cleanup.contains(&hub.uid));
        match self.pool.place(self.id.as_str(), None, taken) {
            Placement::Go(hub) => (Some(hub.name), Reason::InitialAssignment),
            Placement::Nowhere(reason) | Placement::Stay { reason, .. } => (None, reason),
        }
    }

    fn reason_to_ask(&self) -> Reason {
        match self.rule {
            Rule::MigrateData | Rule::Default => Reason::MigrateData,
            Rule::ResetData => Reason::ResetData,
            Rule::Never => Reason::PolicyNever,
            Rule::Sticky => Reason::StickyApiVersion,
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
