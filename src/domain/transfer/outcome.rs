//! How an operation ends: the status that answers it.

use jiff::{SignedDuration, Timestamp};

use super::facts::Facts;
use super::step::{EventKind, Record, Standing, Step};
use crate::api::v1alpha1::{
    CleanupEntry, DeviceRegistrationStatus, HubRef, PastOperation, Reason, RegistrationState,
};

/// How many past operations a registration answers.
const HISTORY: usize = 8;
/// How long it answers them.
const ANSWERABLE: SignedDuration = SignedDuration::from_hours(24);

impl Facts<'_> {
    /// The status with the pending request taken up as the current operation; the one before it
    /// goes into the history.
    pub(super) fn taken_up(&self) -> DeviceRegistrationStatus {
        let mut status = self.status.clone();
        let Some(request) = self.pending_request() else {
            return status;
        };
        if let Some(past) = past_operation(&status) {
            status.history.insert(0, past);
        }
        status
            .history
            .retain(|past| self.now.duration_since(past.completed_at.0) < ANSWERABLE);
        status.history.truncate(HISTORY);
        status.operation_id = Some(request.operation_id.clone());
        status.error_code = None;
        status.error_message = None;
        status
    }

    /// The registration settles at `home`.
    pub(super) fn assigned(
        &self,
        status: &mut DeviceRegistrationStatus,
        home: &HubRef,
        generation_id: Option<&str>,
    ) {
        status.state = Some(RegistrationState::Assigned);
        status.assigned_hub = Some(home.host_name.clone());
        status.home = Some(home.clone());
        status.generation_id = generation_id.map(str::to_owned);
        status.first_assignment = None;
        status.transfer = None;
        status.created_at.get_or_insert_with(|| self.time());
        status.last_changed = Some(self.time());
    }

    /// The pending request ends with a failure. A home that the device has stays its home.
    pub(super) fn failed(&self, code: i32, reason: Reason, message: String) -> Step {
        let mut status = self.taken_up();
        status.state = Some(RegistrationState::Failed);
        status.error_code = Some(code);
        status.error_message = Some(message.clone());
        status.first_assignment = None;
        status.created_at.get_or_insert_with(|| self.time());
        status.last_changed = Some(self.time());
        let mut record = self.record(status, Standing::Blocked, reason, message);
        record.event = Some(EventKind::Warning);
        Step::Record(Box::new(record))
    }

    /// The pending request meets a disabled Enrollment.
    pub(super) fn disabled(&self) -> Step {
        let mut status = self.taken_up();
        status.state = Some(RegistrationState::Disabled);
        status.first_assignment = None;
        status.created_at.get_or_insert_with(|| self.time());
        status.last_changed = Some(self.time());
        let message = "the Enrollment is disabled; enable it to let the device register".to_owned();
        Step::Record(Box::new(self.record(
            status,
            Standing::Blocked,
            Reason::EnrollmentDisabled,
            message,
        )))
    }
}

impl Record {
    /// The same write with an Event.
    pub(super) fn with_event(mut self, kind: EventKind) -> Step {
        self.event = Some(kind);
        self.into_step()
    }

    /// The write as a step.
    pub(super) fn into_step(self) -> Step {
        Step::Record(Box::new(self))
    }
}

/// Lists a hub for cleanup.
pub(super) fn list_for_cleanup(
    status: &mut DeviceRegistrationStatus,
    hub: &HubRef,
    generation_id: Option<&str>,
    now: Timestamp,
) {
    if status.cleanup.iter().any(|entry| entry.uid == hub.uid) {
        return;
    }
    status.cleanup.push(CleanupEntry {
        name: hub.name.clone(),
        uid: hub.uid.clone(),
        host_name: hub.host_name.clone(),
        generation_id: generation_id.map(str::to_owned),
        since: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(now),
    });
}

/// The operation that the status answers now, once it is over.
fn past_operation(status: &DeviceRegistrationStatus) -> Option<PastOperation> {
    let reason = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
        .map_or_else(String::new, |condition| condition.reason.clone());
    Some(PastOperation {
        operation_id: status.operation_id.clone()?,
        state: status
            .state
            .filter(|state| *state != RegistrationState::Assigning)?,
        substatus: status.substatus,
        assigned_hub: status.assigned_hub.clone(),
        reason,
        completed_at: status.last_changed.clone()?,
    })
}
